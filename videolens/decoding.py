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

__all__ = ["Clip", "FrameList", "read_clip"]


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
    rotation: int = 0
    path: Path | None = None
    n_decoded: int = 0


@dataclass(frozen=True, eq=False)
class FrameList:
    """When each frame of a file is shown, in order, in the stream's own time units; found without decoding.

    `keys`: places in `pts` where decoding can begin. `fps`: mean frame rate. `duration`: where the last frame ends, s.
    """

    pts: np.ndarray
    keys: np.ndarray
    fps: float
    duration: float


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
    _check_file(path)
    try:
        with av.open(str(path)) as container:
            stream = _video_stream(path, container)
            for listing in (_list_from_index, _list_from_packets, _list_from_decoding):
                listed = listing(path, container, stream)
                if listed is None:
                    continue
                wanted = np.asarray(choose(len(listed.pts), listed.fps, listed.duration), dtype=np.int64)
                found = _decode(container, stream, listed, wanted)
                if found is not None:
                    return _clip(path, stream, listed, wanted, *found)
    except av.error.FFmpegError as error:
        raise VideoError(f"{path} is damaged, FFmpeg stops with {error}: copy or download it again") from error
    raise VideoError(
        f"{path}: its frames do not come at the times that the file says: re-encode it (ffmpeg -i IN OUT.mp4)"
    )


