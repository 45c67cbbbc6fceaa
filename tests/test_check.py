"""`videolens check`: a checkpoint as it runs here beside the original in transformers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from helpers.checkpoints import byte_tokenizer, write_module, write_state
from helpers.families import CASES
from helpers.families.qwen import SPECIAL
from test_family_qwen import CLIPS
from test_templates import KINDS
from transformers import AutoTokenizer, BatchFeature
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor

from videolens import Video
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
    if kind in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl"):
        tokenizer = byte_tokenizer(SPECIAL, eos="<|im_end|>", chat_template=KINDS["qwen2_vl"][0])
        tokenizer.save_pretrained(directory)
    return directory


def by_what(check: Check, what: str) -> list[Compared]:
    return [line for line in check.lines if line.what == what]


CHECKED = [
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen3_vl",
    "llava_onevision",
    "internvl",
    "smolvlm",
    "video_llama_3",
    "video_llava",
]


@pytest.mark.parametrize("kind", CHECKED)
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


def test_frames_that_the_authors_prepare_otherwise_are_not_held_against_a_processor(tmp_path) -> None:
    found = check_model(write(tmp_path, "internvl_chat_qwen"), video=default_clip(2))
    assert found.passed, found.markdown()
    [line] = by_what(found, "pixels")
    assert line.difference is None and "the authors' code resizes frames to a square" in line.note


def test_a_checkpoint_without_a_preprocessor_file(tmp_path) -> None:
    directory = write(tmp_path, "llava_qwen")
    (directory / PROCESSOR).unlink()
    found = check_model(directory, video=default_clip(2))
    assert found.passed, found.markdown()
    assert "transformers cannot make its processor" in by_what(found, "pixels")[0].note


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


class Processor:
    """Stands for a checkpoint's own processor, which needs torchvision: the call, the text and the times of
    `Qwen2_5_VLProcessor`, `slower` times the seconds, `more` behind the text."""

    video_token, video_processor = "<|video_pad|>", object()

    def __init__(self, directory: Path, slower: float = 1.0, more: str = "") -> None:
        self.tokenizer, self.slower, self.more = AutoTokenizer.from_pretrained(directory), slower, more

    def __call__(self, *, text, videos, video_metadata, do_sample_frames, return_tensors) -> BatchFeature:
        assert not do_sample_frames and len(video_metadata[0].frames_indices) == len(videos[0])
        grid = [-(-len(videos[0]) // 2), 4, 6]
        given = {"video_grid_thw": torch.tensor([grid])}
        whole = Qwen2_5_VLProcessor.replace_video_token(
            SimpleNamespace(video_processor=SimpleNamespace(merge_size=2), video_token=self.video_token), given, 0
        )
        ids = self.tokenizer([text[0].replace(self.video_token, whole) + self.more])["input_ids"]
        seconds = [self.slower * 2 / said.sampled_fps for said in video_metadata]
        return BatchFeature({"input_ids": ids, **given, "second_per_grid_ts": seconds}, tensor_type=return_tensors)


@pytest.fixture
def through(monkeypatch) -> Any:
    """A checkpoint's processor, as `AutoProcessor` hands it out."""

    def use(make: Any) -> None:
        monkeypatch.setattr(transformers.AutoProcessor, "from_pretrained", lambda directory, **more: make(directory))

    return use


@pytest.mark.parametrize(("n_source", "fps", "n"), CLIPS)
def test_a_right_checkpoint_passes_with_the_times_of_its_processor(n_source, fps, n, tmp_path, through) -> None:
    write(tmp_path, "qwen2_5_vl")
    through(Processor)
    frames = np.random.default_rng(0).integers(0, 256, (n_source, 16, 24, 3), dtype=np.uint8)
    found = check_model(tmp_path, video=Video.from_array(frames, fps=fps, n_frames=n))
    assert found.passed, found.markdown()
    (ids,) = by_what(found, "token ids")
    assert ids.difference == 0 and ids.tolerance == 0 and ids.note.startswith("all ")


@pytest.mark.parametrize(("wrong", "line"), [({"slower": 3.0}, "logits"), ({"more": "?"}, "token ids")])
def test_another_clock_or_text_than_the_processors_is_found(wrong, line, tmp_path, through) -> None:
    write(tmp_path, "qwen2_5_vl")
    through(lambda directory: Processor(directory, **wrong))
    clip = Video.from_array(np.zeros((8, 16, 24, 3), dtype=np.uint8), fps=2.0)
    found = check_model(tmp_path, video=clip)
    assert not found.passed
    assert {each.what for each in found.lines if not each.passed} >= {line}
    assert all(each.passed for each in by_what(found, "token ids")) == (line != "token ids")


def test_without_its_processor_the_check_says_why(tmp_path, through) -> None:
    def none(directory: Path) -> Any:
        raise ImportError("needs torchvision")

    write(tmp_path, "qwen2_vl")
    through(none)
    found = check_model(tmp_path, video=default_clip(2))
    (ids,) = by_what(found, "token ids")
    assert found.passed and ids.difference is None and "ImportError: needs torchvision" in ids.note
    through(lambda directory: SimpleNamespace())
    assert "takes no videos" in by_what(check_model(tmp_path, video=default_clip(2)), "token ids")[0].note


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
