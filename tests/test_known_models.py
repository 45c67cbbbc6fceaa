"""What is known of models: those that are read, those that are not and why, and causality, which is checked."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from helpers.families import CASES, NEEDS, family_named
from helpers.models import tiny_llava_next_video
from helpers.prompts import tiny_model, tiny_prompt

import videolens as vl
from videolens.__main__ import main
from videolens.errors import ModelError
from videolens.model import families
from videolens.model.checkpoints.convert import convert
from videolens.model.families._refused import REFUSED

DOCS = Path(__file__).parent.parent / "docs"
ANOTHER_TYPE = {"llava_qwen": "llava"}
"""Families whose checkpoints have one of two model types."""


def test_the_documentation_has_the_tables_of_the_registry() -> None:
    """In a process of its own: tests register families, too."""
    command = [sys.executable, "-m", "videolens", "models", "--markdown"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    page = (DOCS / "models.md").read_text()
    for table in said.split("\n\n"):
        assert table in page, f"docs/models.md lacks the table of `{' '.join(command[1:])}`:\n{table}"
    lines = [line for line in said.splitlines() if line.startswith("| `")]
    assert len(lines) == len({*CASES, *NEEDS}) + len(ANOTHER_TYPE) + len(REFUSED)
    for name in CASES:
        family = family_named(name)
        names = "".join(f" (`{one}`)" for one in (*family.architectures, *family.decoders))
        types = (family.model_type, *([ANOTHER_TYPE[name]] if name in ANOTHER_TYPE else []))
        line, *same = [line for line in lines if line.startswith(tuple(f"| `{one}`{names} |" for one in types))]
        assert len(same) == len(types) - 1 and {each.split("|", 2)[2] for each in same} <= {line.split("|", 2)[2]}
        published, vision, decoder, original = family.about
        assert all(word and word in line for word in (published, vision, decoder)) and original in line
        assert ("| transformers |" in line) == CASES[name].in_transformers


def test_the_command_lists_both_and_the_bundled_models(capsys) -> None:
    assert main(["models"]) == 0
    said = capsys.readouterr().out
    assert "qwen3_vl: read\n" in said and "molmo2: not read: tokens of all frames see one another" in said
    assert said.rstrip().endswith("bundled: shapes, shapes-image, shapes-nohint, shapes-qwen")


@pytest.mark.parametrize("one", REFUSED, ids=lambda one: one.published)
def test_what_is_not_read_says_why(one, tmp_path: Path) -> None:
    for model_type in one.model_types:
        (tmp_path / "config.json").write_text(f'{{"model_type": "{model_type}"}}')
        with pytest.raises(ModelError, match="is not read: ") as error:
            vl.HookedVideoTransformer.from_pretrained(tmp_path)
        assert one.why in str(error.value)
        assert hasattr(transformers.models, model_type), "such a family is there"
    for architecture in one.architectures:
        assert hasattr(transformers, architecture), "such a class is there"
        with pytest.raises(ModelError, match="is not read: "):
            families.family_of("a_type_of_its_own", [architecture])


def test_a_family_that_somebody_registers_is_read_whatever_is_said_here(monkeypatch) -> None:
    monkeypatch.setattr(families, "_FAMILIES", dict(families._FAMILIES))
    own = families.register(replace(family_named("llava_next_video"), model_type="molmo2"))
    assert families.family_of("molmo2") is own


def test_the_hybrids_have_layers_without_attention() -> None:
    for kind in (transformers.Qwen3_5TextConfig, transformers.Qwen3NextConfig):
        kinds = kind(num_hidden_layers=8).layer_types
        assert kinds.count("linear_attention") == 6 and kinds.count("full_attention") == 2


# -- causality


def test_a_family_that_is_not_causal_is_refused() -> None:
    module, family = tiny_llava_next_video(), family_named("llava_next_video")
    assert convert(module, family, name="x").cfg.causal
    with pytest.raises(ModelError, match="the family 'llava_next_video' says that attention is not causal"):
        convert(module, replace(family, causal=False), name="x")


@pytest.mark.parametrize("said", [{"is_causal": False}, {"use_bidirectional_attention": True}])
def test_a_checkpoint_that_is_not_causal_is_refused(said: dict[str, bool]) -> None:
    module = tiny_llava_next_video()
    for name, value in said.items():
        setattr(module.config.text_config, name, value)
    with pytest.raises(ModelError, match=r"config\.json says that attention is not causal"):
        vl.HookedVideoTransformer.from_hugging_face(module)


def test_a_decoder_with_other_layers_is_refused() -> None:
    module = tiny_llava_next_video()
    module.config.text_config.layer_types = ["linear_attention", "full_attention", "sliding_attention"]
    with pytest.raises(ModelError, match=r"layers of the kind 'linear_attention', which are no attention"):
        vl.HookedVideoTransformer.from_hugging_face(module)


@torch.no_grad()
def test_what_relies_on_causality_refuses_a_model_without_it() -> None:
    model = tiny_model()
    prompt = tiny_prompt(model)
    cut = vl.Knockout("video", "last", layers=[1])
    exact = vl.sweep(model, prompt, [cut]).logits
    model.cfg.causal = False
    for what, run in {
        "the exact engine": lambda: vl.sweep(model, prompt, [cut]),
        "a run that can be resumed": lambda: model.run_clean(prompt),
        "a compiled pathway": lambda: model.compile(cut),
    }.items():
        with pytest.raises(ModelError, match=rf"{what} is exact where .* not causal .*engine=\"full\""):
            run()
    full = vl.sweep(model, prompt, [cut], engine="full").logits
    assert (full - exact).abs().max() <= 1e-4 * exact.std()
