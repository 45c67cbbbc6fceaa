"""Frames as small pictures that a result can carry along: what the model was shown, cropped as it was for it."""

from __future__ import annotations

import io

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from videolens.errors import VideolensError, refusing
from videolens.model.vision.pixels import PixelSettings, Preparation
from videolens.prompt.prompt import Prompt

LONGEST = 96  # pixels


def thumbnails(prompt: Prompt, settings: Preparation | None, *, longest: int = LONGEST) -> list[tuple[int, bytes]]:
    """(frame of the token grid, PNG) for every frame; none where a prompt came without its video.

    1. Where it is known how pixels were prepared, undo the normalisation: patches of the token grid then lie over what
       they were made of. Else the video's own frames.
    2. Where several frames share one row of the grid, the middle one stands for them.

    Args:
        prompt: a single prompt.
        settings: how the model's pixels are prepared.
        longest: pixels of a picture's longer side, at most.
    """
    n = prompt.tokens.grid[0]
    levels = getattr(settings, "levels", settings)  # of frames resized to any shape
    if prompt.pixel_values is not None and isinstance(levels, PixelSettings):
        pixels = prompt.pixel_values[0]
        return [(i, _png(_levels(pixels[at].float().cpu(), levels), longest)) for i, at in _middles(n, len(pixels))]
    if prompt.question is None:
        return []
    small = prompt.question.video.map_frames(lambda frame, _: torch.from_numpy(np.array(_small(frame, longest))))
    return [(i, _png(small[at], longest)) for i, at in _middles(n, len(small))]


def _middles(n: int, n_frames: int) -> list[tuple[int, int]]:
    """(frame of the token grid, the middle one of the frames that it stands for)"""
    return [(i, int((i + 0.5) * n_frames / n)) for i in range(n)]


def pixels_of(png: bytes) -> UInt8[np.ndarray, "height width 3"]:
    """A thumbnail's pixels; a `VideolensError` if the picture is damaged."""
    with refusing(VideolensError, "the small picture of a frame is damaged: make the result anew"):
        return np.array(Image.open(io.BytesIO(png)).convert("RGB"))


def _levels(
    pixels: Float[Tensor, "channel height width"], settings: PixelSettings
) -> UInt8[Tensor, "height width channel"]:
    if settings.mean is not None and settings.std is not None:
        mean, std = (torch.tensor(values)[:, None, None] for values in (settings.mean, settings.std))
        pixels = pixels * std + mean
    if settings.rescale is not None:
        pixels = pixels / settings.rescale
    return pixels.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0)


def _small(frame: UInt8[Tensor, "height width 3"], longest: int) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(frame.numpy()))
    image.thumbnail((longest, longest))
    return image


def _png(frame: UInt8[Tensor, "height width 3"], longest: int) -> bytes:
    written = io.BytesIO()
    _small(frame, longest).save(written, format="PNG")
    return written.getvalue()
