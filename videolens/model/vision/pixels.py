"""From frames to the pixels a vision tower takes: resize, crop, rescale, normalise, in plain torch.

The settings are the checkpoint's own, read from its preprocessor files; the arithmetic follows the PIL-backed image
processors of transformers (bicubic with antialiasing, rounded to whole levels before anything else is done).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from pydantic import Field
from torch import Tensor

from videolens.errors import ModelError, refusing
from videolens.model.checkpoints.settings import checked_fields, is_there, read_settings
from videolens.model.vision.resampling import FILTERS, resize
from videolens.reading import Fields

FILES = ("video_preprocessor_config.json", "processor_config.json", "preprocessor_config.json")
"""Where the settings are looked for, the most specific first."""

_LARGEST = 2**12  # pixels along an edge
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@runtime_checkable
class Preparation(Protocol):
    """How a checkpoint wants its frames: `PixelSettings`, or what else a family's `pixels` gives."""

    def prepare(self, frames: UInt8[Tensor, "frame height width channel"]) -> Float[Tensor, "frame channel h w"]:
        """Pixels of a clip, all of its frames of one size."""
        ...


@runtime_checkable
class FrameByFrame(Preparation, Protocol):
    """A preparation that looks at one frame at a time, so that those of a large clip are never in memory together."""

    def frame(self, frame: UInt8[Tensor, "height width channel"], n_frames: int) -> Float[Tensor, "channel h w"]:
        """Pixels of one frame of a clip that has `n_frames`: what `prepare` gives in its place, bit for bit."""
        ...


def in_turn(
    preparation: FrameByFrame, frames: UInt8[Tensor, "frame height width channel"]
) -> Float[Tensor, "frame channel h w"]:
    """What `preparation.frame` makes of every frame, one after the other."""
    made = preparation.frame(frames[0], len(frames))
    pixels = made.new_empty(len(frames), *made.shape)
    pixels[0] = made
    for i in range(1, len(frames)):
        pixels[i] = preparation.frame(frames[i], len(frames))
    return pixels


@dataclass(frozen=True)
class PixelSettings:
    """How a checkpoint wants its frames.

    Attributes:
        size: length of the shorter edge, or (height, width), in pixels; None: as they are.
        crop: (height, width) cut from the centre, in pixels; None: nothing is cut off.
        resample: PIL's code of the resampling filter: 1 Lanczos, 2 bilinear, 3 bicubic.
        rescale: factor from levels 0 … 255 to what `mean` and `std` are in; None: left as levels.
        mean, std: per channel; None: not normalised.
    """

    size: int | tuple[int, int] | None = 224
    crop: tuple[int, int] | None = (224, 224)
    resample: int = 3
    rescale: float | None = 1 / 255
    mean: tuple[float, ...] | None = _CLIP_MEAN
    std: tuple[float, ...] | None = _CLIP_STD

    def __post_init__(self) -> None:
        sides = [side for size in (self.size, self.crop) for side in (size if isinstance(size, tuple) else [size])]
        if not all(side is None or 1 <= side <= _LARGEST for side in sides):
            raise ModelError(
                f"the preprocessor asks for frames of size {self.size}, cropped to {self.crop}: expected 1 to "
                f"{_LARGEST} pixels along each edge"
            )
        if self.rescale is not None and not math.isfinite(self.rescale):
            raise ModelError(f"the preprocessor rescales by {self.rescale}: expected a finite number")
        for name, values in (("mean", self.mean), ("standard deviation", self.std)):
            if values is None:
                continue
            if len(values) != 3 or not all(map(math.isfinite, values)) or (name != "mean" and min(values) <= 0):
                raise ModelError(
                    f"the preprocessor's {name} is {list(values)}: expected one finite number for each of the colours "
                    "red, green and blue" + ("" if name == "mean" else ", above 0")
                )

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> PixelSettings:
        """Settings as the preprocessor files of transformers write them; a `ModelError` if one cannot be followed."""
        resample = settings.get("resample", cls.resample)
        if settings.get("do_resize", True) and resample not in FILTERS:
            known = ", ".join(f"{code} ({name})" for code, (name, _, _) in FILTERS.items())
            raise ModelError(f"the preprocessor asks for resampling filter {resample}; known: {known}")
        crop = _pair(settings.get("crop_size", cls.crop)) if settings.get("do_center_crop", True) else None
        normalise = settings.get("do_normalize", True)
        return cls(
            size=_size(settings.get("size", cls.size)) if settings.get("do_resize", True) else None,
            crop=crop,
            resample=resample,
            rescale=settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else None,
            mean=tuple(settings.get("image_mean") or _CLIP_MEAN) if normalise else None,
            std=tuple(settings.get("image_std") or _CLIP_STD) if normalise else None,
        )

    def prepare(self, frames: UInt8[Tensor, "frame height width channel"]) -> Float[Tensor, "frame channel h w"]:
        """Pixels of a clip: `frame` of each."""
        return in_turn(self, frames)

    def frame(self, frame: UInt8[Tensor, "height width channel"], n_frames: int = 1) -> Float[Tensor, "channel h w"]:
        """Pixels of one frame.

        1. Resize, the shorter edge to `size` or exactly to (height, width), with antialiasing and to whole levels.
        2. Cut `crop` from the centre, zeros where the frame is smaller.
        3. Rescale, subtract the mean, divide by the standard deviation.
        """
        height, width = frame.shape[:2]
        levels = rearrange(frame, "height width channel -> channel height width")
        if self.size is not None and (target := _target(self.size, height, width)) != (height, width):
            levels = resize(frame, target, self.resample)
        pixels = levels.to(torch.float32)
        if self.crop is not None:
            pixels = _centre(pixels, self.crop)
        if self.rescale is not None:
            pixels = pixels * self.rescale
        if self.mean is not None and self.std is not None:
            mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
            pixels = (pixels - mean) / std
        return pixels


