"""Frames brought to a square in two steps, as processors do that can also cut images into tiles."""

from __future__ import annotations

from dataclasses import dataclass

from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from videolens.errors import ModelError
from videolens.model.vision.pixels import PixelSettings, in_turn
from videolens.model.vision.resampling import resize

_LARGEST = 4096


@dataclass(frozen=True)
class Squared:
    """Frames resized twice: the longer edge to a length, the aspect ratio kept, then to a square.

    Attributes:
        longest: pixels of the longer edge.
        levels: the square, the filter, and what is done besides resizing.

    Raises:
        ModelError: no pixel at all, or too many.
    """

    longest: int
    levels: PixelSettings

    def __post_init__(self) -> None:
        if not 1 <= self.longest <= _LARGEST:
            raise ModelError(
                f"the preprocessor asks for a longer edge of {self.longest} pixels: expected 1 to {_LARGEST}"
            )

    def prepare(self, frames: UInt8[Tensor, "frame height width channel"]) -> Float[Tensor, "frame channel h w"]:
        """Pixels of a clip: `frame` of each."""
        return in_turn(self, frames)

    def frame(self, frame: UInt8[Tensor, "height width channel"], n_frames: int = 1) -> Float[Tensor, "channel h w"]:
        """Pixels of one frame; the shorter edge has an even number of pixels on the way."""
        height, width = frame.shape[:2]
        across = width >= height
        ratio = width / height
        shorter = int(self.longest / ratio) if across else int(self.longest * ratio)
        shorter = max(shorter + shorter % 2, 1)
        size = (shorter, self.longest) if across else (self.longest, shorter)
        if size != (height, width):
            frame = rearrange(resize(frame, size, self.levels.resample), "channel h w -> h w channel")
        return self.levels.frame(frame)
