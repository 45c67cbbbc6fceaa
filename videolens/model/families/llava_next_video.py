"""LLaVA-NeXT-Video: CLIP tower, 2-D pooling, two-layer projector, Llama decoder.

Layout of transformers' `LlavaNextVideoForConditionalGeneration`: the tower's hidden states of `vision_feature_layer`
without their class token, pooled over space, projected, and put in the place of the video placeholders frame by frame,
row by row.
"""

from __future__ import annotations

from math import isqrt
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from videolens.errors import ModelError
from videolens.model.families import About, Family, Parts, register


def features(
    parts: Parts, pixels: Float[Tensor, "batch frame channel height width"], config: Any
) -> Float[Tensor, "batch frame patch d_vision"]:
    """Hidden states of the tower at the chosen layer or layers, patches only."""
    states = chosen_states(parts, pixels, config)
    return states[:, :, 1:] if config.vision_feature_select_strategy == "default" else states


def chosen_states(
    parts: Parts, pixels: Float[Tensor, "batch frame channel height width"], config: Any
) -> Float[Tensor, "batch frame place d_vision"]:
    """Hidden states of the tower at the chosen layer or layers, the class token before the patches."""
    hidden = parts["tower"](pixels.flatten(0, 1), output_hidden_states=True).hidden_states
    chosen = config.vision_feature_layer
    states = hidden[chosen] if isinstance(chosen, int) else torch.cat([hidden[layer] for layer in chosen], dim=-1)
    return states.unflatten(0, pixels.shape[:2])


def project(
    parts: Parts, features: Float[Tensor, "batch frame patch d_vision"], config: Any, grid: tuple[int, int, int]
) -> Float[Tensor, "batch video d_model"]:
    """Pool each frame's patches over space, then project them to the decoder's width."""
    batch = features.shape[0]
    pooled = parts["pool"](rearrange(features, "batch frame patch d -> (batch frame) patch d"))
    return rearrange(parts["projector"](pooled), "(batch frame) place d -> batch (frame place) d", batch=batch)


def grid(config: Any, frames: int, height: int, width: int) -> tuple[int, int, int]:
    """Frames, rows and columns of the video tokens for frames of height × width pixels."""
    patch, stride = config.vision_config.patch_size, config.spatial_pool_stride
    side = isqrt((height // patch) * (width // patch))
    if height != width or side < stride:
        raise ModelError(
            f"frames of {height} × {width} pixels give no square grid of at least {stride} × {stride} patches of "
            f"{patch} × {patch} pixels; prepare square frames of {config.vision_config.image_size} pixels"
        )
    return frames, side // stride, side // stride


FAMILY = register(
    Family(
        model_type="llava_next_video",
        architecture="LlavaNextVideoForConditionalGeneration",
        parts={
            "tower": "model.vision_tower",
            "pool": "model.vision_resampler",
            "projector": "model.multi_modal_projector",
        },
        features=features,
        project=project,
        grid=grid,
        template="vicuna",
        about=About("LLaVA-NeXT-Video", "CLIP, pooling", "Llama"),
    )
)
