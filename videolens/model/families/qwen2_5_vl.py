"""Qwen2.5-VL (`Qwen2_5_VLForConditionalGeneration`): Qwen2-VL with windows in its tower and time in seconds.

Most layers of the tower attend within windows of 112 × 112 pixels, and its output lies window by window. On the time
axis of the decoder's rotary positions a second counts `tokens_per_second`.

Relied on: transformers 5.23, `models/qwen2_5_vl` (model, processor).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from videolens.model.families import About, Clock, Parts, register
from videolens.model.families._mrope import multimodal_positions
from videolens.model.families.qwen2_vl import FAMILY as QWEN2_VL
from videolens.model.families.qwen2_vl import by_rows, run_tower
from videolens.prompt.tokens import TokenMap


def features(
    parts: Parts, pixels: Float[Tensor, "batch frame channel height width"], config: Any
) -> Float[Tensor, "batch frame_of_grid patch d_vision"]:
    """The tower's output, brought from windows back to patches row by row.

    The tower orders the blocks of a frame by window (windows row by row), and row by row in each window; windows at the
    right and lower edge are smaller.
    """
    vision = config.vision_config
    hidden = run_tower(parts, pixels, config)
    _, rows, columns, _, _ = hidden.shape
    side = vision.window_size // vision.spatial_merge_size // vision.patch_size  # of a window, in blocks
    row, column = torch.arange(rows)[:, None], torch.arange(columns)
    window = row // side * columns + column // side
    order = torch.argsort(window.flatten(), stable=True).to(hidden.device)
    at = torch.argsort(order)
    return by_rows(hidden.flatten(1, 2)[:, at].unflatten(1, (rows, columns)), len(pixels), config)


def positions(config: Any, tokens: TokenMap, clock: Clock) -> Int64[Tensor, "3 pos"]:
    """Time counts `tokens_per_second`; where the frames' times are not known, merged frames take a second.

    The result is rounded down, so that every step is the processor's: merged frames take merged / sampled_fps seconds.
    """
    seconds = 1.0
    if clock.sampled_fps is not None:
        seconds = tokens.merged / clock.sampled_fps
    elif len(clock.seconds) > 1 and bool(clock.seconds.isfinite().all()):
        seconds = tokens.merged * clock.step
    # in float32, as the processor hands it over
    interval = config.vision_config.tokens_per_second * torch.tensor(seconds, dtype=torch.float32)
    return multimodal_positions(tokens, interval=float(interval))


FAMILY = register(
    replace(
        QWEN2_VL,
        model_type="qwen2_5_vl",
        architecture="Qwen2_5_VLForConditionalGeneration",
        features=features,
        positions=positions,
        about=About("Qwen2.5-VL", "any shape, frames in pairs, windows, times in seconds", "Qwen2, M-RoPE"),
    )
)
