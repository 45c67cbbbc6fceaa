"""SmolVLM2 (`SmolVLMForConditionalGeneration`): every frame a square image, pixel shuffle, a time before each frame.

SigLIP tower without class token; a square of scale × scale patches becomes one place of as many times the channels
(pixel shuffle), which one linear layer projects into a Llama decoder. The prompt says how many frames follow and how
long the clip is, and for each of them `Frame from 00:05:`, then `<fake_token_around_image><global-img>`, its tokens and
`<fake_token_around_image>`.

Relied on: transformers 5.23, `models/smolvlm` (model, processor, video processor). The length is that of the file,
frames ÷ rate, as readers of transformers give it. Where nothing is known of it, the time of the last frame is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from videolens.errors import ModelError
from videolens.model.families import About, Clock, Family, Parts, register
from videolens.model.families._frames import shuffled_side
from videolens.model.vision.pixels import PixelSettings
from videolens.model.vision.squared import Squared
from videolens.prompt.video_layout import VideoLayout, VideoPiece

_HALF = (0.5, 0.5, 0.5)
_ONES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_TEENS = ("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
_UNITS = (*_ONES, *_TEENS)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def features(
    parts: Parts, pixels: Float[Tensor, "batch frame channel height width"], config: Any
) -> Float[Tensor, "batch frame patch d_vision"]:
    """The tower's output; every pixel of a frame counts, none is padding."""
    frames = pixels.flatten(0, 1)
    side = config.vision_config.patch_size
    seen = frames.new_ones(len(frames), frames.shape[-2] // side, frames.shape[-1] // side).bool()
    hidden = parts["tower"](pixel_values=frames, patch_attention_mask=seen).last_hidden_state
    return hidden.unflatten(0, pixels.shape[:2])


def project(
    parts: Parts, features: Float[Tensor, "batch frame patch d_vision"], config: Any, grid: tuple[int, int, int]
) -> Float[Tensor, "batch video d_model"]:
    """Shuffle and project each frame's patches."""
    places = parts["connector"](features.flatten(0, 1))
    return rearrange(places, "(batch frame) place d -> batch (frame place) d", batch=len(features))


def grid(config: Any, frames: int, height: int, width: int) -> tuple[int, int, int]:
    """Frames, rows and columns of the video tokens for frames of height × width pixels."""
    vision = config.vision_config
    size, patch = vision.image_size, vision.patch_size
    side = shuffled_side(height, width, patch=patch, scale=config.scale_factor, size=size)
    return frames, side, side


def layout(config: Any, grid: tuple[int, int, int], clock: Clock) -> VideoLayout:
    """How many frames of how long a clip, then each after its time. What stands around all of them belongs to the first
    and the last."""
    frames, rows, columns = grid
    length = timedelta(seconds=int(clock.written[-1] if clock.duration is None else clock.duration))
    intro = f"You are provided the following series of {in_words(frames)} frames from a {length} [H:MM:SS] video.\n"
    pieces = [VideoPiece("separator", 0, intro)]
    for frame, time in enumerate(clock.written):
        pieces += [
            VideoPiece("timestamp", frame, f"\nFrame from {int(time // 60):02d}:{int(time % 60):02d}:"),
            VideoPiece("separator", frame, "<fake_token_around_image><global-img>"),
            VideoPiece("video", frame, n=rows * columns),
            VideoPiece("separator", frame, "<fake_token_around_image>"),
        ]
    return VideoLayout((*pieces, VideoPiece("separator", frames - 1, "\n\n")), grid, clock.seconds)


def in_words(n: int) -> str:
    """A number in English, as the original's processor has it from the package num2words.

    Raises:
        ModelError: 1000 or more.
    """
    if n < len(_UNITS):
        return _UNITS[n]
    if n < 100:
        tens = _TENS[n // 10 - 2]
        return f"{tens}-{_UNITS[n % 10]}" if n % 10 else tens
    if n < 1000:
        hundreds = f"{_UNITS[n // 100]} hundred"
        return f"{hundreds} and {in_words(n % 100)}" if n % 100 else hundreds
    raise ModelError(f"{n} frames are more than this model is told in words: sample fewer than 1000")


def pixels(settings: Mapping[str, Any]) -> Squared | PixelSettings:
    """From `video_sampling.video_size`, else `size`, and `max_image_size`."""
    side = int((settings.get("max_image_size") or {"longest_edge": 364})["longest_edge"])
    said = {"image_mean": _HALF, "image_std": _HALF, "resample": 1, **settings}
    levels = PixelSettings.from_dict({**said, "size": (side, side), "do_center_crop": False})
    if not said.get("do_resize", True):
        return levels
    size = (said.get("video_sampling") or {}).get("video_size") or said.get("size") or {"longest_edge": 4 * 364}
    if not isinstance(size, Mapping) or "longest_edge" not in size:
        raise ModelError(f"the preprocessor's size {size!r} is not understood: expected longest_edge")
    return Squared(int(size["longest_edge"]), levels)


FAMILY = register(
    Family(
        model_type="smolvlm",
        architecture="SmolVLMForConditionalGeneration",
        decoder="model.text_model",
        parts={"tower": "model.vision_model", "connector": "model.connector"},
        features=features,
        project=project,
        grid=grid,
        layout=layout,
        pixels=pixels,
        video_token=lambda config: config.image_token_id,
        template="smolvlm",
        about=About("SmolVLM2", "SigLIP, pixel shuffle, a time before each frame", "Llama"),
    )
)
