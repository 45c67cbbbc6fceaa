"""LLaVA-OneVision: the newline after the video, and frames that are resized and not cropped."""

from __future__ import annotations

import pytest
import torch
from helpers.clips import clip
from helpers.families import CASES
from helpers.families.llava_onevision import PREPROCESSOR, SIZE, VIDEO
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from videolens import Knockout, Question, Video
from videolens.model.transformer import HookedVideoTransformer

CASE = CASES["llava_onevision"]


@pytest.fixture
def ours() -> HookedVideoTransformer:
    return CASE.ours


def test_the_newline_belongs_to_the_last_frame(ours) -> None:
    prompt = CASE.prompts(ours)[0]
    tokens = prompt.tokens
    assert tokens.grid == (3, 3, 3)
    assert tokens["video"].tolist() == list(range(5, 32)) and tokens["newline"].tolist() == [32]
    assert int(tokens.frame[32]) == 2 and 32 not in tokens["frame 2"]
    assert torch.equal(prompt.residual[0, 32], CASE.plain.model.image_newline.data)


def test_the_newline_is_cut_by_its_role(ours) -> None:
    prompt = CASE.prompts(ours, (2, SIZE, SIZE))[0]
    at = prompt.tokens["newline"]
    cut = Knockout("newline", "last", layers=[0, 1, 2])
    _, cache = ours.run_with_cache(prompt, names_filter="blocks.0.attn.hook_pattern")
    assert cache["pattern", 0][0, :, -1, at].abs().max() > 1e-4
    with ours.hooks(fwd_hooks=cut.hooks(prompt)):
        _, cache = ours.run_with_cache(prompt, names_filter="blocks.0.attn.hook_pattern")
    assert cache["pattern", 0][0, :, -1, at].abs().max() == 0


@pytest.mark.parametrize("shape", [(90, 120), (64, 31)])
def test_frames_of_a_clip(ours, shape) -> None:
    frames = clip(*shape)[:2]
    question = Question(Video.from_array(frames, fps=2), "What moves?", options=["A ball", "A cube"], answer="A cube")
    prompt = ours.prompt(question, template="vicuna")
    # not cropped; PIL resizes across, then down
    resized = [
        Image.fromarray(frame)
        .resize((SIZE, shape[0]), Image.Resampling.BICUBIC)
        .resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        for frame in frames.numpy()
    ]
    plain = CLIPImageProcessorPil(**PREPROCESSOR, do_center_crop=False)(resized, return_tensors="pt", do_resize=False)
    assert (prompt.pixel_values[0] - plain["pixel_values"]).abs().max() <= 1e-5
    assert int((prompt.input_ids == VIDEO).sum()) == 2 * 9 + 1
