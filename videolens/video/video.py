"""A video: frames sampled from a file or an array, and when each of them is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

from videolens.errors import VideoError, is_number, refusing
from videolens.reading import as_path
from videolens.video.decoding import Clip, warn_about
from videolens.video.edits import (
    Blank,
    Edit,
    Film,
    Frozen,
    Replaced,
    Reversed,
    See,
    Shuffled,
    Swapped,
    edited,
    see_edited,
)
from videolens.video.files import File, read_now, show
from videolens.video.sampling import Chosen, Request, Sampling
from videolens.video.writing import write_frames


def _path(path: object) -> Path:
    return as_path(path, "the video", VideoError)


@dataclass(frozen=True, eq=False)
class Video(Film):
    """Frames of a video. Made by `Video.from_file`, `Video.open` or `Video.from_array`.

    t: frames; h, w, c: height, width and colour (red, green, blue).
    """

    source: Clip | File
    edits: tuple[Edit, ...] = ()

    @classmethod
    def from_file(
        cls,
        path: str | PathLike[str],
        n_frames: int = 8,
        start: float | int | None = None,
        end: float | int | None = None,
        sampling: Sampling = "midpoints",
        colour_matrix: str | None = None,
    ) -> Video:
        """Decode `n_frames` frames of a video file, of the part from `start` to `end`.

        Only what is needed is decoded: from the key frame before each frame to the frame itself. Rotation stored in
        the file is applied. If the part has fewer frames than were asked for, frames are repeated; a warning
        says so (`n_repeated`), as when frames are unevenly spaced (`evenly_spaced`). More than 1024, and more than the
        file has, is an error. Frames that take more than 64 MiB are checked, let go one after the other, and decoded
        again when they are looked at; the file must not change meanwhile.

        Args:
            path: an mp4, mkv, webm, … file.
            n_frames: how many frames; ignored when `sampling` is a list of frame numbers.
            start: where the part of the video begins, in seconds of its own clock; None: at its beginning.
            end: where it ends; None: at its end.
            sampling: "midpoints" (of n_frames equal segments), "uniform" (first … last), "stride", all by numbers of
                frames; "time" (on view in the middle of n_frames equal stretches of time); a function (first, last,
                n_frames) → frame numbers, or the frame numbers themselves.
            colour_matrix: "bt601" or "bt709", which turn stored colours into red, green and blue, instead of what the
                file states; None: as it states, and BT.601 where it states nothing, also in high definition.

        Raises:
            VideoError: the file is missing, a directory, empty, truncated, damaged, no video or has no pictures; the
                part lies outside the video; n_frames < 1, or above both 1024 and the number of frames that there are.
        """
        return cls(read_now(_path(path), Request(n_frames, start, end, sampling, str(path), colour_matrix)))

    @classmethod
    def open(
        cls,
        path: str | PathLike[str],
        n_frames: int = 8,
        start: float | int | None = None,
        end: float | int | None = None,
        sampling: Sampling = "midpoints",
        colour_matrix: str | None = None,
    ) -> Video:
        """As `from_file`, but the file is read, and its errors are raised, when its frames are first looked at.

        The clips decoded last are kept, up to 256 MiB, unless one takes more than 64 MiB; others are decoded again
        when they are looked at again.
        """
        return cls(File(_path(path), Request(n_frames, start, end, sampling, str(path), colour_matrix)))

    @classmethod
    def from_array(
        cls,
        frames: np.ndarray | Tensor,
        *,
        fps: float | int = 1.0,
        n_frames: int | None = None,
        start: float | int | None = None,
        end: float | int | None = None,
        sampling: Sampling = "midpoints",
    ) -> Video:
        """A video from pixels [t h w 3] at `fps` frames a second: all of them, or `n_frames` sampled as from a file.

        Raises:
            VideoError: not bytes of shape [t h w 3], no frame, fps not above 0, or as `from_file`.
        """
        # a copy: a later change of the array must not change the video
        with refusing(VideoError, "frames are no array of bytes [frames height width 3]"):
            pixels = frames.clone() if isinstance(frames, Tensor) else torch.from_numpy(np.array(frames))
        if pixels.ndim != 4 or pixels.shape[-1] != 3 or pixels.dtype != torch.uint8 or 0 in pixels.shape:
            raise VideoError(
                f"frames must be bytes (uint8) of shape [frames height width 3], got {pixels.dtype} of shape "
                f"{list(pixels.shape)}: convert with (255 * frames).astype('uint8') or move the colour axis last"
            )
        if not is_number(fps) or not 1e-6 <= fps <= 1e6:
            raise VideoError(f"fps is {fps!r}: give frames per second above 0, as a number")
        n, duration, request = len(pixels), len(pixels) / fps, None
        if n_frames is None and isinstance(sampling, str) and start is None and end is None:
            chosen = Chosen(list(range(n)), n)
        else:
            request = Request(n if n_frames is None else n_frames, start, end, sampling, "the array")
            chosen = request(np.arange(n) / fps, fps, duration)
        indices = torch.tensor(chosen.numbers)
        clip = Clip(pixels[indices], indices.double() / fps, indices, float(fps), duration, n, chosen.n_part)
        return cls(clip if request is None else warn_about(clip, request))

    @property
    def _clip(self) -> Clip:
        return self.source if isinstance(self.source, Clip) else self.source.clip()

    @property
    def frames(self) -> UInt8[Tensor, "t h w c"]:
        """Pixels, a copy: the clip is kept for others who look at it. For large ones see `map_frames`."""
        return self.map_frames(lambda frame, n: frame)

    def each_frame(self, see: See) -> None:
        """Call `see(how many frames there are, places, pixels)` with every frame, in the order in which they are read.

        A frame is let go when the next one is read, so those of a large clip are never in memory together. Pixels
        [h w c] are not to be written into. What is said last of a place counts.
        """
        see_edited(self._each_own, self.edits, see) if self.edits else self._each_own(see)

    def _each_own(self, see: See) -> None:
        if isinstance(self.source, File):
            self.source.clip(see)
        else:
            assert self.source.frames is not None  # a clip that keeps none is a file's
            show(self.source.frames, see)

    @property
    def seconds(self) -> Float64[Tensor, " t"]:
        """When each frame is shown, in seconds from the start of the file. Edits leave the clock alone."""
        return self._clip.seconds.clone()

    @property
    def indices(self) -> Int64[Tensor, " t"]:
        """Which frame of the source each frame is, counted from 0; −1: none of it, but of another clip, or blank.

        A repeated number is a repeated frame.
        """
        clip = self._clip
        if not self.edits:
            return clip.indices.clone()
        places = edited(len(clip.indices), self.edits)
        return torch.tensor([int(clip.indices[place.number]) if place.of == "own" else -1 for place in places])

    @property
    def path(self) -> Path | None:
        """The file; None for an array."""
        return self.source.path

    @property
    def fps(self) -> float | None:
        """Mean frame rate of the source."""
        return self._clip.fps

    @property
    def sampled_fps(self) -> float | None:
        """Sampled frames per second of the part that they were sampled from: n / n_part · fps, as processors count it
        (transformers' `VideoMetadata.sampled_fps`; qwen-vl-utils, of a part)."""
        clip = self._clip
        return None if clip.fps is None or not clip.n_part else len(clip.seconds) / clip.n_part * clip.fps

    @property
    def nominal_seconds(self) -> Float64[Tensor, " t"] | None:
        """When each frame would be shown at the mean rate: number / fps, as processors count it (transformers'
        `VideoMetadata.timestamps`) and write it into prompts. None: the rate is not known. Edits leave it alone."""
        clip = self._clip
        return None if clip.fps is None else clip.indices.double() / clip.fps

    @property
    def evenly_spaced(self) -> bool:
        """Whether the frames of the part that was sampled follow each other in equal steps of time."""
        return self._clip.evenly_spaced

    @property
    def n_repeated(self) -> int:
        """Frames that are repeats of others, because the part has fewer than were asked for."""
        return self._clip.n_repeated

    @property
    def duration(self) -> float | None:
        """Length of the source in seconds."""
        return self._clip.duration

    @property
    def n_source_frames(self) -> int:
        """Frames in the source."""
        return self._clip.n_source_frames

    @property
    def rotation(self) -> int:
        """By how many degrees clockwise the stored pixels were turned to stand upright."""
        return self._clip.rotation

    @property
    def pixel_aspect(self) -> float:
        """Width of a pixel by its height. Frames are given as stored, as by loaders that models are trained with."""
        return self._clip.pixel_aspect

    @property
    def colour_matrix(self) -> str | None:
        """How stored colours were turned into red, green and blue; None: they were stored as these, or an array."""
        return self._clip.colour_matrix

    def __len__(self) -> int:
        """Frames that were sampled."""
        return len(self._clip.seconds)

    def __repr__(self) -> str:
        return f"Video({', '.join([str(self.path or 'array'), *map(str, self.edits)])})"

    # -- edits: copies with as many frames at the same times, checked when their frames are first looked at ------------

    def reversed(self) -> Video:
        """The same frames in the opposite order."""
        return self._edited(Reversed())

    def shuffled(self, seed: int) -> Video:
        """The same frames in a random order. The same seed gives the same order."""
        return self._edited(Shuffled(seed))

    def frozen(self, frame: int) -> Video:
        """One frame in the place of all; −1 is the last."""
        return self._edited(Frozen(frame))

    def blank(self, level: int = 0) -> Video:
        """As many frames of one grey `level`: 0 (black) to 255 (white)."""
        return self._edited(Blank(level))

    def swapped(self, i: int, j: int) -> Video:
        """Frames i and j change places; −1 is the last."""
        return self._edited(Swapped(i, j))

    def replaced(self, first: int, stop: int | None, other: Video, frames: Sequence[int] | None = None) -> Video:
        """Frames of another clip in the place of frames first … stop − 1.

        Args:
            first: where the span begins, counted from 0, or below 0 from the end.
            stop: the frame behind it, counted likewise; None: up to the end.
            other: where the frames come from, such as another question's video, or `video.blank()`; not their times.
            frames: which of the other's frames, one for each; None: those with the same numbers.

        Raises:
            VideoError: when it is looked at: the span is empty or outside the clip, a frame is missing or does not fit.
        """
        return self._edited(Replaced(first, stop, other, frames))

    def _edited(self, edit: Edit) -> Video:
        return replace(self, edits=(*self.edits, edit))

    def write(self, path: str | PathLike[str], fps: float | int | None = None) -> Path:
        """Write the frames as H.264, evenly spaced, and return the path.

        The same frames give the same bytes, at constant quality (crf 10). Colour is stored at half resolution
        (yuv420p, which every player can show); frames of odd height or width at full resolution (yuv444p).

        Args:
            path: ends in .mp4, .mkv, .mov, …
            fps: frames a second; None: the mean rate of these frames.

        Raises:
            VideoError: fps not above 0, or unknown and not given; no such folder; FFmpeg cannot write there.
        """
        if fps is None:
            span = float(self.seconds[-1] - self.seconds[0])
            fps = (len(self) - 1) / span if span > 0 else self.fps
        return write_frames(_path(path), self.frames, fps)
