"""Frames as small pictures that a result can carry along."""

from __future__ import annotations

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from videolens.prompt import Prompt

__all__ = ["pixels_of", "thumbnails"]

_LONGEST = 96  # pixels


def thumbnails(prompt: Prompt) -> list[tuple[int, bytes]]:
    """(frame of the token grid, PNG) of every frame that the model was shown; none without the prompt's question.

    Where several frames share one row of the grid, the middle one stands for them.
    """
    if prompt.question is None or prompt.tokens.grid[0] == 0:
        return []
    frames, n = prompt.question.video.frames, prompt.tokens.grid[0]
    shown = [int((i + 0.5) * len(frames) / n) for i in range(n)]
    return [(i, _png(frames[at].numpy())) for i, at in enumerate(shown)]


def pixels_of(png: bytes) -> UInt8[np.ndarray, "height width 3"]:
    """A thumbnail's pixels."""
    return np.array(Image.open(io.BytesIO(png)).convert("RGB"))


def _png(frame: UInt8[np.ndarray, "height width 3"]) -> bytes:
    image, written = Image.fromarray(frame), io.BytesIO()
    image.thumbnail((_LONGEST, _LONGEST))
    image.save(written, format="PNG")
    return written.getvalue()
