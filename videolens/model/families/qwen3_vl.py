"""Qwen3-VL (`Qwen3VLForConditionalGeneration`): frames in pairs, a time before each pair, and deepstack.

The tower resamples learned places to the shape of the frames and attends within each pair. Patches of 2 × 2 are merged
into a video token, as in Qwen2-VL. So are the hidden states of a few earlier layers of the tower, each by a merger of
its own: they are added to the residual stream at the video tokens, after layer 0, 1, … of the decoder (DeepStack, arXiv
2406.04334). In a prompt each pair is a block of its own, `<1.5 seconds><|vision_start|>…<|vision_end|>`, so that text
stands between them. The decoder is a Qwen3, with norms of queries and keys, and rotary positions on three axes that are
interleaved.

Relied on: transformers 5.23, `models/qwen3_vl` (model, processor, video processor). Chat templates of checkpoints put
`<|vision_start|>` and `<|vision_end|>` around the whole video, too: transformers keeps them from version 5 on, and
dropped them before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from videolens.model.families import About, Clock, Deepstack, Parts, register
from videolens.model.families._mrope import positions_frame_by_frame
from videolens.model.families.qwen2_vl import FAMILY as QWEN2_VL
from videolens.model.families.qwen2_vl import by_rows, merged, run_tower
from videolens.model.vision.clip_budget import ClipBudget
from videolens.prompt.tokens import TokenMap
from videolens.prompt.video_layout import VideoLayout, VideoPiece

_STANDARD = (0.5, 0.5, 0.5)


def features(
    parts: Parts, pixels: Float[Tensor, "batch frame channel height width"], config: Any
) -> Float[Tensor, "batch frame_of_grid patch d_features"]:
    """The tower's output, and beside it the states of the layers that deepstack takes; patches row by row."""
    layers = config.vision_config.deepstack_visual_indexes
    return by_rows(run_tower(parts, pixels, config, beside=layers), len(pixels), config)


def project(
    parts: Parts, features: Float[Tensor, "batch frame patch d_features"], config: Any, grid: tuple[int, int, int]
) -> Float[Tensor, "batch video d_model"]:
    """The tower's output in each block, side by side, through the merger."""
    return merged(parts["merger"], features[..., : config.vision_config.hidden_size], config, grid)


def stacked(
    parts: Parts, features: Float[Tensor, "batch frame patch d_features"], config: Any, grid: tuple[int, int, int]
) -> Float[Tensor, "layer batch video d_model"]:
    """The states of each of the other layers through a merger of its own."""
    _, *states = features.split(config.vision_config.hidden_size, dim=-1)
    return torch.stack([merged(*pair, config, grid) for pair in zip(parts["deepstack"], states, strict=True)])


def layout(config: Any, grid: tuple[int, int, int], clock: Clock) -> VideoLayout:
    """Every pair of frames after its time, which is halfway between both; a last frame alone is its own pair."""
    frames, rows, columns = grid
    group = config.vision_config.temporal_patch_size
    times = clock.written
    pieces = []
    for frame in range(frames):
        of_group = times[frame * group : (frame + 1) * group]
        last = of_group[-1] if len(of_group) == group else times[-1]
        pieces += [
            VideoPiece("timestamp", frame, f"<{(of_group[0] + last) / 2:.1f} seconds>"),
            VideoPiece("separator", frame, "<|vision_start|>"),
            VideoPiece("video", frame, n=rows * columns),
            VideoPiece("separator", frame, "<|vision_end|>"),
        ]
    return VideoLayout(tuple(pieces), grid, clock.seconds[::group], group)


def positions(config: Any, tokens: TokenMap, clock: Clock) -> Int64[Tensor, "3 pos"]:
    """Each pair of frames is a block; its time is in the text."""
    return positions_frame_by_frame(tokens)


def pixels(settings: Mapping[str, Any]) -> ClipBudget:
    """Frames resized to whole blocks within the pixels that a clip has."""
    return ClipBudget.of_clips({"image_mean": _STANDARD, "image_std": _STANDARD, "patch_size": 16, **settings})


FAMILY = register(
    replace(
        QWEN2_VL,
        model_type="qwen3_vl",
        architecture="Qwen3VLForConditionalGeneration",
        parts={**QWEN2_VL.parts, "deepstack": "model.visual.deepstack_merger_list"},
        features=features,
        project=project,
        deepstack=Deepstack(lambda config: len(config.vision_config.deepstack_visual_indexes), stacked),
        layout=layout,
        positions=positions,
        pixels=pixels,
        about=About("Qwen3-VL (dense)", "any shape, frames in pairs, a time before each, deepstack", "Qwen3, M-RoPE"),
    )
)
