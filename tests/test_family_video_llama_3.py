"""VideoLLaMA3 in the layout of transformers: times and commas, a shared number of pixels, its tower's frequencies."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from helpers.families import CASES, family_named
from helpers.families.video_llama_3 import PATCH, PREPROCESSOR, tiny, tiny_config
from transformers.models.video_llama_3.image_processing_pil_video_llama_3 import smart_resize

from videolens import Question, Video
from videolens.errors import ModelError
from videolens.model.families import Clock
from videolens.model.transformer import HookedVideoTransformer

CASE = CASES["video_llama_3"]


@pytest.fixture
def ours() -> HookedVideoTransformer:
    return CASE.ours


def noise(frames: int = 3, height: int = 40, width: int = 70) -> Video:
    levels = np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    return Video.from_array(levels, fps=2.0)


def test_times_and_commas_belong_to_their_frame(ours) -> None:
    prompt = ours.prompt(Question(noise(), "What moves?", ["a dog", "a cat"]), "vicuna")
    written = CASE.written(prompt)  # what test_family_questions.py compares with
    assert written.startswith("Time 0.0s:<|video_pad|>") and ",Time 0.5s:" in written
    tokens = prompt.tokens
    frames, rows, columns = tokens.grid
    assert frames == 3 and rows * columns <= 24 // 3 and rows != columns
    for frame, time in enumerate(("Time 0.0s:", "Time 0.5s:", "Time 1.0s:")):
        here = tokens[f"frame {frame}"]
        assert len(here) == rows * columns and set(tokens.seconds[here].tolist()) == {0.5 * frame}
        stamp = [i for i in tokens["timestamp"].tolist() if tokens.frame[i] == frame]
        # bytes: one token a letter, the space written Ġ
        assert "".join(tokens.texts[i] for i in stamp).replace("Ġ", " ") == time
        assert stamp[-1] + 1 == here[0]
    commas = tokens["separator"].tolist()
    assert [int(tokens.frame[i]) for i in commas] == [0, 1] and {tokens.texts[i] for i in commas} == {","}


def test_unknown_times_are_a_second_apart() -> None:
    clock = Clock(torch.full((2,), torch.nan, dtype=torch.float64))
    layout = family_named("video_llama_3").layout(tiny_config(), (2, 1, 1), clock)
    assert [piece.text for piece in layout.pieces] == ["Time 0.0s:", None, ",", "Time 1.0s:", None]


@pytest.mark.parametrize("fps", [24, 30000 / 1001, 12.5])
def test_times_are_the_processors_to_the_letter(ours, fps, tmp_path) -> None:
    # mkv keeps times to 1 ms, so that 0.1499 s is stored as 0.150 s; the processor divides the frame's number by the
    # rate. The same goes for a clip whose clock does not begin at 0.
    path = tmp_path / "clip.mkv"
    Video.from_array(np.random.default_rng(1).integers(0, 256, (60, 16, 16, 3), dtype=np.uint8), fps=fps).write(path)
    for sampling in ([*range(0, 60, 3)], "uniform"):
        video = Video.from_file(path, sampling=sampling)
        prompt = ours.prompt(Question(video, "What moves?", ["a dog", "a cat"]), "vicuna")
        stamps = re.findall("Time [0-9.]+s:", ours.tokenizer.decode(prompt.input_ids[0]))
        assert stamps == [f"Time {number / video.fps:.1f}s:" for number in video.indices.tolist()]
        assert stamps == re.findall("Time [0-9.]+s:", CASE.written(prompt))


def test_an_edited_clip_keeps_the_times_of_its_own() -> None:
    video = noise(4)
    assert Clock.of(video.reversed()).written == Clock.of(video).written == [0.0, 0.5, 1.0, 1.5]


@pytest.mark.parametrize("size", [(40, 70), (16, 16), (5, 9), (130, 24), (97, 211)])
@pytest.mark.parametrize("frames", [1, 4])
def test_frames_share_the_largest_number_of_pixels(ours, size, frames) -> None:
    least, most = PREPROCESSOR["size"].values()
    height, width = ours.pixels(noise(frames, *size).frames).shape[-2:]
    assert (height, width) == smart_resize(*size, factor=2 * PATCH, min_pixels=least, max_pixels=most // frames)


@torch.no_grad()
def test_rotary_frequencies_of_the_tower_stay_exact_in_bfloat16() -> None:
    ours = HookedVideoTransformer.from_hugging_face(tiny())
    exact = ours.frontend.parts["tower"].rotary_pos_emb.inv_freq.clone()
    ours.to(torch.bfloat16)
    kept = ours.frontend.parts["tower"].rotary_pos_emb.inv_freq
    assert kept.dtype == torch.float32 and torch.equal(kept, exact)
    assert ours.frontend.encode(torch.randn(1, 1, 3, 16, 24)).dtype == torch.bfloat16


def test_an_image_preprocessor_is_refused(tmp_path) -> None:
    CASE.write(tmp_path, CASE.plain, bare=True)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**PREPROCESSOR, "merge_size": 1}))
    with pytest.raises(ModelError, match=r"video_preprocessor_config\.json"):
        HookedVideoTransformer.from_pretrained(tmp_path)
