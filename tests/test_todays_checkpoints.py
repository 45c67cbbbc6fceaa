"""Checkpoints as today's tools write them and as older ones did: every family reads both, and to the same model."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.checkpoints import write_module, write_state
from helpers.families import CASES, Case, each_family
from transformers import GenerationConfig

from videolens.model.transformer import HookedVideoTransformer

load = HookedVideoTransformer.from_pretrained
PIXELS = ("video_preprocessor_config.json", "preprocessor_config.json")


def changed(file: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """A JSON file, and every object in it, rewritten."""

    def rewrite(each: Any) -> Any:
        return change({key: rewrite(value) for key, value in each.items()}) if isinstance(each, dict) else each

    file.write_text(json.dumps(rewrite(json.loads(file.read_text()))))


def dtype_as(name: str, other: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda each: {name if key == other else key: value for key, value in each.items()}


def rope_of_old(each: dict[str, Any]) -> dict[str, Any]:
    """`rope_parameters` of transformers 5 as `rope_theta` and `rope_scaling`."""
    if not (rope := each.pop("rope_parameters", None)):
        return each
    scaling = {"type": rope["rope_type"]} | {key: rope[key] for key in rope if key not in ("rope_theta", "rope_type")}
    return each | {"rope_theta": rope["rope_theta"], "rope_scaling": scaling if len(scaling) > 1 else None}


def rope_of_today(each: dict[str, Any]) -> dict[str, Any]:
    """`rope_theta` and `rope_scaling` as `rope_parameters`."""
    if "rope_theta" not in each or isinstance(each["rope_theta"], dict) or "rope_type" in each:
        return each
    scaling = dict(each.pop("rope_scaling", None) or {"type": "default"})
    kind = scaling.pop("type", scaling.get("rope_type", "default"))
    if kind in ("su", "longrope"):
        scaling["original_max_position_embeddings"] = each["original_max_position_embeddings"]
    return each | {"rope_parameters": {"rope_theta": each.pop("rope_theta"), "rope_type": kind, **scaling}}


def processor_alone(directory: Path) -> None:
    """As a processor of today writes itself: one file, a table per modality."""
    [file] = [directory / name for name in PIXELS if (directory / name).exists()]
    kind = "video_processor" if file.name.startswith("video") else "image_processor"
    beside = directory / "processor_config.json"
    said = json.loads(beside.read_text()) if beside.exists() else {"processor_class": "SomeProcessor"}
    beside.write_text(json.dumps(said | {kind: json.loads(file.read_text())}))
    file.unlink()


def config(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Path], None]:
    return lambda directory: changed(directory / "config.json", change)


WAYS: dict[str, Callable[[Path], None]] = {
    "torch_dtype": config(dtype_as("torch_dtype", "dtype")),
    "dtype": config(dtype_as("dtype", "torch_dtype")),
    "rope_scaling": config(rope_of_old),
    "rope_parameters": config(rope_of_today),
    "processor_config.json alone": processor_alone,
}


@each_family
@pytest.mark.parametrize("way", WAYS)
def test_the_same_model_comes_out(name: str, way: str, tmp_path: Path) -> None:
    case = CASES[name]
    case.write(tmp_path, case.plain)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    WAYS[way](tmp_path)
    found, expected = load(tmp_path), case.ours
    frames = torch.randint(0, 256, (case.step * 2, 40, 60, 3), generator=torch.Generator().manual_seed(1))
    assert torch.equal(found.pixels(frames.byte()), expected.pixels(frames.byte()))
    for prompt, same in zip(case.prompts(found), case.prompts(expected), strict=True):
        assert torch.equal(found(prompt), expected(same))
    written = {file: file.read_bytes() for file in tmp_path.iterdir()}
    layouts = {"torch_dtype": True, "rope_scaling": True, "dtype": False, "rope_parameters": False}
    if layouts.get(way) is not (case.layout is not None):
        assert written != before, "nothing was rewritten, so nothing is tested"


@each_family
def test_rotary_settings_matter_however_they_are_written(name: str, tmp_path: Path) -> None:
    """The base is read from where it stands: another one gives another model, and the same one both ways."""
    case, logits = CASES[name], {}
    for way in ("rope_scaling", "rope_parameters"):
        case.write(tmp_path, case.plain)
        changed(tmp_path / "config.json", lambda each: {k: 77.0 if k == "rope_theta" else v for k, v in each.items()})
        WAYS[way](tmp_path)
        found = load(tmp_path)
        logits[way] = found(case.prompts(found)[0])
    assert torch.equal(*logits.values())
    assert not torch.allclose(logits["rope_scaling"], case.ours(case.prompts(case.ours)[0]), atol=1e-3)


@each_family
def test_a_chat_template_in_a_file_of_its_own(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    case.write(tmp_path, case.plain)
    said = "{% for message in messages %}<{{ message['role'] }}>{% endfor %}"
    (tmp_path / "chat_template.jinja").write_text(said)
    assert load(tmp_path).tokenizer.chat_template == said


@each_family
def test_several_ends_of_an_answer(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    case.write(tmp_path, case.plain)
    GenerationConfig(eos_token_id=[65, 66]).save_pretrained(tmp_path)
    assert {65, 66} <= set(load(tmp_path).eos_tokens)


@each_family
def test_tied_embeddings(name: str, tmp_path: Path) -> None:
    """The unembedding is left out of the files: it is the embedding."""
    case = CASES[name]
    module = tie(case)
    if case.layout is None:
        write_module(tmp_path, module)
    else:
        state, said = case.layout(module)
        [key] = [key for key in state if key.endswith(("lm_head.weight", "output.weight"))]
        del state[key]  # type: ignore[attr-defined]
        write_state(tmp_path, state, tied(said))
    case.tokenizer().save_pretrained(tmp_path)
    ours = load(tmp_path)
    assert ours.unembed.weight is ours.frontend.embed.weight
    case.prove(ours, module)


def tie(case: Case) -> Any:
    """The original with one tensor as embedding and unembedding."""
    module = copy.deepcopy(case.plain)
    names = dict(module.named_parameters())
    [first] = [key for key in names if key.endswith(("embed_tokens.weight", "tok_embeddings.weight"))]
    [last] = [key for key in names if key.endswith(("lm_head.weight", "output.weight"))]
    with torch.no_grad():
        names[last].copy_(names[first])
    if case.layout is None:
        for each in (module.config, module.config.get_text_config()):
            each.tie_word_embeddings = True
        module.tie_weights()
    return module


def tied(said: dict[str, Any]) -> dict[str, Any]:
    """A published config that says so, at the top and in its decoder's part."""
    inner = {
        key: {**value, "tie_word_embeddings": True}
        for key, value in said.items()
        if key in ("text_config", "llm_config")
    }
    return said | inner | {"tie_word_embeddings": True}
