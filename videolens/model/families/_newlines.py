"""Video tokens at half the patches along each side, and the model's own newline among them.

Of LLaVA-OneVision and LLaVA-Video. The newline is a parameter of the model. It has a placeholder of its own, whose
role is "newline".
"""

from __future__ import annotations

from math import isqrt

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Float64
from torch import Tensor

from videolens.model.families import Parts
from videolens.prompt.video_layout import VideoLayout, VideoPiece

POOLS = ("bilinear", "average", "max")
"""How squares of 2 × 2 patches become one place. With an odd number of patches in a row "bilinear" rounds up; the
others leave the last row and column out."""
POSITIONS = ("grid", "frame", "one_token", "no_token")
"""Where newlines stand: after every row, after every frame, once after the video, nowhere."""


def halved(patches: int, how: str) -> int:
    """Places along a side of a frame with so many patches along it."""
    return -(-patches // 2) if how == "bilinear" else patches // 2


def project_and_pool(
    parts: Parts, features: Float[Tensor, "batch frame patch d_vision"], how: str
) -> Float[Tensor, "batch frame row column d_model"]:
    """Project each frame's patches, then pool them."""
    rows = isqrt(features.shape[2])
    squares = rearrange(
        parts["projector"](features), "batch frame (row column) d -> (batch frame) d row column", row=rows
    )
    if how == "bilinear":
        pooled = F.interpolate(squares, size=[halved(rows, how)] * 2, mode="bilinear")
    else:
        pooled = F.avg_pool2d(squares, 2) if how == "average" else F.max_pool2d(squares, 2)
    return rearrange(pooled, "(batch frame) d row column -> batch frame row column d", batch=len(features))


def with_newlines(
    video: Float[Tensor, "batch frame row column d_model"], newline: Float[Tensor, " d_model"], where: str
) -> Float[Tensor, "batch placeholder d_model"]:
    """The video frame by frame, row by row, with newlines in their places."""
    kept = {"grid": 2, "frame": 1, "one_token": 0, "no_token": 0}[where]  # axes after the batch that have an end each
    runs = video.flatten(kept + 1, 3)
    if where != "no_token":
        ends = newline.to(runs.dtype).expand(*runs.shape[: kept + 1], 1, -1)
        runs = torch.cat([runs, ends], dim=kept + 1)
    return runs.flatten(1, -2)


def newline_layout(grid: tuple[int, int, int], seconds: Float64[Tensor, " frame"], where: str) -> VideoLayout:
    """The video with newlines in their places; each belongs to the frame that it ends."""
    frames, rows, columns = grid
    runs = rows if where == "grid" else 1
    pieces = []
    for frame in range(frames):
        one = [VideoPiece("video", frame, n=rows * columns // runs)]
        if where in ("grid", "frame") or (where == "one_token" and frame == frames - 1):
            one.append(VideoPiece("newline", frame, n=1))
        pieces += one * runs
    return VideoLayout(tuple(pieces), grid, seconds)
