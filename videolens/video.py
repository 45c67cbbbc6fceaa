"""A video: frames sampled from a file or an array, and when each of them is shown."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

__all__ = ["Video"]


@dataclass(frozen=True, eq=False)
class Video:
    """Sampled frames of a video."""

    frames: UInt8[Tensor, "t h w c"]
    seconds: Float64[Tensor, " t"]
    indices: Int64[Tensor, " t"]
