"""Reading chosen frames of a video file with PyAV: what the file holds, then only what has to be decoded for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

from videolens.errors import VideoError
from videolens.video import containers
from videolens.video.containers import FrameList, origin


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
        rotation: by how many degrees clockwise the stored pixels were turned (0, 90, 180, 270).
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
    rotation: int = 0
    path: Path | None = None
    n_decoded: int = 0


Choice = Callable[[int, float, float], Sequence[int]]
"""(frames in the file, frames per second, duration in seconds) → the frames wanted."""


def read_clip(path: Path, choose: Choice) -> Clip:
    """Decode the frames of a file that `choose` asks for.

    1. List the frames: from the file's own index where it has one that is complete and evenly spaced, else from the
       packets, which are read but not decoded.
    2. For each wanted frame in order of time, seek to the key frame before it, unless decoding on gets there as soon,
       and decode up to it. Frames are told apart by exact time stamps.
    3. A time stamp that does not come up means that the list was wrong (hidden frames, fields in packets of their own):
       take the next way of listing, in the end by decoding everything.

    Raises:
        VideoError: the file is missing, a directory, empty, damaged, truncated, not a video, or without pictures.
    """
    try:
        with containers.opened(path) as container:
            stream = containers.video_stream(path, container)
            for listing in containers.LISTINGS:
                listed = listing(path, container, stream)
                if listed is None:
                    continue
                wanted = np.asarray(choose(len(listed.pts), listed.fps, listed.duration), dtype=np.int64)
                found = _decode(container, stream, listed, wanted)
                if found is not None:
                    return _clip(path, stream, listed, wanted, *found)
    except av.error.FFmpegError as error:
        raise VideoError(f"{path} is damaged, FFmpeg stops with {error}: copy or download it again") from error
    raise VideoError(f"{path}: frames do not come at the times it states: re-encode it (ffmpeg -i IN OUT.mp4)")


def _decode(container: Any, stream: Any, listed: FrameList, wanted: np.ndarray) -> tuple[dict[int, Any], int] | None:
    """The wanted frames by place, and how many were decoded; None if one does not come up at its time."""
    found: dict[int, Any] = {}
    frames: Iterator[Any] = iter(())
    reached, decoded = -1, 0
    for target in np.unique(wanted).tolist():
        before = int(np.searchsorted(listed.keys, target, side="right")) - 1
        keys = [int(listed.keys[i]) for i in (before, before - 1, before - 4) if i > 0]
        # A seek to a key frame can land behind it (frames stored out of order, MPEG-TS): then begin earlier, in the end
        # at the very beginning.
        decode_on = reached >= max(keys, default=0)
        for begin in [reached] if decode_on else [*keys, 0]:
            if not decode_on:
                frames = _decoder_from(container, stream, int(listed.pts[begin]) if begin else None)
            frame = None
            for frame in frames:
                decoded += 1
                if frame.pts is not None and frame.pts >= listed.pts[target]:
                    break
            if frame is not None and frame.pts == listed.pts[target]:
                found[target], reached = frame, target
                break
        else:
            return None
    return found, decoded


def _decoder_from(container: Any, stream: Any, stamp: int | None) -> Iterator[Any]:
    """Decoded frames from the key frame at or before a time stamp; None: from the beginning of the file."""
    if stamp is None:
        container.seek(0, backward=True)
    else:
        container.seek(stamp, stream=stream, backward=True)
    return container.decode(stream)


def _clip(path: Path, stream: Any, listed: FrameList, wanted: np.ndarray, found: dict[int, Any], decoded: int) -> Clip:
    matrices = {place: display_matrix(frame) for place, frame in found.items()}
    pixels = {place: upright(frame.to_ndarray(format="rgb24"), matrices[place]) for place, frame in found.items()}
    shapes = {each.shape for each in pixels.values()}
    if len(shapes) > 1:
        raise VideoError(f"{path} changes its size on the way, {sorted(shapes)}: re-encode it at one size")
    ticks = (listed.pts[wanted] - origin(stream)).tolist()
    a, b = matrices[int(wanted[0])][0]
    return Clip(
        frames=torch.from_numpy(np.stack([pixels[place] for place in wanted.tolist()])),
        seconds=torch.tensor([float(tick * stream.time_base) for tick in ticks], dtype=torch.float64),
        indices=torch.from_numpy(wanted),
        fps=listed.fps,
        duration=listed.duration,
        n_source_frames=len(listed.pts),
        rotation=round(np.degrees(np.arctan2(b, a))) % 360,
        path=path,
        n_decoded=decoded,
    )


def display_matrix(frame: Any) -> np.ndarray:
    """[[a, b], [c, d]]: the stored pixel (x, y) is to be shown at (a·x + c·y, b·x + d·y); the identity if not said."""
    said = frame.side_data.get("DISPLAYMATRIX")
    if said is None:
        return np.eye(2)
    # ISO 14496-12: nine 32-bit numbers, a b u c d v x y w, of which a … d have 16 binary places
    numbers = np.frombuffer(bytes(said), dtype=np.int32)
    return numbers[[0, 1, 3, 4]].reshape(2, 2) / 65536


def upright(pixels: UInt8[np.ndarray, "h w c"], matrix: np.ndarray) -> UInt8[np.ndarray, "h2 w2 c"]:
    """Pixels turned and mirrored as a display matrix says, to the nearest quarter turn."""
    (a, b), (c, d) = matrix
    turned = abs(b) > abs(a)
    if turned:
        pixels = pixels.transpose(1, 0, 2)
    flip_x, flip_y = (c < 0, b < 0) if turned else (a < 0, d < 0)
    return np.ascontiguousarray(pixels[:: -1 if flip_y else 1, :: -1 if flip_x else 1])
