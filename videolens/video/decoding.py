"""Reading chosen frames of a video file with PyAV: what the file holds, then only what has to be decoded for them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

from videolens.errors import VideoError
from videolens.video import listing
from videolens.video.containers import reading
from videolens.video.edits import See
from videolens.video.listing import FrameList
from videolens.video.sampling import BY_TIME, COLOUR_MATRICES, SAMPLINGS, Chosen, Request
from videolens.video.strict import StrictDecoder, display_matrix

KEPT = 64 * 2**20
"""Bytes of decoded frames that a clip keeps. Larger clips are decoded again when they are looked at again: 32 frames of
4K would take 760 MiB, and are not needed together to be brought to the size that a model takes."""


@dataclass(frozen=True, eq=False)
class Clip:
    """Decoded frames.

    t: frames; h, w, c: height, width and colour (red, green, blue) of each.

    Attributes:
        frames: pixels as they are meant to be seen (rotation already applied); None: they take more than `KEPT` and
            were let go, one after the other.
        seconds: when each frame is shown, from the start of the file.
        indices: which frame of the source each one is; a repeated number is a repeated frame.
        fps: mean frame rate of the source; None if it has no clock.
        duration: of the source, in seconds; None if it has no clock.
        n_source_frames: frames in the source.
        n_part: those of them in the part that was sampled; 0 if that is not known.
        steps: the shortest and the longest time from one frame of that part to the next, in seconds.
        rotation: by how many degrees clockwise the stored pixels were turned (0, 90, 180, 270).
        pixel_aspect: width of a pixel by its height, as the frames stand; they are given as stored.
        colour_matrix: by which stored colours were turned into red, green and blue: "bt601", "bt709", …; None: they
            were stored as these.
        path: the file, if there is one.
        n_decoded: frames that were decoded to get these.
    """

    frames: UInt8[Tensor, "t h w c"] | None
    seconds: Float64[Tensor, " t"]
    indices: Int64[Tensor, " t"]
    fps: float | None = None
    duration: float | None = None
    n_source_frames: int = 0
    n_part: int = 0
    steps: tuple[float, float] = (0.0, 0.0)
    rotation: int = 0
    pixel_aspect: float = 1.0
    colour_matrix: str | None = None
    path: Path | None = None
    n_decoded: int = 0

    @property
    def evenly_spaced(self) -> bool:
        """Whether the frames of the part follow each other in equal steps, as exactly as mkv and FLV state times."""
        shortest, longest = self.steps
        return longest - shortest <= 0.0015 + 0.02 * shortest

    @property
    def n_repeated(self) -> int:
        """Frames that are repeats of others."""
        return len(self.indices) - len(torch.unique(self.indices))

    @property
    def n_bytes(self) -> int:
        """What it takes in memory."""
        return self.seconds.nbytes + self.indices.nbytes if self.frames is None else self.frames.nbytes


Choice = Callable[[np.ndarray, float, float], Chosen]
"""(when each frame of the file is shown, frames per second, duration, in seconds) → the frames wanted."""


def read_clip(path: Path, choose: Choice, colour_matrix: str | None = None, see: See | None = None) -> Clip:
    """Decode the frames of a file that `choose` asks for, one after the other.

    1. List the frames: from the file's own index where it has one that is complete and evenly spaced, else from the
       packets, which are read but not decoded; where a container stores no times of showing (AVI), by decoding.
    2. For each wanted frame in order of time, seek to the key frame before it, unless decoding on gets there as soon,
       and decode up to it. Every frame on the way must come as listed, one after the other.
    3. If one does not, the list was wrong (hidden frames, fields in packets of their own): take the next way of
       listing, in the end that of decoding everything and counting.

    Args:
        path: the file.
        choose: which of its frames.
        colour_matrix: one of `COLOUR_MATRICES` instead of what the file states; None: as it states, else BT.601.
        see: called with every frame as soon as it is decoded.

    Raises:
        VideoError: the file is missing, a directory, empty, damaged, truncated, not a video, or without pictures.
    """
    with reading(path):
        decoder = StrictDecoder(path)
    with decoder as source:
        for list_frames in listing.LISTINGS:
            with reading(path):
                listed = list_frames(source)
            if listed is None:
                continue
            # `choose` and `see` may be a caller's: their errors are their own
            taken = _Taken(source, listed, choose(listed.seconds, listed.fps, listed.duration), colour_matrix)
            frames = _decode(source, listed, np.array(taken.chosen.numbers, dtype=np.int64))
            while True:
                with reading(path):
                    found = next(frames, _END)
                    if isinstance(found, str):
                        break
                    places, pixels = taken.add(*found)
                if see is not None:
                    see(len(taken.chosen.numbers), places, pixels)
                del pixels
            if found == _END:
                return taken.clip()
    raise VideoError(f"{path}: frames do not come at the times it states: re-encode it (ffmpeg -i IN OUT.mp4)")


_END, _UNLISTED = "the end", "not as listed"


def _decode(source: StrictDecoder, listed: FrameList, wanted: np.ndarray) -> Iterator[tuple[int, Any, int] | str]:
    """(place, frame, how many were decoded) for every wanted frame; in the end `_UNLISTED` if they do not come as
    listed. One frame at a time: a decoder waits for those that it has given to be let go."""
    frames: Iterator[tuple[int, Any]] = iter(())
    reached, decoded = -1, 0
    for target in np.unique(wanted).tolist():
        before = int(np.searchsorted(listed.keys, target, side="right")) - 1
        keys = [int(listed.keys[i]) for i in (before, before - 1, before - 4) if i > 0 and not listed.counted]
        # A seek to a key frame can land behind it (frames stored out of order, MPEG-TS), and decoding from there can
        # lack what it refers to: then begin earlier, in the end at the very beginning.
        decode_on = reached >= max(keys, default=0)
        failure: Exception | None = None
        found: Any = None
        for begin in [reached, *keys, 0] if decode_on else [*keys, 0]:
            if not (decode_on and begin == reached):
                frames = _from(source, listed, begin)
            decode_on = False
            try:
                for place, frame in frames:
                    decoded, reached = decoded + 1, place
                    if place == target:
                        found = frame
                    if place >= target:
                        break
            except (av.error.FFmpegError, VideoError) as error:
                failure = error
            if found is not None:
                break
        else:
            if failure is not None:
                raise failure
            yield _UNLISTED
            return
        yield target, found, decoded


def _from(source: StrictDecoder, listed: FrameList, begin: int) -> Iterator[tuple[int, Any]]:
    """(place, frame) from the key frame at a place on, as long as frames come as listed, one after the other."""
    expected: int | None = None if begin else 0
    for frame in source.frames(int(listed.pts[begin]) if begin else None):
        if listed.counted:
            place = expected or 0
        else:
            place = int(np.searchsorted(listed.pts, frame.pts)) if frame.pts is not None else -1
            known = 0 <= place < len(listed.pts) and listed.pts[place] == frame.pts
            if not known or (expected is not None and place != expected):
                return
        expected = place + 1
        yield place, frame


class _Taken:
    """The wanted frames, as they come: their pixels, and what a clip says of them."""

    def __init__(self, source: StrictDecoder, listed: FrameList, chosen: Chosen, colours: str | None) -> None:
        self.source, self.listed, self.chosen, self.colours = source, listed, chosen, colours
        self._places: dict[int, list[int]] = {}
        for i, number in enumerate(chosen.numbers):
            self._places.setdefault(number, []).append(i)
        self._frames: UInt8[Tensor, "t h w c"] | None = None
        self._shape: tuple[int, ...] = ()
        self._matrix, self._colour_matrix, self._decoded = np.eye(2), colours, 0

    def add(self, place: int, frame: Any, decoded: int) -> tuple[list[int], UInt8[Tensor, "h w c"]]:
        """A frame's places in the clip, and its pixels; a `VideoError` if they are more or fewer than before."""
        self._decoded = decoded
        matrix = display_matrix(frame) if self.source.matrix is None else self.source.matrix
        pixels = torch.from_numpy(upright(_rgb(frame, self.colours), matrix))
        shape, n = tuple(pixels.shape), len(self.chosen.numbers)
        if not self._shape:
            self._shape = shape
            self._frames = pixels.new_empty(n, *shape) if n * pixels.nbytes <= KEPT else None
        if shape != self._shape:
            sizes = sorted({shape, self._shape})
            raise VideoError(f"{self.source.path} changes its size on the way, {sizes}: re-encode it at one size")
        if place == self.chosen.numbers[0]:
            self._matrix, self._colour_matrix = matrix, _matrix_of(frame, self.colours)
        if self._frames is not None:
            self._frames[self._places[place]] = pixels
        return self._places[place], pixels

    def clip(self) -> Clip:
        """The clip, when all frames have come."""
        listed, chosen = self.listed, self.chosen
        wanted = np.array(chosen.numbers, dtype=np.int64)
        a, b = self._matrix[0]
        aspect = float(self.source.stream.sample_aspect_ratio or 1)
        return Clip(
            frames=self._frames,
            seconds=torch.from_numpy(listed.seconds[wanted]),
            indices=torch.from_numpy(wanted),
            fps=listed.fps,
            duration=listed.duration,
            n_source_frames=len(listed.pts),
            n_part=chosen.n_part,
            steps=chosen.steps,
            rotation=round(np.degrees(np.arctan2(b, a))) % 360,
            pixel_aspect=1 / aspect if abs(b) > abs(a) else aspect,
            colour_matrix=self._colour_matrix,
            path=self.source.path,
            n_decoded=self._decoded,
        )


