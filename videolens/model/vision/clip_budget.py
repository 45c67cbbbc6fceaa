"""Frames of any shape whose pixels are counted over the whole clip: a longer clip has smaller frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, floor, sqrt
from typing import Any

from videolens.model.vision.smart_resize import SmartResize, check_aspect


@dataclass(frozen=True)
class ClipBudget(SmartResize):
    """Frames resized to whole blocks; the least and the most pixels are those of all frames of the clip together.

    Attributes:
        pair: frames that are merged.
        capped: pixels that a frame has at most besides, if the preprocessor says `cap_pixels_per_frame`.
    """

    pair: int = 2
    capped: int | None = None

    def size(self, frames: int, height: int, width: int) -> tuple[int, int]:
        """(height, width) in pixels that the frames of a clip are resized to.

        1. A frame smaller than a block grows first, both sides by the same ratio.
        2. Round both sides to the nearest multiple of the block (halves to the even one), and the number of frames to
           whole pairs.
        3. Too many pixels in the clip: shrink both sides by the same ratio, then round down, to one block at least.
        4. Too few: grow both by the same ratio, then round up.
        """
        if not self.resize:
            return super().size(frames, height, width)
        side, frames = self.factor, max(frames, self.pair)  # a clip of one frame is a pair of it
        most = self.max_pixels
        if self.capped is not None:
            most = frames * max(min(self.capped, most // frames), int(self.min_pixels * 1.05))
        # 1. a block at least
        if height < side or width < side:
            ratio = max(side / height, side / width)
            height, width = int(height * ratio), int(width * ratio)
        check_aspect(height, width)
        # 2. the nearest multiples
        found = round(height / side) * side, round(width / side) * side
        in_clip = round(frames / self.pair) * self.pair * found[0] * found[1]
        if in_clip > most:  # 3. shrink
            ratio = sqrt(frames * height * width / most)
            return max(side, floor(height / ratio / side) * side), max(side, floor(width / ratio / side) * side)
        if in_clip < self.min_pixels:  # 4. grow
            ratio = sqrt(self.min_pixels / (frames * height * width))
            return ceil(height * ratio / side) * side, ceil(width * ratio / side) * side
        return found

    @classmethod
    def of_clips(cls, settings: Mapping[str, Any]) -> ClipBudget:
        """Settings as the video processor of Qwen3-VL writes them.

        Args:
            settings: the numbers of pixels as of `SmartResize.from_dict`, and `cap_pixels_per_frame` with the most
                tokens of a frame, `max_video_tokens`.

        Raises:
            ModelError: a setting that this package cannot follow.
        """
        plain = SmartResize.from_dict(
            {**settings, "cap_pixels_per_frame": False}, min_pixels=128 * 32 * 32, max_pixels=768 * 32 * 32
        )
        capped = None
        if settings.get("cap_pixels_per_frame"):
            capped = int(settings.get("max_video_tokens", 768)) * plain.factor**2
        return cls(
            factor=plain.factor,
            min_pixels=plain.min_pixels,
            max_pixels=plain.max_pixels,
            levels=plain.levels,
            resize=plain.resize,
            pair=int(settings.get("temporal_patch_size", 2)),
            capped=capped,
        )
