"""LLaVA-Video, and LLaVA-OneVision as its authors published it (`LlavaQwenForCausalLM`): SigLIP, pooled by two, Qwen2.

One flat config; the tower's settings are those of the model that `mm_vision_tower` names. Its last layer and final norm
are not used. Patches are projected, pooled by two along each side (`mm_spatial_pool_mode`), and followed by the
parameter `image_newline`: after every row (LLaVA-Video), every frame, or once (LLaVA-OneVision), as
`mm_newline_position` says. With `add_time_instruction` the prompt tells length and frame times behind the video.

Relied on: LLaVA-VL/LLaVA-NeXT (`llava_arch.py`, `siglip_encoder.py`, `conversation.py`, `video_demo.py`). There videos
are pooled by two whatever `mm_spatial_pool_stride` says, `rope_scaling` is set aside, `<image>` need not be a token,
and frames are prepared by constants in the code. Times are those of `Clock.written`. Images in several tiles
("anyres"), slow and fast frames, and other towers are not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from videolens.model.families import About, Clock, Family, Parts, register
from videolens.model.families._frames import check_size
from videolens.model.families._llava_qwen import LlavaQwen
from videolens.model.families._newlines import halved, newline_layout, project_and_pool, with_newlines
from videolens.model.vision.pixels import PixelSettings
from videolens.prompt.video_layout import VideoLayout, VideoPiece

_PLACEHOLDER = 151646  # the first id that Qwen2's tokenizer does not have


def features(
    parts: Parts, pixels: Float[Tensor, "batch frame channel height width"], config: Any
) -> Float[Tensor, "batch frame patch d_vision"]:
    """What leaves the last layer of the tower that is used."""
    return parts["tower"](pixels.flatten(0, 1)).last_hidden_state.unflatten(0, pixels.shape[:2])


def project(
    parts: Parts, features: Float[Tensor, "batch frame patch d_vision"], config: Any, grid: tuple[int, int, int]
) -> Float[Tensor, "batch placeholder d_model"]:
    """Project and pool each frame's patches, and put the newlines in their places."""
    video = project_and_pool(parts, features, config.mm_spatial_pool_mode)
    return with_newlines(video, parts["newline"], config.mm_newline_position)


def grid(config: Any, frames: int, height: int, width: int) -> tuple[int, int, int]:
    """Frames, rows and columns of the video tokens for frames of height × width pixels."""
    vision = config.vision_config
    check_size(vision.image_size, height, width)
    side = halved(vision.image_size // vision.patch_size, config.mm_spatial_pool_mode)
    return frames, side, side


def layout(config: Any, grid: tuple[int, int, int], clock: Clock) -> VideoLayout:
    """The video and its newlines; behind them, and of the last frame, what is told of times."""
    plain = newline_layout(grid, clock.seconds, config.mm_newline_position)
    if not getattr(config, "add_time_instruction", False):
        return plain
    times = clock.written
    length = times[-1] if clock.duration is None else clock.duration
    told = (
        f"\nThe video lasts for {length:.2f} seconds, and {grid[0]} frames are uniformly sampled from it. These frames "
        f"are located at {','.join(f'{time:.2f}s' for time in times)}.Please answer the following questions related "
        "to this video."
    )
    return VideoLayout((*plain.pieces, VideoPiece("separator", grid[0] - 1, told)), grid, clock.seconds)


def pixels(settings: Mapping[str, Any]) -> PixelSettings:
    """Frames are resized to a square, whatever their shape."""
    half = (0.5, 0.5, 0.5)
    square = {"size": {"height": 384, "width": 384}, "image_mean": half, "image_std": half}
    return PixelSettings.from_dict({**square, **settings, "do_center_crop": False})


def video_token(config: Any) -> int:
    """Of the tokenizer, else of config.json, else as published."""
    known = getattr(config, "added_tokens", {}).get("<image>", getattr(config, "image_token_index", None))
    return _PLACEHOLDER if known is None else int(known)


FAMILY = register(
    Family(
        model_type="llava_qwen",
        architectures=("LlavaQwenForCausalLM",),
        architecture=LlavaQwen,
        rename=(
            (r"^model\.vision_tower\.vision_tower\.(vision_model\.)?", "vision_tower."),
            (r"^model\.(mm_projector\.|image_newline$)", r"\1"),
            (r"^(model|lm_head)\.", r"language_model.\1."),
        ),
        ignore=(r"vision_tower\..*\.(post_layernorm|head)\.",),
        decoder="language_model.model",
        unembed="language_model.lm_head",
        parts={"tower": "vision_tower", "projector": "mm_projector", "newline": "image_newline"},
        features=features,
        project=project,
        grid=grid,
        layout=layout,
        pixels=pixels,
        pixels_without_file=lambda config: pixels({"size": [config.vision_config.image_size] * 2}),
        placeholder="<image>",
        video_token=video_token,
        template="qwen_1_5",
        about=About(
            "LLaVA-Video, LLaVA-OneVision, their authors' layout",
            "SigLIP, pooled by two, newlines, times in the question",
            "Qwen2",
            "SigLIP and Qwen2 of transformers",
        ),
    )
)
register(replace(FAMILY, model_type="llava"))
