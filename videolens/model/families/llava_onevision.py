"""LLaVA-OneVision (`LlavaOnevisionForConditionalGeneration`): SigLIP tower, projector, pooling, one newline at the end.

Each frame's 27 × 27 patches are projected, then resized to 14 × 14 (half, rounded up) by bilinear interpolation, and
put in the placeholders' place frame by frame. After the last frame comes one more placeholder, for the parameter
`image_newline`.

Relied on: transformers 5.23, `models/llava_onevision` (model, processor, video processor).
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor

from videolens.model.families import About, Clock, Family, Parts, register
from videolens.model.families._frames import check_size
from videolens.model.families._newlines import halved, newline_layout, project_and_pool, with_newlines
from videolens.model.families.internvl import pixels
from videolens.model.families.llava_next_video import features
from videolens.prompt.video_layout import VideoLayout


def project(
    parts: Parts, features: Float[Tensor, "batch frame patch d_vision"], config: Any, grid: tuple[int, int, int]
) -> Float[Tensor, "batch placeholder d_model"]:
    """Project each frame's patches, interpolate between them, and end with the newline."""
    return with_newlines(project_and_pool(parts, features, "bilinear"), parts["newline"], "one_token")


def grid(config: Any, frames: int, height: int, width: int) -> tuple[int, int, int]:
    """Frames, rows and columns of the video tokens for frames of height × width pixels."""
    vision = config.vision_config
    check_size(vision.image_size, height, width)
    side = halved(vision.image_size // vision.patch_size, "bilinear")
    return frames, side, side


def layout(config: Any, grid: tuple[int, int, int], clock: Clock) -> VideoLayout:
    """All frames, then the newline, which belongs to the last of them."""
    return newline_layout(grid, clock.seconds, "one_token")


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