def _check_file(path: Path) -> None:
    if not path.exists():
        raise VideoError(f"no such file: {path} (in {Path.cwd()}): check the path")
    if path.is_dir():
        raise VideoError(f"{path} is a directory: give the path of one video file in it")
    if path.stat().st_size == 0:
        raise VideoError(f"{path} has zero bytes: copy or download it again")
    try:
        av.open(str(path)).close()
    except av.error.FFmpegError as error:
        with path.open("rb") as file:
            is_mp4 = file.read(12)[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free")
        if is_mp4:
            raise VideoError(
                f"{path} is a truncated mp4 ({path.stat().st_size} bytes): its index (moov) is missing or cut off: "
                "copy or download it again"
            ) from error
        raise VideoError(f"{path} is not a video that FFmpeg can read ({error}): give an mp4, mkv, webm, …") from error


def _video_stream(path: Path, container: Any) -> Any:
    name = container.format.name
    # FFmpeg draws a text file's letters, and calls a still image a video of one frame: neither is what was meant
    if name in ("tty", "bin", "xbin", "adf", "idf", "image2", "rawvideo") or name.endswith("_pipe"):
        raise VideoError(f"{path} is not a video ({container.format.long_name}): give an mp4, mkv, webm, …")
    streams = [each for each in container.streams.video if not _is_cover(each)]
    if not streams:
        others = ", ".join(f"{each.type}" for each in container.streams) or "nothing"
        raise VideoError(f"{path} has no pictures, only {others}: give a file with a video stream")
    if streams[0].codec_context is None:
        raise VideoError(f"{path}: this FFmpeg has no decoder for its video stream: re-encode it as H.264")
    streams[0].thread_type = "AUTO"
    return streams[0]


def _is_cover(stream: Any) -> bool:
    """Whether a video stream is the cover picture of an audio file."""
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


# --- 1. listing -------------------------------------------------------------------------------------------------------


def _list_from_index(path: Path, container: Any, stream: Any) -> FrameList | None:
    """From the container's index, if it is complete and evenly spaced: no frame and no packet is read."""
    entries = list(stream.index_entries)
    size = path.stat().st_size
    if any(entry.pos + entry.size > size for entry in entries):
        raise _truncated(path, f"its index speaks of data beyond the {size} bytes that there are")
    steps = np.unique(np.diff([entry.timestamp for entry in entries]))
    if len(entries) != stream.frames or any(entry.is_discard for entry in entries) or len(steps) != 1 or steps[0] <= 0:
        return None
    if stream.start_time is None:
        return None
    pts = stream.start_time + np.arange(len(entries), dtype=np.int64) * int(steps[0])
    return _listed(stream, pts, np.flatnonzero([entry.is_keyframe for entry in entries]))


def _list_from_packets(path: Path, container: Any, stream: Any) -> FrameList | None:
    """From the packets of the whole file, read but not decoded."""
    shown: list[int] = []
    keys: list[int] = []
    reached = 0.0
    container.seek(0, backward=True)
    for packet in container.demux():
        if packet.size == 0:
            continue
        stamp = packet.pts if packet.pts is not None else packet.dts
        if packet.is_corrupt:
            raise _truncated(path, f"the packet at {_seconds(stamp, packet)} s is cut short")
        reached = max(reached, _seconds((stamp or 0) + (packet.duration or 0), packet))
        if packet.stream is stream or packet.stream.index == stream.index:
            if stamp is None:
                return None
            if not packet.is_discard:
                shown.append(stamp)
                keys += [stamp] if packet.is_keyframe else []
    declared = (container.duration or 0) / av.time_base
    start = max(0, container.start_time or 0) / av.time_base
    if reached - start < declared - max(0.5, 0.02 * declared):
        raise _truncated(path, f"it says that it lasts {declared:.2f} s, but ends after {reached - start:.2f} s")
    if not shown:
        raise VideoError(f"{path} has a video stream without a single frame: copy or download it again")
    pts = np.unique(shown)
    return _listed(stream, pts, np.searchsorted(pts, np.unique(keys)))


def _list_from_decoding(path: Path, container: Any, stream: Any) -> FrameList:
    """From decoding all frames once: slow, and always right."""
    container.seek(0, backward=True)
    pts = np.unique([frame.pts for frame in container.decode(stream) if frame.pts is not None])
    if len(pts) == 0:
        raise VideoError(f"{path} has a video stream without a single frame that can be decoded: copy it again")
    return _listed(stream, pts, np.zeros(1, dtype=np.int64))


def _listed(stream: Any, pts: np.ndarray, keys: np.ndarray) -> FrameList:
    base = stream.time_base
    span = float((int(pts[-1]) - int(pts[0])) * base)
    measured = (len(pts) - 1) / span if span > 0 else None
    said = float(stream.average_rate) if stream.average_rate else measured
    # mkv and webm guess their rate from the first frames: with a variable rate the guess is far off
    fps = measured if measured and said and abs(said / measured - 1) > 0.01 else (said or measured or 1.0)
    return FrameList(pts, keys, fps, float((int(pts[-1]) - _origin(stream)) * base) + 1 / fps)


def _origin(stream: Any) -> int:
    """The time stamp of the start of the file. Broadcast formats (MPEG-TS) start their clock anywhere; others at 0."""
    container = stream.container
    if not container.format.flags & av.format.Flags.ts_discont.value:
        return 0
    starts = [s.start_time * s.time_base / stream.time_base for s in container.streams if s.start_time is not None]
    return int(min(starts, default=0))


def _seconds(stamp: int | None, packet: Any) -> float:
    return float((stamp or 0) * packet.time_base)


def _truncated(path: Path, why: str) -> VideoError:
    return VideoError(f"{path} is truncated: {why}: copy or download it again")


# --- 2. decoding ------------------------------------------------------------------------------------------------------


def _decode(container: Any, stream: Any, listed: FrameList, wanted: np.ndarray) -> tuple[dict[int, Any], int] | None:
    """The wanted frames by place, and how many were decoded; None if one does not come up at its time."""
    found: dict[int, Any] = {}
    frames: Iterator[Any] = iter(())
    reached, decoded = -1, 0
    for target in np.unique(wanted).tolist():
        before = np.searchsorted(listed.keys, target, side="right") - 1
        key = int(listed.keys[before]) if before >= 0 else 0
        # Where frames are stored out of order, a seek to a key frame can land behind it: then begin earlier.
        begins: list[int | None] = [key, max(0, key - 32), max(0, key - 256), 0]
        for begin in [None] if key <= reached < target else begins:
            if begin is not None:
                container.seek(int(listed.pts[begin]), stream=stream, backward=True)
                frames = container.decode(stream)
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


def _clip(path: Path, stream: Any, listed: FrameList, wanted: np.ndarray, found: dict[int, Any], decoded: int) -> Clip:
    matrices = {place: display_matrix(frame) for place, frame in found.items()}
    pixels = {place: upright(frame.to_ndarray(format="rgb24"), matrices[place]) for place, frame in found.items()}
    shapes = {each.shape for each in pixels.values()}
    if len(shapes) > 1:
        raise VideoError(f"{path} changes its size on the way, {sorted(shapes)}: re-encode it at one size")
    ticks = (listed.pts[wanted] - _origin(stream)).tolist()
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
