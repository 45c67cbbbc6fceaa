"""Qwen2-VL (`Qwen2VLForConditionalGeneration`): frames of any shape in pairs, rotary positions along three axes.

A tower without convolutions takes patches of 14 × 14 pixels × 2 frames; frames of the grid do not see each other in it.
Each 2 × 2 patches are merged into one video token for a Qwen2 decoder, whose rotary positions are time, row and column.
`<|vision_start|>` and `<|vision_end|>` around the video are text of the chat template, not part of the video.

Relied on: transformers 5.23, `models/qwen2_vl` (model, processor, video processor).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor

from videolens.errors import ModelError
from videolens.model.families import About, Clock, Family, Parts, register
from videolens.model.families._mrope import multimodal_positions
from videolens.model.vision.smart_resize import SmartResize
from videolens.prompt.tokens import TokenMap
from videolens.prompt.video_layout import VideoLayout


def run_tower(
    parts: Parts,
    pixels: Float[Tensor, "batch frame channel height width"],
    config: Any,
    *,
    beside: Sequence[int] = (),
) -> Float[Tensor, "clip_frame row column place d_vision"]:
    """The tower's output before patches are merged; place: of a patch in its block.

    1. The last frame is repeated until frames fill groups of `temporal_patch_size`.
    2. A patch is a flat row of channel × frame of the group × height × width; the patches of a block lie side by side.
    3. The output, and beside it, in the same row, what the layers of the tower that are named in `beside` give.
    """
    vision = config.vision_config
    patch, merge, group = vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size
    # 1. whole groups of frames
    batch, n_frames, _, height, width = pixels.shape
    pixels = torch.cat([pixels, pixels[:, -1:].expand(-1, -n_frames % group, -1, -1, -1)], dim=1)
    # 2. flat patches
    flat = "b (t group) c (row mh ph) (column mw pw) -> (b t row column mh mw) (c group ph pw)"
    patches = rearrange(pixels, flat, group=group, mh=merge, mw=merge, ph=patch, pw=patch)
    frames, rows, columns = grid(config, n_frames, height, width)
    sizes = torch.tensor([[frames, rows * merge, columns * merge]] * batch, device=pixels.device)
    # 3. of the states that transformers counts, the first is what enters layer 0
    more = {"output_hidden_states": [layer + 1 for layer in beside]} if beside else {}
    found = parts["tower"](patches, grid_thw=sizes, **more)
    hidden = torch.cat([found.last_hidden_state, *(found.hidden_states[layer + 1] for layer in beside)], dim=-1)
    return hidden.reshape(batch * frames, rows, columns, merge * merge, -1)


def features(
    parts: Parts, pixels: Float[Tensor, "batch frame channel height width"], config: Any
) -> Float[Tensor, "batch frame_of_grid patch d_vision"]:
    """The tower's output, patches row by row."""
    return by_rows(run_tower(parts, pixels, config), len(pixels), config)


def by_rows(
    hidden: Float[Tensor, "clip_frame row column place d_vision"], batch: int, config: Any
) -> Float[Tensor, "batch frame_of_grid patch d_vision"]:
    """From blocks of patches to patches row by row."""
    apart = "(batch frame) row column (mh mw) d -> batch frame (row mh column mw) d"
    return rearrange(hidden, apart, batch=batch, mh=config.vision_config.spatial_merge_size)


def project(
    parts: Parts, features: Float[Tensor, "batch frame patch d_vision"], config: Any, grid: tuple[int, int, int]
) -> Float[Tensor, "batch video d_model"]:
    """The patches of each block, side by side, through the merger."""
    return merged(parts["merger"], features, config, grid)


def merged(
    merger: Any, features: Float[Tensor, "batch frame patch d_vision"], config: Any, grid: tuple[int, int, int]
) -> Float[Tensor, "batch video d_model"]:
    """What a merger makes of the patches of each block."""
    merge = config.vision_config.spatial_merge_size
    together = "batch frame (row mh column mw) d -> (batch frame row column mh mw) d"
    blocks = rearrange(features, together, row=grid[1], mh=merge, mw=merge)
    return rearrange(merger(blocks.contiguous()), "(batch video) d -> batch video d", batch=len(features))


def grid(config: Any, frames: int, height: int, width: int) -> tuple[int, int, int]:
    """Frames, rows and columns of the video tokens for frames of height × width pixels."""
    vision = config.vision_config
    side = vision.patch_size * vision.spatial_merge_size
    if height % side or width % side or not frames * height * width:
        raise ModelError(
            f"{frames} frames of {height} × {width} pixels do not consist of blocks of {side} × {side}, which one "
            "video token stands for: prepare them with model.pixels"
        )
    return -(-frames // vision.temporal_patch_size), height // side, width // side


def layout(config: Any, grid: tuple[int, int, int], clock: Clock) -> VideoLayout:
    """Video tokens with nothing between them; merged frames are shown when their first is."""
    merged = config.vision_config.temporal_patch_size
    return VideoLayout.plain(grid, seconds=clock.seconds[::merged], merged=merged)


def positions(config: Any, tokens: TokenMap, clock: Clock) -> Int64[Tensor, "3 pos"]:
    """Time counts frames of the grid."""
    return multimodal_positions(tokens)


FAMILY = register(
    Family(
        model_type="qwen2_vl",
        architecture="Qwen2VLForConditionalGeneration",
        parts={"tower": "model.visual", "merger": "model.visual.merger"},
        features=features,
        project=project,
        grid=grid,
        layout=layout,
        positions=positions,
        pixels=SmartResize.from_dict,
        about=About("Qwen2-VL", "any shape, frames in pairs", "Qwen2, M-RoPE"),
    )
)
