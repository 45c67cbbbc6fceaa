"""InternVL: InternViT tower, pixel shuffle, two-layer projector, Qwen decoder, in the layout of transformers.

Layout of `InternVLForConditionalGeneration`: every frame is one tile; the tower's hidden states without their class
token are shuffled (a square of neighbouring patches becomes one place of as many times the channels), projected, and
put in the place of the image placeholders, which the processor writes as one labelled image per frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from videolens.model.families import About, Clock, Family, Parts, register
from videolens.model.families._frames import shuffled_side
from videolens.model.vision.pixels import PixelSettings
from videolens.prompt.video_layout import VideoLayout, VideoPiece


def features(
    parts: Parts, pixels: Float[Tensor, "batch frame channel height width"], config: Any
) -> Float[Tensor, "batch frame patch d_vision"]:
    """Hidden states of the tower at the chosen layer, patches only."""
    layer = config.vision_feature_layer
    states = parts["tower"](pixels.flatten(0, 1), output_hidden_states=layer != -1)
    chosen = states.last_hidden_state if layer == -1 else states.hidden_states[layer]
    chosen = chosen[:, 1:] if config.vision_feature_select_strategy == "default" else chosen
    return chosen.unflatten(0, pixels.shape[:2])


def project(
    parts: Parts, features: Float[Tensor, "batch frame patch d_vision"], config: Any, grid: tuple[int, int, int]
) -> Float[Tensor, "batch video d_model"]:
    """Shuffle each frame's patches, then project them to the decoder's width.

    Shuffled, every square of 1/ratio × 1/ratio patches is one place: their channels, patch after patch, row after row.
    """
    squares = "batch frame (row down column across) d -> batch (frame row column) (down across d)"
    side = round(1 / config.downsample_ratio)
    shuffled = rearrange(features, squares, row=grid[1], column=grid[2], down=side, across=side)
    return parts["projector"](shuffled)


def grid(config: Any, frames: int, height: int, width: int) -> tuple[int, int, int]:
    """Frames, rows and columns of the video tokens for frames of height × width pixels."""
    vision, scale = config.vision_config, round(1 / config.downsample_ratio)
    patch = vision.patch_size if isinstance(vision.patch_size, int) else vision.patch_size[0]
    side = shuffled_side(height, width, patch=patch, scale=scale, size=vision.image_size)
    return frames, side, side


def layout(config: Any, grid: tuple[int, int, int], clock: Clock) -> VideoLayout:
    """A line `Frame1: <img>…</img>` for every frame."""
    frames, rows, columns = grid
    pieces = []
    for frame in range(frames):
        end = "</img>\n" if frame < frames - 1 else "</img>"
        pieces += [
            VideoPiece("timestamp", frame, f"Frame{frame + 1}: "),
            VideoPiece("separator", frame, "<img>"),
            VideoPiece("video", frame, n=rows * columns),
            VideoPiece("separator", frame, end),
        ]
    return VideoLayout(tuple(pieces), grid, clock.seconds)


def pixels(settings: Mapping[str, Any]) -> PixelSettings:
    """Frames are resized to a square, whatever their shape, and cut only where the settings say so."""
    return PixelSettings.from_dict({"do_center_crop": False, "size": {"height": 384, "width": 384}, **settings})


FAMILY = register(
    Family(
        model_type="internvl",
        architecture="InternVLForConditionalGeneration",
        parts={"tower": "model.vision_tower", "projector": "model.multi_modal_projector"},
        features=features,
        project=project,
        grid=grid,
        layout=layout,
        pixels=pixels,
        video_token=lambda config: config.image_token_id,
        about=About("InternVL in transformers' layout", "InternViT, pixel shuffle", "Qwen2 or Qwen3"),
    )
)
