"""Writing frames as a video file."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
from jaxtyping import UInt8
from torch import Tensor

from videolens.errors import VideoError, is_number


def write_frames(path: Path, frames: UInt8[Tensor, "t h w c"], fps: float | int | None) -> Path:
    """Write frames as H.264, evenly spaced: see `Video.write`.

    Raises:
        VideoError: fps not above 0, or unknown; no such folder; FFmpeg cannot write there.
    """
    if not is_number(fps) or fps is None or not 0 < fps <= 1e6:
        raise VideoError(f"fps is {fps!r}: give frames per second above 0")
    if not path.name:
        raise VideoError(f"{str(path)!r} is no name of a file: give one that ends in .mp4 or .mkv")
    if not path.parent.is_dir():
        raise VideoError(f"no such folder: {path.parent}: make it before writing {path.name}")
    height, width = frames.shape[1:3]
    part = path.with_name(f".{os.getpid()}-{path.name}")  # a full disk leaves nothing behind, and what was there stays
    try:
        with av.open(f"file:{part}", "w", container_options={"fflags": "+bitexact"}) as container:
            # x264's assembler reads memory that nobody has written, and about one clip in ten then differs by a few
            # bytes; its plain C code and one thread give the same bytes every time, three times as slowly
            options = {"crf": "10", "preset": "medium", "threads": "1", "x264-params": "asm=0"}
            rate = Fraction(fps).limit_denominator(10_000)
            stream = container.add_stream("libx264", rate=rate, options=options)
            stream.width, stream.height = width, height
            stream.pix_fmt = "yuv420p" if height % 2 == width % 2 == 0 else "yuv444p"
            for pixels in frames.numpy():
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode(None))
        os.replace(part, path)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        why = "make room" if getattr(error, "errno", None) == errno.ENOSPC else "give a name that ends in .mp4 or .mkv"
        raise VideoError(f"cannot write {path} ({error}): {why}") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return path
