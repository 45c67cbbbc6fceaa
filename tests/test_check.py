"""`videolens check`: a checkpoint as it runs here beside the original in transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.checkpoints import byte_tokenizer, write_module, write_state
from helpers.families import CASES
from helpers.families.qwen import SPECIAL
from test_templates import KINDS

from videolens.__main__ import main
from videolens.errors import ModelError
from videolens.model.checkpoints import original
from videolens.model.checkpoints.check import Check, Compared, check_model, default_clip

PROCESSOR = "preprocessor_config.json"


def write(directory: Path, kind: str) -> Path:
    """A random checkpoint; only the Qwens have a tokenizer."""
    case, files = CASES[kind], {PROCESSOR: CASES[kind].preprocessor}
    if case.layout:
        state, config = case.layout(case.plain)
        return write_state(directory, state, config | {"img_context_token_id": case.placeholder}, files=files)
    write_module(directory, case.plain, files=files)
    if kind in ("qwen2_vl", "qwen2_5_vl"):
        tokenizer = byte_tokenizer(SPECIAL, eos="<|im_end|>", chat_template=KINDS["qwen2_vl"][0])
        tokenizer.save_pretrained(directory)
    return directory


def by_what(check: Check, what: str) -> list[Compared]:
    return [line for line in check.lines if line.what == what]


@pytest.mark.parametrize("kind", ["qwen2_vl", "qwen2_5_vl", "llava_onevision", "internvl", "video_llama_3"])
def test_a_family_that_transformers_has(kind: str, tmp_path) -> None:
    found = check_model(write(tmp_path, kind), video=default_clip(3))
    assert found.passed, found.markdown()
    for what in ("layer-0 residual", "residual per layer", "logits"):
        judged = [line.pair for line in by_what(found, what) if line.tolerance == 1e-4]
        assert judged == [
            "ours (sdpa), original (eager)",
            "ours (eager), original (eager)",
            "ours (sdpa), original (sdpa)",
        ]
        assert any(line.difference for line in by_what(found, what)), "eager attention and SDPA round differently"
    assert "top-5 words" in found.markdown()


def test_a_family_that_transformers_lacks(tmp_path) -> None:
    found = check_model(write(tmp_path, "internvl_chat"), video=default_clip(2))
    assert found.passed, found.markdown()
    assert [line.pair for line in by_what(found, "logits")] == ["ours (sdpa), ours (eager)"]
    assert "transformers has no class for the layout of 'internvl_chat'" in found.markdown()
    assert "asked with token ids" in found.markdown()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_judged_by_its_own_rounding(dtype: torch.dtype, tmp_path) -> None:
    found = check_model(write(tmp_path, "qwen2_vl"), video=default_clip(2), dtype=dtype)
    assert found.passed, found.markdown()
    assert all(line.tolerance >= 0.02 for line in by_what(found, "logits") if line.tolerance is not None)


def test_the_command(capsys) -> None:
    assert main(["check", "shapes"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("shapes, float32") and said.rstrip().endswith("passed")
    pixels = next(line for line in said.splitlines() if line.startswith("| pixels"))
    assert "ok; in levels of 255" in pixels


def test_a_difference_is_found(tmp_path, capsys, monkeypatch) -> None:
    write(tmp_path, "qwen2_vl")
    inputs = original._inputs

    def other(*arguments: Any) -> dict[str, Any]:
        given = inputs(*arguments)
        return given | {"pixel_values_videos": given["pixel_values_videos"].flip(0)}

    monkeypatch.setattr(original, "_inputs", other)
    assert main(["check", str(tmp_path), "--n-frames", "4"]) == 1
    said = capsys.readouterr().out
    assert "**too far**" in said and "FAILED" in said
    assert not Compared("logits", "", float("nan"), 1e-4).passed


def test_asked_in_other_words_where_it_has_none(tmp_path) -> None:
    write(tmp_path, "qwen2_vl")
    (tmp_path / "chat_template.jinja").unlink()
    found = check_model(tmp_path, video=default_clip(2))
    assert found.passed and "template 'vicuna', because" in found.markdown()


def test_bad_input(tmp_path, capsys) -> None:
    with pytest.raises(ModelError):
        check_model(tmp_path / "nothing")
    assert main(["check", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("videolens: error: ")
    assert main(["check", "shapes", "--video", str(tmp_path / "no.mp4")]) == 2
    assert "no.mp4" in capsys.readouterr().err
    for frames in ("0", "-1"):
        assert main(["check", "shapes", "--n-frames", frames]) == 2
    write(tmp_path, "qwen2_vl")
    (tmp_path / PROCESSOR).unlink()
    assert main(["check", str(tmp_path)]) == 2
    assert PROCESSOR in capsys.readouterr().err