def _rgb(frame: Any, colours: str | None) -> UInt8[np.ndarray, "h w c"]:
    """A frame's pixels where they lie: `to_ndarray` would give a copy, and at 4K a frame takes 24 MiB."""
    if colours is None or _matrix_of(frame, colours) is None:
        turned = frame.reformat(format="rgb24")
    else:
        turned = frame.reformat(format="rgb24", src_colorspace=COLOUR_MATRICES[colours])
    [plane] = turned.planes
    if plane.line_size < 3 * turned.width:  # upside down
        return turned.to_ndarray()
    rows = np.frombuffer(plane, dtype=np.uint8).reshape(-1, plane.line_size)[: turned.height, : 3 * turned.width]
    return rows.reshape(turned.height, turned.width, 3)


def _matrix_of(frame: Any, colours: str | None) -> str | None:
    """The matrix that a frame's colours are turned with; None: it is stored as red, green and blue."""
    if frame.format.is_rgb:
        return None
    # ISO 23091-2, as swscale reads it: all that is not stated, and what has the numbers of BT.601, is BT.601
    stated = {1: "bt709", 4: "fcc", 7: "smpte240m", 9: "bt2020", 10: "bt2020"}.get(int(frame.colorspace), "bt601")
    return colours or stated


def upright(pixels: UInt8[np.ndarray, "h w c"], matrix: np.ndarray) -> UInt8[np.ndarray, "h2 w2 c"]:
    """Pixels turned and mirrored as a display matrix says, to the nearest quarter turn."""
    (a, b), (c, d) = matrix
    turned = abs(b) > abs(a)
    if turned:
        pixels = pixels.transpose(1, 0, 2)
    flip_x, flip_y = (c < 0, b < 0) if turned else (a < 0, d < 0)
    return np.ascontiguousarray(pixels[:: -1 if flip_y else 1, :: -1 if flip_x else 1])


def warn_about(clip: Clip, request: Request) -> Clip:
    """The clip, after a warning of what its frames do not show by themselves."""
    said = []
    by_number = callable(request.sampling) or request.sampling in SAMPLINGS
    if by_number and not clip.evenly_spaced:
        said.append(
            f"frames are unevenly spaced, {clip.steps[0]:.3g} to {clip.steps[1]:.3g} s apart, and taken by their "
            f"numbers (sampling={BY_TIME!r} takes them by their times)"
        )
    if clip.n_repeated and (by_number or request.sampling == BY_TIME):
        said.append(
            f"{clip.n_repeated} of {len(clip.indices)} frames are repeats (the part has {clip.n_part}; ask for fewer)"
        )
    if clip.pixel_aspect != 1:
        said.append(
            f"its pixels are {clip.pixel_aspect:.3g} times as wide as high and are given as stored, as models saw them "
            "(for square ones: ffmpeg -i IN -vf scale=iw*sar:ih,setsar=1 OUT.mp4)"
        )
    if said:
        warnings.warn(f"{request.name}: {'; '.join(said)}", stacklevel=4)
    return clip
