"""Video files from outside: opening them, refusing what is no whole video, and listing the frames without decoding."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np

from videolens.errors import VideoError


@dataclass(frozen=True, eq=False)
class FrameList:
    """When each frame of a file is shown, in order, in the stream's own time units; found without decoding.

    `keys`: places in `pts` where decoding can begin. `fps`: mean frame rate. `duration`: where the last frame ends, s.
    """

    pts: np.ndarray
    keys: np.ndarray
    fps: float
    duration: float


def opened(path: Path) -> Any:
    """The PyAV container of a file; a `VideoError` if it is missing, a directory, empty, truncated or unreadable."""
    if not path.exists():
        raise VideoError(f"no such file: {path} (in {Path.cwd()}): check the path")
    if path.is_dir():
        raise VideoError(f"{path} is a directory: give the path of one video file in it")
    size = path.stat().st_size
    if size == 0:
        raise VideoError(f"{path} has zero bytes: copy or download it again")
    try:
        container = av.open(str(path))
    except PermissionError as error:
        raise VideoError(f"{path} may not be read: change its permissions (chmod +r)") from error
    except av.error.FFmpegError as error:
        with path.open("rb") as file:
            if file.read(12)[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
                why = f"of its index (moov) nothing or not all lies within its {size} bytes"
                raise truncated(path, why) from error
        raise VideoError(f"{path} is not a video that FFmpeg can read ({error}): give an mp4, mkv, webm, …") from error
    try:
        _check_whole(path, container.format.name)
    except VideoError:
        container.close()
        raise
    return container


def video_stream(path: Path, container: Any) -> Any:
    """The first stream of moving pictures; a `VideoError` if there is none: sound alone, a still image, text."""
    name = container.format.name
    # FFmpeg draws a text file's letters, and calls a still image a video of one frame: neither is what was meant
    if name in ("tty", "bin", "xbin", "adf", "idf", "image2", "rawvideo") or name.endswith("_pipe"):
        raise VideoError(f"{path} is not a video ({container.format.long_name}): give an mp4, mkv, webm, …")
    streams = [each for each in container.streams.video if not _is_cover(each)]
    if not streams:
        others = ["a cover picture" if each.type == "video" else each.type for each in container.streams]
        raise VideoError(
            f"{path} has no video stream, only {', '.join(others) or 'nothing'}: give a file with pictures"
        )
    if streams[0].codec_context is None:
        raise VideoError(f"{path}: this FFmpeg has no decoder for its video stream: re-encode it as H.264")
    streams[0].thread_type = "AUTO"
    return streams[0]


def _is_cover(stream: Any) -> bool:
    """Whether a video stream is the cover picture of an audio file."""
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _check_whole(path: Path, format_name: str) -> None:
    """Compare the lengths that a file states, where its format states any, with the file's own."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if format_name.startswith("mov"):
            ends = _mp4_ends(file, size)
        elif format_name.startswith("matroska"):
            ends = _matroska_ends(file)
        elif format_name == "avi":
            head = file.read(8)
            ends = [("RIFF", 8 + int.from_bytes(head[4:], "little"))]
        else:
            return
    for part, end in ends:
        if end > size:
            raise truncated(path, f"its part {part!r} should end at byte {end}, but the file ends at byte {size}")


def _mp4_ends(file: BinaryIO, size: int) -> list[tuple[str, int]]:
    """An mp4 or mov is a row of boxes, each with its length and kind in front: where those that matter end."""
    at, ends = 0, []
    while at + 8 <= size:
        file.seek(at)
        header = file.read(16)
        length, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if length == 1:  # 64 bits of length follow
            length = int.from_bytes(header[8:16], "big")
        if length < 8:  # the last box, up to the end of the file, or padding
            break
        at += length
        if kind in (b"mdat", b"moov", b"moof"):
            ends.append((kind.decode(), at))
    return ends


def _matroska_ends(file: BinaryIO) -> list[tuple[str, int]]:
    """An mkv or webm is a head and one segment (RFC 8794): where the segment ends, unless it leaves that open."""
    at = 0
    for _ in ("EBML", "Segment"):
        file.seek(at + 4)
        number = file.read(8)
        width = 9 - number[0].bit_length() if number and number[0] else 8
        length = int.from_bytes(number[:width], "big") & ((1 << 7 * width) - 1)
        if length == (1 << 7 * width) - 1:  # all ones: not known when it was written, as in a live stream
            return []
        at += 4 + width + length
    return [("Segment", at)]


def list_from_index(path: Path, container: Any, stream: Any) -> FrameList | None:
    """From the container's index, if it is complete and evenly spaced: no frame and no packet is read."""
    entries = list(getattr(stream, "index_entries", ()))  # PyAV 17 and later
    size = path.stat().st_size
    if any(entry.pos + entry.size > size for entry in entries):
        raise truncated(path, f"its index speaks of data beyond the {size} bytes that there are")
    steps = np.unique(np.diff([entry.timestamp for entry in entries]))
    if len(entries) != stream.frames or any(entry.is_discard for entry in entries) or len(steps) != 1 or steps[0] <= 0:
        return None
    if stream.start_time is None:
        return None
    pts = stream.start_time + np.arange(len(entries), dtype=np.int64) * int(steps[0])
    return _listed(stream, pts, np.flatnonzero([entry.is_keyframe for entry in entries]))


def list_from_packets(path: Path, container: Any, stream: Any) -> FrameList | None:
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
            raise truncated(path, f"the packet at {_seconds(stamp, packet)} s is cut short")
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
        raise truncated(path, f"it says that it lasts {declared:.2f} s, but ends after {reached - start:.2f} s")
    if not shown:
        raise VideoError(f"{path} has a video stream without a single frame: copy or download it again")
    pts = np.unique(shown)
    return _listed(stream, pts, np.searchsorted(pts, np.unique(keys)))


def list_from_decoding(path: Path, container: Any, stream: Any) -> FrameList:
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
    return FrameList(pts, keys, fps, float((int(pts[-1]) - origin(stream)) * base) + 1 / fps)


def origin(stream: Any) -> int:
    """The time stamp of the start of the file. Broadcast formats (MPEG-TS) start their clock anywhere; others at 0."""
    container = stream.container
    if not container.format.flags & av.format.Flags.ts_discont.value:
        return 0
    starts = [s.start_time * s.time_base / stream.time_base for s in container.streams if s.start_time is not None]
    return int(min(starts, default=0))


def _seconds(stamp: int | None, packet: Any) -> float:
    return float((stamp or 0) * packet.time_base)


def truncated(path: Path, why: str) -> VideoError:
    """The error for a file that ends before it should, in one wording wherever it is noticed."""
    return VideoError(f"{path} is truncated: {why}: copy or download it again")


LISTINGS = (list_from_index, list_from_packets, list_from_decoding)
"""Ways to find out when a file's frames are shown, from the cheapest to the surest. None: this way does not apply."""
