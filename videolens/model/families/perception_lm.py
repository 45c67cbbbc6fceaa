"""Perception-LM (`PerceptionLMForConditionalGeneration`): Perception Encoder, two-layer projector, pooling, Llama.

Each frame goes through the tower by itself. Its hidden states without the class token are projected, then averaged over
squares of ratio × ratio, and put in the placeholders' place frame by frame, row by row.

Relied on: transformers 5.23, `models/perception_lm` (model, processor, video processor). The tower is a model of the
package timm, without which transformers does not build it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from videolens.errors import ModelError
from videolens.model.families import About, Parts, register
from videolens.model.families._frames import check_size
from videolens.model.families.llava_next_video import FAMILY as LLAVA_NEXT_VIDEO
from videolens.model.vision.pixels import PixelSettings

_HALF = (0.5, 0.5, 0.5)


def features(
    parts: Parts, pixels: Float[Tensor, "batch frame channel height width"], config: Any
) -> Float[Tensor, "batch frame patch d_vision"]:
    """The tower's output, patches only."""
    states = parts["tower"](pixels.flatten(0, 1)).last_hidden_state
    states = states[:, 1:] if config.vision_use_cls_token else states
    return states.unflatten(0, pixels.shape[:2])


def project(
    parts: Parts, features: Float[Tensor, "batch frame patch d_vision"], config: Any, grid: tuple[int, int, int]
) -> Float[Tensor, "batch video d_model"]:
    """Project each frame's patches, then pool them."""
    places = parts["projector"](features.flatten(0, 1))
    return rearrange(places, "(batch frame) place d -> batch (frame place) d", batch=len(features))


def grid(config: Any, frames: int, height: int, width: int) -> tuple[int, int, int]:
    """Frames, rows and columns of the video tokens for frames of height × width pixels.

    The size of a patch is in the name of the tower, as timm writes it: `vit_pe_core_large_patch14_448`. A `ModelError`
    if it is not, or the tower takes frames of another size.
    """
    vision = config.vision_config
    if (named := re.search(r"patch(\d+)", str(vision.architecture))) is None:
        raise ModelError(f"the vision tower {vision.architecture!r} does not say how large its patches are: …patch14…")
    place = int(named[1]) * config.projector_pooling_ratio
    # where nothing says the size, any square of which a place can be made
    check_size((vision.model_args or {}).get("img_size", max(height, place)), height, width)
    return frames, height // place, width // place


def pixels(settings: Mapping[str, Any]) -> PixelSettings:
    """Frames are resized to a square, whatever their shape."""
    square = {"size": {"height": 448, "width": 448}, "image_mean": _HALF, "image_std": _HALF, "do_center_crop": False}
    return PixelSettings.from_dict({**square, **settings})


FAMILY = register(
    replace(
        LLAVA_NEXT_VIDEO,
        model_type="perception_lm",
        architecture="PerceptionLMForConditionalGeneration",
        parts={"tower": "model.vision_tower", "projector": "model.multi_modal_projector"},
        features=features,
        project=project,
        grid=grid,
        pixels=pixels,
        template=None,
        about=About("Perception-LM (needs timm)", "Perception Encoder, average pooling", "Llama"),
    )
)
