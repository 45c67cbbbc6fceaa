"""Video files from outside: opening them, refusing what is no whole video, and choosing the stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from stat import S_ISREG
from typing import Any, BinaryIO

import av

from videolens.errors import VideoError, VideolensError

_NOT_ONE_FILE = {"concat", "dash", "hls", "image2", "imf", "lavfi", "rtp", "rtsp", "sap", "sdp", "webm_dash_manifest"}
"""Formats of FFmpeg that name other files, addresses or commands, which are then opened."""


@cache
def _alone() -> dict[str, str]:
    """Options with which FFmpeg opens a file and nothing else: no neighbours, no addresses."""
    formats = sorted({name for each in av.formats_available for name in each.split(",")} - _NOT_ONE_FILE)
    return {"protocol_whitelist": "file", "format_whitelist": ",".join(formats)}


def opened(path: Path) -> Any:
    """The PyAV container of a file; a `VideoError` if it is missing, a directory, empty, truncated or unreadable.

    A playlist, which names other files, is not read: nothing but this one file is opened.
    """
    size = _size_of(path)
    if size == 0:
        raise VideoError(f"{path} has zero bytes: copy or download it again")
    try:
        container = av.open(f"file:{path.absolute()}", metadata_errors="replace", options=_alone())
    except UnicodeEncodeError as error:
        raise VideoError(f"{str(path)!r} is no name in UTF-8, which FFmpeg needs: rename the file") from error
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


def _size_of(path: Path) -> int:
    try:
        if path.is_dir():
            raise VideoError(f"{path} is a directory: give the path of one video file in it")
        about = path.stat()
    except FileNotFoundError:
        raise VideoError(f"no such file: {path} (in {Path.cwd()}): check the path") from None
    except (OSError, ValueError) as error:  # a name that is too long, or that no file can have
        raise VideoError(f"{str(path)!r} cannot be looked at ({error}): check the path") from error
    if not S_ISREG(about.st_mode):
        raise VideoError(f"{path} is no file that can be read to its end: give a video file")
    return about.st_size


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever goes wrong in reading a file, of any type, is a `VideoError` that names it: PyAV's wrappers raise, among
    others, `UnicodeDecodeError` for text that is not UTF-8 and `AttributeError` for a stream without a decoder.
    """
    try:
        yield
    except (VideolensError, MemoryError):
        raise
    except av.error.FFmpegError as error:
        raise damaged(path, f"FFmpeg stops with {error}") from error
    except Exception as error:
        raise VideoError(
            f"{path} cannot be read ({type(error).__name__}: {error}): copy it again, or re-encode it (ffmpeg -i IN "
            "OUT.mp4)"
        ) from error


def damaged(path: Path, why: str) -> VideoError:
    """The error for a file whose pictures are not what was stored, in one wording wherever it is noticed."""
    return VideoError(f"{path} is damaged: {why}: copy or download it again")


def video_stream(path: Path, container: Any) -> Any:
    """The largest stream of moving pictures, so not a preview or a cover; a `VideoError` if there is none: sound alone,
    a still image, text.
    """
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
    # the largest, the first of several: a preview can come first and be marked as the default
    decoded = [each for each in streams if each.codec_context is not None]  # others have no size to ask for
    best = max(decoded, key=lambda each: each.width * each.height, default=None)
    if best is None:
        raise VideoError(f"{path}: this FFmpeg has no decoder for its video stream: re-encode it as H.264")
    return best


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


def truncated(path: Path, why: str) -> VideoError:
    """The error for a file that ends before it should, in one wording wherever it is noticed."""
    return VideoError(f"{path} is truncated: {why}: copy or download it again")
