"""Frames of any shape: resized to whole blocks of patches within a budget of pixels, the aspect ratio kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil, floor, sqrt
from typing import Any

from jaxtyping import Float, UInt8
from torch import Tensor

from videolens.errors import ModelError
from videolens.model.vision.pixels import PixelSettings, in_turn

_MAX_ASPECT = 200
_LEAST_AT_MOST = 2**20  # pixels to which small frames are grown
_SHARE_OF_CONTEXT = 0.9  # of the tokens that `cap_pixels_per_frame` grants a clip


def smart_size(height: int, width: int, *, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """The (height, width) that a frame is resized to, both multiples of `factor`.

    1. Round both sides to the nearest multiple (halves to the even one).
    2. Too many pixels: shrink both by the same ratio, then round down, to one block at least.
    3. Too few: grow both by the same ratio, then round up.

    Raises:
        ModelError: one side is more than 200 times the other.
    """
    check_aspect(height, width)
    # 1. the nearest multiples
    near = round(height / factor) * factor, round(width / factor) * factor
    if near[0] * near[1] > max_pixels:  # 2. shrink
        ratio = sqrt(height * width / max_pixels)
        return max(factor, floor(height / ratio / factor) * factor), max(factor, floor(width / ratio / factor) * factor)
    if near[0] * near[1] < min_pixels:  # 3. grow
        ratio = sqrt(min_pixels / (height * width))
        return ceil(height * ratio / factor) * factor, ceil(width * ratio / factor) * factor
    return near


def check_aspect(height: int, width: int) -> None:
    """Raise a `ModelError` if one side of a frame is more than 200 times the other."""
    if max(height, width) > _MAX_ASPECT * min(height, width):
        raise ModelError(
            f"a frame of {height} × {width} pixels is more than {_MAX_ASPECT} times as long as it is wide, which the "
            "model's resizing does not take: crop the video"
        )


@dataclass(frozen=True)
class SmartResize:
    """How a checkpoint with frames of any shape wants them.

    Attributes:
        factor: pixels that one video token is wide and high: patch size × merge size.
        min_pixels, max_pixels: of a resized frame.
        clip_pixels: of all frames of a clip together, shared evenly, where that is less than `max_pixels` each.
        floor: pixels that a frame's share is never cut below.
        levels: the filter, and what is done besides resizing: rescaling, mean, standard deviation.
        resize: False: frames are taken as they are.

    Raises:
        ModelError: no pixel at all, a block that is none, or a least above the most.
    """

    factor: int
    min_pixels: int
    max_pixels: int
    levels: PixelSettings
    clip_pixels: int | None = None
    floor: int = 0
    resize: bool = True

    def __post_init__(self) -> None:
        factor, least, most = self.factor, self.min_pixels, self.max_pixels
        if factor < 1 or not 0 < least <= most or least > _LEAST_AT_MOST:
            raise ModelError(
                f"the preprocessor asks for frames of {least} to {most} pixels in blocks of {factor} × {factor}: "
                f"the least must be positive and not above the most or {_LEAST_AT_MOST}"
            )

    @classmethod
    def from_dict(
        cls,
        settings: Mapping[str, Any],
        *,
        min_pixels: int = 128 * 28 * 28,
        max_pixels: int = 768 * 28 * 28,
        shared: bool = False,
    ) -> SmartResize:
        """Settings as the preprocessor files of transformers write them, old keys and new.

        Args:
            settings: `min_pixels` and `max_pixels`, beside or in `size`, else `size`'s `shortest_edge` and
                `longest_edge`, which also count pixels; `patch_size`, `merge_size`; filter, mean, standard deviation.
            min_pixels, max_pixels: where the settings do not say.
            shared: `max_pixels` is what all frames of a clip have together.

        Raises:
            ModelError: a setting that this package cannot follow.
        """
        size = settings.get("size") or {}
        if not isinstance(size, Mapping) or {"height", "width"} & set(size):
            raise ModelError(
                f"the preprocessor's size {size!r} is not understood: expected the numbers of pixels shortest_edge and "
                "longest_edge (or min_pixels and max_pixels)"
            )
        least, most = (
            next((int(at[key]) for at, key in places if at.get(key) is not None), default)
            for places, default in (
                (((settings, "min_pixels"), (size, "shortest_edge"), (size, "min_pixels")), min_pixels),
                (((settings, "max_pixels"), (size, "longest_edge"), (size, "max_pixels")), max_pixels),
            )
        )
        factor = int(settings.get("patch_size", 14)) * int(settings.get("merge_size", 2))
        clip, lowest = (most if shared else None), 0
        if settings.get("cap_pixels_per_frame"):
            tokens = int(settings.get("max_video_tokens", 128_000))
            clip = int(tokens * factor * factor * _SHARE_OF_CONTEXT) * int(settings.get("temporal_patch_size", 2))
            lowest = int(least * 1.05)
        return cls(
            factor=factor,
            min_pixels=least,
            max_pixels=most,
            levels=PixelSettings.from_dict({**settings, "size": (factor, factor), "do_center_crop": False}),
            clip_pixels=clip,
            floor=lowest,
            resize=bool(settings.get("do_resize", True)),
        )

    def size(self, frames: int, height: int, width: int) -> tuple[int, int]:
        """(height, width) in pixels that the frames of a clip are resized to.

        A `ModelError` if they cannot be resized, or (without resizing) do not consist of whole blocks.
        """
        if not self.resize:
            if height % self.factor or width % self.factor:
                raise ModelError(
                    f"frames of {height} × {width} pixels do not consist of blocks of {self.factor} × {self.factor}, "
                    "and the preprocessor says do_resize: false: resize the video first"
                )
            return height, width
        most = self.max_pixels
        if self.clip_pixels is not None:
            most = max(min(most, self.clip_pixels // frames), self.floor, 1)
        return smart_size(height, width, factor=self.factor, min_pixels=self.min_pixels, max_pixels=most)

    def prepare(self, frames: UInt8[Tensor, "frame height width channel"]) -> Float[Tensor, "frame channel h w"]:
        """Pixels of a clip: resized to whole blocks, rescaled, normalised."""
        return in_turn(self, frames)

    def frame(self, frame: UInt8[Tensor, "height width channel"], n_frames: int) -> Float[Tensor, "channel h w"]:
        """Pixels of one frame of a clip that has `n_frames`, by which its size is chosen."""
        height, width = frame.shape[:2]
        return replace(self.levels, size=self.size(n_frames, height, width)).frame(frame)
