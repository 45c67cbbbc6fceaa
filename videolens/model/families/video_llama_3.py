"""VideoLLaMA3 in the layout of transformers (`VideoLlama3ForConditionalGeneration`): frames of any shape, a time each.

SigLIP-like tower with rotary positions in two dimensions, every frame by itself; its patches are averaged 2 × 2, then
go through a two-layer projector into a Qwen2 decoder. Each frame of a prompt is `Time 1.5s:` and its video tokens, with
a comma between frames.

Relied on: transformers 5.23, `models/video_llama_3` (model, processor, video processor).

Not followed: token compression (`use_token_compression`), by which the original's processor leaves out of the prompt
every patch that has hardly changed since the frame before. A map of the flow needs every place of every frame, so all
tokens are kept, as the original keeps them with `use_token_compression=False`; whatever the checkpoint's files say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from videolens.errors import ModelError
from videolens.model.families import About, Clock, Family, Parts, register
from videolens.model.vision.smart_resize import SmartResize
from videolens.prompt.video_layout import VideoLayout, VideoPiece

MERGE = 2
"""Patches that one video token is high and wide. Configs do not say; the processors of published checkpoints do."""

_STANDARD = (0.5, 0.5, 0.5)


def features(
    parts: Parts, pixels: Float[Tensor, "batch frame channel height width"], config: Any
) -> Float[Tensor, "batch frame place d_vision"]:
    """The tower's output, one position for each 2 × 2 patches, row by row.

    1. Patches as the tower takes them: the four of one place side by side, place by place, row by row.
    2. The tower averages each four after its last norm. Frames do not see each other.
    """
    batch, frames, _, height, width = pixels.shape
    patch = config.vision_config.patch_size
    flat = "b t c (row mh ph) (column mw pw) -> (b t row column mh mw) (c ph pw)"
    patches = rearrange(pixels, flat, mh=MERGE, mw=MERGE, ph=patch, pw=patch)
    sizes = torch.tensor([[frames, height // patch, width // patch]] * batch, device=pixels.device)
    merged = torch.full((batch,), MERGE, device=pixels.device)
    hidden = parts["tower"](patches, grid_thw=sizes, merge_sizes=merged).last_hidden_state
    return rearrange(hidden, "(batch frame place) d -> batch frame place d", batch=batch, frame=frames)


def project(
    parts: Parts, features: Float[Tensor, "batch frame place d_vision"], config: Any, grid: tuple[int, int, int]
) -> Float[Tensor, "batch video d_model"]:
    """Each position through the projector."""
    return rearrange(parts["projector"](features), "batch frame place d -> batch (frame place) d")


def grid(config: Any, frames: int, height: int, width: int) -> tuple[int, int, int]:
    """Frames, rows and columns of the video tokens for frames of height × width pixels."""
    side = config.vision_config.patch_size * MERGE
    if height % side or width % side or not height * width:
        raise ModelError(
            f"frames of {height} × {width} pixels do not consist of blocks of {side} × {side}, which one video token "
            "stands for: prepare them with model.pixels"
        )
    return frames, height // side, width // side


def layout(config: Any, grid: tuple[int, int, int], clock: Clock) -> VideoLayout:
    """Every frame after its time, number / fps, as the original's processor writes it."""
    _, rows, columns = grid
    pieces = []
    for frame, time in enumerate(clock.written):
        video = VideoPiece("video", frame, n=rows * columns)
        pieces += [VideoPiece("timestamp", frame, f"Time {time:.1f}s:"), video, VideoPiece("separator", frame, ",")]
    return VideoLayout(tuple(pieces[:-1]), grid, clock.seconds)


def pixels(settings: Mapping[str, Any]) -> SmartResize:
    """Frames resized to whole blocks; the largest number of pixels is shared by all frames of the clip.

    A `ModelError` if the settings are not those of videos.
    """
    if settings.get("merge_size", MERGE) != MERGE:
        raise ModelError(
            f"the preprocessor merges {settings['merge_size']} × {settings['merge_size']} patches into a token, which "
            f"VideoLLaMA3 does with images; of videos it merges {MERGE} × {MERGE}: add video_preprocessor_config.json"
        )
    return SmartResize.from_dict({"image_mean": _STANDARD, "image_std": _STANDARD, **settings}, shared=True)


FAMILY = register(
    Family(
        model_type="video_llama_3",
        architecture="VideoLlama3ForConditionalGeneration",
        parts={"tower": "model.vision_model", "projector": "model.projector"},
        features=features,
        project=project,
        grid=grid,
        layout=layout,
        pixels=pixels,
        about=About("VideoLLaMA3, transformers' layout", "SigLIP-like, any shape, 2 × 2 averaged", "Qwen2"),
    )
)
