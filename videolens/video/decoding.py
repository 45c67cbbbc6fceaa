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
from videolens.video.listing import FrameList
from videolens.video.sampling import BY_TIME, COLOUR_MATRICES, SAMPLINGS, Chosen, Request
from videolens.video.strict import StrictDecoder, display_matrix


@dataclass(frozen=True, eq=False)
class Clip:
    """Decoded frames.

    t: frames; h, w, c: height, width and colour (red, green, blue) of each.

    Attributes:
        frames: pixels as they are meant to be seen (rotation already applied).
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

    frames: UInt8[Tensor, "t h w c"]
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


Choice = Callable[[np.ndarray, float, float], Chosen]
"""(when each frame of the file is shown, frames per second, duration, in seconds) → the frames wanted."""


def read_clip(path: Path, choose: Choice, colour_matrix: str | None = None) -> Clip:
    """Decode the frames of a file that `choose` asks for.

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
            chosen = choose(listed.seconds, listed.fps, listed.duration)  # may be a caller's: its errors are its own
            with reading(path):
                found = _decode(source, listed, np.array(chosen.numbers, dtype=np.int64))
                if found is not None:
                    return _clip(source, listed, chosen, *found, colour_matrix)
    raise VideoError(f"{path}: frames do not come at the times it states: re-encode it (ffmpeg -i IN OUT.mp4)")


def _decode(source: StrictDecoder, listed: FrameList, wanted: np.ndarray) -> tuple[dict[int, Any], int] | None:
    """The wanted frames by place, and how many were decoded; None if frames do not come as listed."""
    found: dict[int, Any] = {}
    frames: Iterator[tuple[int, Any]] = iter(())
    reached, decoded = -1, 0
    for target in np.unique(wanted).tolist():
        before = int(np.searchsorted(listed.keys, target, side="right")) - 1
        keys = [int(listed.keys[i]) for i in (before, before - 1, before - 4) if i > 0 and not listed.counted]
        # A seek to a key frame can land behind it (frames stored out of order, MPEG-TS), and decoding from there can
        # lack what it refers to: then begin earlier, in the end at the very beginning.
        decode_on = reached >= max(keys, default=0)
        failure: Exception | None = None
        for begin in [reached, *keys, 0] if decode_on else [*keys, 0]:
            if not (decode_on and begin == reached):
                frames = _from(source, listed, begin)
            decode_on = False
            try:
                for place, frame in frames:
                    decoded, reached = decoded + 1, place
                    if place == target:
                        found[target] = frame
                    if place >= target:
                        break
            except (av.error.FFmpegError, VideoError) as error:
                failure = error
            if target in found:
                break
        else:
            if failure is not None:
                raise failure
            return None
    return found, decoded


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


def _clip(
    source: StrictDecoder, listed: FrameList, chosen: Chosen, found: dict[int, Any], decoded: int, colours: str | None
) -> Clip:
    path, stored = source.path, source.matrix
    matrices = {place: display_matrix(frame) if stored is None else stored for place, frame in found.items()}
    pixels = {place: upright(_rgb(frame, colours), matrices[place]) for place, frame in found.items()}
    shapes = {each.shape for each in pixels.values()}
    if len(shapes) > 1:
        raise VideoError(f"{path} changes its size on the way, {sorted(shapes)}: re-encode it at one size")
    wanted = np.array(chosen.numbers, dtype=np.int64)
    a, b = matrices[chosen.numbers[0]][0]
    aspect = float(source.stream.sample_aspect_ratio or 1)
    return Clip(
        frames=torch.from_numpy(np.stack([pixels[place] for place in chosen.numbers])),
        seconds=torch.from_numpy(listed.seconds[wanted]),
        indices=torch.from_numpy(wanted),
        fps=listed.fps,
        duration=listed.duration,
        n_source_frames=len(listed.pts),
        n_part=chosen.n_part,
        steps=chosen.steps,
        rotation=round(np.degrees(np.arctan2(b, a))) % 360,
        pixel_aspect=1 / aspect if abs(b) > abs(a) else aspect,
        colour_matrix=_matrix_of(found[chosen.numbers[0]], colours),
        path=path,
        n_decoded=decoded,
    )


def _rgb(frame: Any, colours: str | None) -> UInt8[np.ndarray, "h w c"]:
    if colours is None or _matrix_of(frame, colours) is None:
        return frame.to_ndarray(format="rgb24")
    return frame.to_ndarray(format="rgb24", src_colorspace=COLOUR_MATRICES[colours])


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
