"""Qwen3-VL: a time before every pair of frames, positions, sizes, files. What is added: test_deepstack.py."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.checkpoints import write_module
from helpers.families import CASES
from helpers.families.qwen import BLOCK, MERGE, PAIR, PATCH, VIDEO
from helpers.families.qwen3_vl import PREPROCESSOR, asked, in_ids
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.glm4v.video_processing_glm4v import smart_resize
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

import videolens as vl
from videolens.errors import ModelError
from videolens.model.families._mrope import positions_frame_by_frame
from videolens.model.vision.clip_budget import ClipBudget

CASE = CASES["qwen3_vl"]
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% for part in message.content %}"
    "{% if part.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def ours() -> vl.HookedVideoTransformer:
    return CASE.load()


# -- prompts


@pytest.mark.parametrize("grid", [(1, 1, 1), (3, 2, 5), (7, 5, 2)])
@pytest.mark.parametrize(("before", "after"), [(0, 4), (7, 1), (3, 0)])
def test_positions_are_those_of_transformers(grid: tuple[int, int, int], before: int, after: int) -> None:
    frames, rows, columns = grid
    ids = torch.tensor([[5] * before + in_ids(frames * PAIR, rows * BLOCK, columns * BLOCK) + [6] * after])
    tokens = vl.TokenMap.from_spans(ids.shape[1], {}, grid=grid, video=(ids[0] == VIDEO).nonzero().flatten())
    expected, _ = CASE.plain.model.get_rope_index(
        input_ids=ids,
        mm_token_type_ids=2 * (ids == VIDEO).int(),
        video_grid_thw=torch.tensor([[frames, MERGE * rows, MERGE * columns]]),
    )
    assert torch.equal(positions_frame_by_frame(tokens), expected[:, 0])


def test_frames_without_text_between_them_are_refused(ours) -> None:
    pixels = torch.randn(1, 4, 3, BLOCK, BLOCK)
    for ids in ([3, VIDEO, 5], [3, VIDEO, VIDEO, 5]):
        with pytest.raises(ModelError, match=r"2 video tokens lie in 1 pieces.*2 frames of 1 × 1"):
            ours.prompt_from_ids(ids, pixels)
    apart = vl.TokenMap.from_spans(8, {}, grid=(2, 1, 2), video=[1, 3, 5, 6])
    with pytest.raises(ModelError, match="lie in 3 pieces"):
        positions_frame_by_frame(apart)
    text = vl.TokenMap.from_spans(5, {}, grid=(0, 0, 0), video=())
    assert positions_frame_by_frame(text).tolist() == [[0, 1, 2, 3, 4]] * 3


@pytest.mark.parametrize(("frames", "times"), [(4, ["0.2", "1.2"]), (5, ["0.2", "1.2", "2.0"]), (1, ["0.0"])])
def test_a_pair_is_told_the_time_halfway_between_its_frames(ours, frames: int, times: list[str]) -> None:
    prompt = asked(ours, frames=frames)
    said = ours.tokenizer.decode(prompt.input_ids[0, prompt.tokens["timestamp"]])
    assert said == "".join(f"<{time} seconds>" for time in times)
    assert prompt.tokens.merged == PAIR


# -- frames


@given(st.integers(1, 40), st.integers(4, 400), st.integers(4, 400), st.booleans())
def test_frames_have_the_size_that_the_original_gives_them(frames: int, height: int, width: int, cap: bool) -> None:
    said = {"size": {"shortest_edge": 4096, "longest_edge": 32 * 32 * 300}, "patch_size": 16, "temporal_patch_size": 2}
    ours = ClipBudget.of_clips({**said, "cap_pixels_per_frame": cap, "max_video_tokens": 20})
    most, n = 32 * 32 * 300, max(frames, 2)  # the original refuses a clip of one frame
    if cap:  # as `resize` of transformers' Qwen3VLVideoProcessor
        most = n * max(min(20 * 32 * 32, most // n), int(4096 * 1.05))
    limits = {"temporal_factor": 2, "factor": 32, "min_pixels": 4096, "max_pixels": most}
    assert ours.size(frames, height, width) == smart_resize(num_frames=n, height=height, width=width, **limits)


def test_frames_that_no_size_fits_are_refused() -> None:
    ours = ClipBudget.of_clips(PREPROCESSOR)
    with pytest.raises(ModelError, match="more than 200 times"):
        ours.size(4, 8, 4000)
    with pytest.raises(ModelError, match=r"blocks of 8 × 8.*do_resize: false"):
        replace(ours, resize=False).size(4, 8, 12)
    assert replace(ours, resize=False).size(4, 8, 16) == (8, 16)


# -- checkpoints


def test_what_model_and_processor_save_is_loaded(tmp_path, monkeypatch) -> None:
    """Without torchvision transformers refuses to look at the class of a video processor; it is built as ever."""
    monkeypatch.setattr(Qwen3VLProcessor, "check_argument_for_proper_class", lambda *given: None)
    images, videos = Qwen2VLImageProcessorPil(patch_size=PATCH), Qwen3VLVideoProcessor(**PREPROCESSOR)
    write_module(tmp_path, CASE.plain)
    Qwen3VLProcessor(images, CASE.tokenizer(), videos, chat_template=CHAT).save_pretrained(tmp_path)
    assert {"processor_config.json", "chat_template.jinja"} <= {file.name for file in tmp_path.iterdir()}
    ours = vl.HookedVideoTransformer.from_pretrained(tmp_path)
    assert ours.pixel_settings == ClipBudget.of_clips(PREPROCESSOR)
    question = asked(ours).question
    prompt = ours.prompt(question)
    assert prompt.text.startswith("<|im_start|>user\n<|vision_start|><|video_pad|><|vision_end|>Question: What moves?")
    whole = prompt.text.replace("<|video_pad|>", CASE.written(prompt))
    assert prompt.input_ids[0].tolist() == ours.tokenizer(whole)["input_ids"]
