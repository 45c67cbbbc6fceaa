"""When each frame of a file is shown: from its index, from its packets, or from decoding it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np

from videolens.errors import VideoError
from videolens.video.containers import truncated
from videolens.video.strict import StrictDecoder

_STAMPED = ("mov", "matroska", "mpegts", "flv")
"""Containers that store when each frame is shown. Others, such as AVI, store the order of decoding at most: only
decoding them from the beginning tells which frame is which."""
_REORDERED = 32
"""Frames by which the order of decoding may be ahead of that of showing, in any coding (16, in fields)."""


@dataclass(frozen=True, eq=False)
class FrameList:
    """The frames of a file in the order in which they are shown.

    n: frames.

    Attributes:
        pts: when each is shown, in the stream's own time units; frames are told apart by them.
        seconds: the same on the file's clock.
        keys: places in `pts` where decoding can begin.
        fps: mean frame rate.
        duration: where the last frame ends, in seconds on the file's clock.
        counted: the stamps were found by decoding and mean nothing: frames are told apart by counting from the first.
    """

    pts: np.ndarray
    seconds: np.ndarray
    keys: np.ndarray
    fps: float
    duration: float
    counted: bool = False


def list_from_index(source: StrictDecoder) -> FrameList | None:
    """From the index of an mp4 or mov, if it is complete and evenly spaced: only its ends are read.

    An index gives the order of decoding. That showing has the same even steps, from which stamp on, and to which, is
    checked with the packets at both ends.
    """
    path, container, stream = source.path, source.container, source.stream
    entries = list(getattr(stream, "index_entries", ()))  # PyAV 17 and later
    size = path.stat().st_size
    if any(entry.pos + entry.size > size for entry in entries):
        raise truncated(path, f"its index speaks of data beyond the {size} bytes that there are")
    steps = np.unique(np.diff([entry.timestamp for entry in entries]))
    if len(entries) != stream.frames or any(entry.is_discard for entry in entries) or len(steps) != 1 or steps[0] <= 0:
        return None
    keys = np.flatnonzero([entry.is_keyframe for entry in entries])
    if not container.format.name.startswith("mov") or stream.start_time is None or not len(keys):
        return None
    n, step = len(entries), int(steps[0])
    pts = stream.start_time + np.arange(n, dtype=np.int64) * step
    source.rewind()
    head = _stamps(container, stream, 2 * _REORDERED)
    sure = n if len(head) == n else max(0, len(head) - _REORDERED)
    container.seek(int(pts[keys[-1]]), stream=stream, backward=True)
    tail = _stamps(container, stream, n)
    if None in head or None in tail or sorted(head)[:sure] != pts[:sure].tolist() or max(tail) != pts[-1]:
        return None
    return _listed(stream, pts, keys)


def _stamps(container: Any, stream: Any, most: int) -> list[Any]:
    """When the pictures of the next packets are shown, at most so many."""
    found: list[Any] = []
    for packet in container.demux(stream):
        if packet.size:
            found.append(packet.pts)
        if len(found) == most:
            break
    return found


def list_from_packets(source: StrictDecoder) -> FrameList | None:
    """From the packets of the whole file, read but not decoded; of those before the first key frame nothing can be."""
    shown: list[int] = []
    keys: list[int] = []
    source.rewind()
    path, container, stream = source.path, source.container, source.stream
    reached, stamped = 0.0, container.format.name.startswith(_STAMPED)
    for packet in container.demux():
        if packet.size == 0:
            continue
        stamp = packet.pts if packet.pts is not None else packet.dts
        if packet.is_corrupt:
            raise truncated(path, f"the packet at {_seconds(stamp, packet)} s is cut short")
        reached = max(reached, _seconds((stamp or 0) + (packet.duration or 0), packet))
        if packet.stream is stream or packet.stream.index == stream.index:
            stamped = stamped and packet.pts is not None
            if packet.is_keyframe and not packet.is_discard:
                keys.append(stamp or 0)
            if stamped and not packet.is_discard and keys and packet.pts >= keys[0]:
                shown.append(packet.pts)
    _check_duration(path, container, reached)
    if not stamped:
        return None
    if not shown:
        raise VideoError(f"{path} has a video stream without a single frame: copy or download it again")
    pts = np.unique(shown)
    return _listed(stream, pts, np.searchsorted(pts, np.unique(keys)))


def _check_duration(path: Path, container: Any, reached: float) -> None:
    """Compare the end that a file states with the end of its packets, on one clock: both count from 0.

    Raises:
        VideoError: the packets end too early. Broadcast formats state no end: FFmpeg guesses one.
    """
    if _starts_anywhere(container):
        return
    declared = (container.duration or 0) / av.time_base
    ends = reached - min(0, container.start_time or 0) / av.time_base
    if ends < declared - max(0.5, 0.02 * declared):
        raise truncated(path, f"it says that it lasts {declared:.2f} s, but ends after {ends:.2f} s")


def list_from_decoding(source: StrictDecoder) -> FrameList:
    """From decoding all frames once: slow, and always right."""
    found = [frame.pts for frame in source.frames(None)]
    stream = source.stream
    if not found:
        raise VideoError(f"{source.path} has a video stream without a single frame that can be decoded: copy it again")
    source.check_count(len(found))
    keys = np.zeros(1, dtype=np.int64)
    if None not in found and all(a < b for a, b in pairwise(found)):
        return _listed(stream, np.array(found, dtype=np.int64), keys, counted=True)
    # no clock to speak of: evenly spaced, at the rate that the file states
    rate = stream.average_rate or stream.guessed_rate or 25
    step = max(1, round(1 / (rate * stream.time_base)))
    return _listed(stream, np.arange(len(found), dtype=np.int64) * step, keys, counted=True)


def _listed(stream: Any, pts: np.ndarray, keys: np.ndarray, *, counted: bool = False) -> FrameList:
    base, container = stream.time_base, stream.container
    span = float((int(pts[-1]) - int(pts[0])) * base)
    measured = (len(pts) - 1) / span if span > 0 else None
    said = float(stream.average_rate) if stream.average_rate else measured
    # mkv and webm guess their rate from the first frames: with a variable rate the guess is far off
    fps = measured if measured and said and abs(said / measured - 1) > 0.01 else (said or measured or 1.0)
    # where times of showing are not stored, those that decoding gives are late by the frames that it waits for
    origin = _origin(stream) if container.format.name.startswith(_STAMPED) else int(pts[0])
    seconds = (pts - origin) * base.numerator / base.denominator
    return FrameList(pts, seconds, keys, fps, float((int(pts[-1]) - origin) * base) + 1 / fps, counted)


def _origin(stream: Any) -> int:
    """The time stamp of the start of the file. Broadcast formats (MPEG-TS) start their clock anywhere; others at 0."""
    container = stream.container
    if not _starts_anywhere(container):
        return 0
    starts = [s.start_time * s.time_base / stream.time_base for s in container.streams if s.start_time is not None]
    return int(min(starts, default=0))


def _starts_anywhere(container: Any) -> bool:
    return bool(container.format.flags & av.format.Flags.ts_discont.value)


def _seconds(stamp: int | None, packet: Any) -> float:
    return float((stamp or 0) * packet.time_base)


LISTINGS = (list_from_index, list_from_packets, list_from_decoding)
"""Ways to find out when a file's frames are shown, from the cheapest to the surest. None: this way does not apply."""
