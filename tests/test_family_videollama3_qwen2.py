"""VideoLLaMA3 in its original layout: how many pixels a frame gets."""

from __future__ import annotations

from math import ceil, floor, sqrt

import pytest
import torch
from helpers.families import CASES, family_named

from videolens.errors import ModelError

CASE = CASES["videollama3_qwen2"]


def published_size(frames: int, height: int, width: int, *, side: int, least: int, most: int) -> tuple[int, int]:
    """The published rule, in tokens as its settings are."""
    h, w = round(height / side) * side, round(width / side) * side
    if h * w > most * side * side // frames:
        beta = sqrt((height * width) / (most * side * side // frames))
        h, w = floor(height / beta / side) * side, floor(width / beta / side) * side
    if h * w < least * side * side:
        beta = sqrt(least * side * side / (height * width))
        h, w = ceil(height * beta / side) * side, ceil(width * beta / side) * side
    return h, w


@pytest.mark.parametrize("frames", [1, 8, 128])
@pytest.mark.parametrize("size", [(360, 640), (1080, 1920), (20, 30), (64, 2000), (224, 224)])
def test_sizes_follow_the_published_rule(frames, size) -> None:
    for most in (1152, 16384):
        found = family_named("videollama3_qwen2").pixels({"max_tokens": most}).size(frames, *size)
        assert found == published_size(frames, *size, side=28, least=16, most=most)
        # the least of a frame goes before the most of a clip
        assert frames * found[0] * found[1] <= most * 28**2 or frames == 128


@pytest.mark.parametrize("most", [24, 36])
def test_sizes_of_a_checkpoint_follow_its_preprocessor(most) -> None:
    budget = family_named("videollama3_qwen2").pixels({**CASE.preprocessor, "max_tokens": most})
    size = budget.prepare(torch.randint(0, 256, (3, 40, 70, 3), dtype=torch.uint8)).shape[-2:]
    assert size == published_size(3, 40, 70, side=8, least=2, most=most)
    assert size == {24: (2 * 8, 3 * 8), 36: (2 * 8, 4 * 8)}[most]


@pytest.mark.parametrize(
    "settings", [{"max_tokens": 0.5}, {"max_tokens": 0}, {"min_tokens": -1}, {"min_tokens": 9, "max_tokens": 8}]
)
def test_a_budget_without_a_token_is_refused(settings) -> None:
    with pytest.raises(ModelError, match=r"asks for frames of .* pixels in blocks of 28 × 28"):
        family_named("videollama3_qwen2").pixels(settings)


def test_more_frames_than_pixels_divide_nothing_by_zero() -> None:
    """The least of a frame goes first, and nothing is left to share."""
    budget = family_named("videollama3_qwen2").pixels({"min_tokens": 1, "max_tokens": 1})
    assert budget.size(28**2 + 1, 64, 64) == (28, 28)
