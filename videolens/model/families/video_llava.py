"""Video-LLaVA (`VideoLlavaForConditionalGeneration`): a CLIP tower of its own for videos, two-layer projector, Llama.

Every position of the tower's hidden states becomes a video token, the class token of each frame included. It knows the
whole frame, so that it is cut where the video is cut: the grid has one row for a frame, the class token in column 0 and
patch after patch, row by row, behind it. Rows of patches are not told apart by their names.

Relied on: transformers 5.23, `models/video_llava` (model, processor). There the video tower is a CLIP that sees frame
by frame; the tower for images is not used.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from videolens.model.families import About, Parts, register
from videolens.model.families._frames import check_size
from videolens.model.families.llava_next_video import FAMILY as LLAVA_NEXT_VIDEO
from videolens.model.families.llava_next_video import chosen_states


def project(
    parts: Parts, features: Float[Tensor, "batch frame place d_vision"], config: Any, grid: tuple[int, int, int]
) -> Float[Tensor, "batch video d_model"]:
    """Each position through the projector."""
    return rearrange(parts["projector"](features), "batch frame place d -> batch (frame place) d")


def grid(config: Any, frames: int, height: int, width: int) -> tuple[int, int, int]:
    """Frames, one row, and a column for the class token and every patch."""
    size, patch = config.vision_config.image_size, config.vision_config.patch_size
    check_size(size, height, width)
    return frames, 1, 1 + (size // patch) ** 2


FAMILY = register(
    replace(
        LLAVA_NEXT_VIDEO,
        model_type="video_llava",
        architecture="VideoLlavaForConditionalGeneration",
        parts={"tower": "model.video_tower", "projector": "model.multi_modal_projector"},
        features=chosen_states,
        project=project,
        grid=grid,
        about=About("Video-LLaVA", "CLIP, every position of it, class tokens too", "Llama"),
    )
)
