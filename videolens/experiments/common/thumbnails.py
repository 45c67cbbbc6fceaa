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
        frames = _levels(prompt.pixel_values[0].float().cpu(), levels)
    elif prompt.question is not None:
        frames = prompt.question.video.frames
    else:
        return []
    return [(i, _png(frames[int((i + 0.5) * len(frames) / n)].numpy(), longest)) for i in range(n)]


def pixels_of(png: bytes) -> UInt8[np.ndarray, "height width 3"]:
    """A thumbnail's pixels; a `VideolensError` if the picture is damaged."""
    with refusing(VideolensError, "the small picture of a frame is damaged: make the result anew"):
        return np.array(Image.open(io.BytesIO(png)).convert("RGB"))


def _levels(
    pixels: Float[Tensor, "frame channel height width"], settings: PixelSettings
) -> UInt8[Tensor, "frame height width channel"]:
    if settings.mean is not None and settings.std is not None:
        mean, std = (torch.tensor(values)[:, None, None] for values in (settings.mean, settings.std))
        pixels = pixels * std + mean
    if settings.rescale is not None:
        pixels = pixels / settings.rescale
    return pixels.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def _png(frame: UInt8[np.ndarray, "height width 3"], longest: int) -> bytes:
    image, written = Image.fromarray(np.ascontiguousarray(frame)), io.BytesIO()
    image.thumbnail((longest, longest))
    image.save(written, format="PNG")
    return written.getvalue()
