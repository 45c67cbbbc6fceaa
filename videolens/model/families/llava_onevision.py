"""LLaVA-OneVision (`LlavaOnevisionForConditionalGeneration`): SigLIP tower, projector, pooling, one newline at the end.

Each frame's 27 × 27 patches are projected, then resized to 14 × 14 (half, rounded up) by bilinear interpolation, and
put in the placeholders' place frame by frame. After the last frame comes one more placeholder, for the parameter
`image_newline`.

Relied on: transformers 5.23, `models/llava_onevision` (model, processor, video processor).
"""

from __future__ import annotations

from math import isqrt
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from videolens.errors import ModelError
from videolens.model.families import About, Clock, Family, Parts, register
from videolens.model.families.internvl import pixels
from videolens.model.families.llava_next_video import features
from videolens.prompt.video_layout import VideoLayout, VideoPiece


def project(
    parts: Parts, features: Float[Tensor, "batch frame patch d_vision"], config: Any, grid: tuple[int, int, int]
) -> Float[Tensor, "batch placeholder d_model"]:
    """Project each frame's patches, interpolate between them, and end with the newline."""
    batch, _, patches, _ = features.shape
    projected = rearrange(
        parts["projector"](features), "batch frame (row column) d -> (batch frame) d row column", row=isqrt(patches)
    )
    pooled = F.interpolate(projected, size=grid[1:], mode="bilinear")
    video = rearrange(pooled, "(batch frame) d row column -> batch (frame row column) d", batch=batch)
    return torch.cat([video, parts["newline"].to(video.dtype).expand(batch, 1, -1)], dim=1)


def grid(config: Any, frames: int, height: int, width: int) -> tuple[int, int, int]:
    """Frames, rows and columns of the video tokens for frames of height × width pixels."""
    size, patch = config.vision_config.image_size, config.vision_config.patch_size
    if (height, width) != (size, size):
        raise ModelError(
            f"the vision tower takes frames of {size} × {size} pixels, got {height} × {width}: prepare them with "
            "model.pixels"
        )
    side = -(-(size // patch) // 2)
    return frames, side, side


def layout(config: Any, grid: tuple[int, int, int], clock: Clock) -> VideoLayout:
    """All frames, then the newline, which belongs to the last of them."""
    plain = VideoLayout.plain(grid, seconds=clock.seconds)
    return VideoLayout((*plain.pieces, VideoPiece("newline", grid[0] - 1, n=1)), grid, plain.seconds)


FAMILY = register(
    Family(
        model_type="llava_onevision",
        architecture="LlavaOnevisionForConditionalGeneration",
        parts={
            "tower": "model.vision_tower",
            "projector": "model.multi_modal_projector",
            "newline": "model.image_newline",
        },
        features=features,
        project=project,
        grid=grid,
        layout=layout,
        pixels=pixels,
        about=About("LLaVA-OneVision", "SigLIP, bilinear, a newline at the end", "Qwen2"),
    )
)