def preparation_of(
    directory: Path, read: Callable[[Mapping[str, Any]], Preparation] | None = None
) -> Preparation | None:
    """How the checkpoint in a directory wants its frames; None where it has no preprocessor file.

    Args:
        read: from the settings to what prepares frames; None: `PixelSettings.from_dict`.

    Raises:
        ModelError: a file that is not JSON, or asks for what cannot be followed.
    """
    for path in (directory / name for name in FILES):
        if not is_there(path):
            continue
        settings = read_settings(path)
        # processor_config.json keeps one table per modality and may hold none for pixels
        parts = checked_fields(_Parts, settings, path)
        settings = parts.video_processor or parts.image_processor or settings
        if path.name == "processor_config.json" and not {"size", "image_mean"} & set(settings):
            continue
        checked_fields(_Known, settings, path)
        try:
            with refusing(ModelError, "its settings cannot be followed"):
                return (read or PixelSettings.from_dict)(settings)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from error
    return None


_Number = Annotated[int | float, Field(ge=-(2**40), le=2**40)] | None
_Block = Annotated[int, Field(ge=1, le=1024)]
_Size = _Number | dict[str, _Number] | list[_Number]


class _Parts(Fields):
    """What a file holds besides, or instead of, the settings themselves."""

    video_processor: dict[str, Any] | None = None
    image_processor: dict[str, Any] | None = None


class _Known(Fields):
    """The settings that something here reads, whatever the family: their kinds."""

    do_resize: bool | None = None
    do_center_crop: bool | None = None
    do_rescale: bool | None = None
    do_normalize: bool | None = None
    cap_pixels_per_frame: bool | None = None
    size: _Size = None
    crop_size: _Size = None
    resample: int | None = None
    rescale_factor: float | None = None
    image_mean: list[float] | None = None
    image_std: list[float] | None = None
    patch_size: _Block = 14
    merge_size: _Block = 2
    temporal_patch_size: _Block = 2
    min_pixels: _Number = None
    max_pixels: _Number = None
    min_tokens: _Number = 16
    max_tokens: _Number = 16384
    max_video_tokens: _Number = 128_000


def _size(size: Any) -> int | tuple[int, int]:
    if isinstance(size, int):
        return size
    if isinstance(size, Mapping) and "shortest_edge" in size and "longest_edge" not in size:
        return int(size["shortest_edge"])
    pair = _pair(size)
    if pair is None:
        raise ModelError(
            f"the preprocessor's size {size!r} is not understood: expected shortest_edge, or height and width"
        )
    return pair


def _pair(size: Any) -> tuple[int, int] | None:
    if isinstance(size, int):
        return size, size
    if isinstance(size, Mapping) and {"height", "width"} <= set(size):
        return int(size["height"]), int(size["width"])
    if isinstance(size, (tuple, list)) and len(size) == 2:
        return int(size[0]), int(size[1])
    return None


def _target(size: int | tuple[int, int], height: int, width: int) -> tuple[int, int]:
    if isinstance(size, tuple):
        return size
    short, long = sorted((height, width))
    longer = int(size * long / short)
    return (size, longer) if height <= width else (longer, size)


def _centre(pixels: Tensor, crop: tuple[int, int]) -> Tensor:
    height, width = pixels.shape[-2:]
    missing_h, missing_w = max(crop[0] - height, 0), max(crop[1] - width, 0)
    if missing_h or missing_w:
        top, left = (missing_h + 1) // 2, (missing_w + 1) // 2
        pixels = F.pad(pixels, (left, missing_w - left, top, missing_h - top))
        height, width = pixels.shape[-2:]
    top, left = (height - crop[0]) // 2, (width - crop[1]) // 2
    return pixels[..., top : top + crop[0], left : left + crop[1]]
