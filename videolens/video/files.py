"""Clips of files: read when they are looked at, kept as long as there is room, and read again."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor

from videolens.cache import Recent
from videolens.errors import VideoError
from videolens.video.decoding import Clip, read_clip, warn_about
from videolens.video.edits import See
from videolens.video.sampling import Request


@dataclass(frozen=True)
class File:
    """Frames of a file that are decoded when they are first looked at, and again when they have been forgotten.

    `found`: what the file was when it was read, and its clip; None: it is read when it is looked at.
    """

    path: Path
    request: Request
    found: tuple[tuple[int, int] | None, Clip] | None = field(default=None, compare=False)

    def clip(self, see: See | None = None) -> Clip:
        """What is known of the frames: kept from before if the file has not changed, else decoded. `see` is shown each
        frame."""
        decoded = False

        def decode() -> Clip:
            nonlocal decoded
            decoded = True
            return _read(self.path, self.request, see)

        state = _state_of(self.path)
        if self.found is not None:
            if see is not None and self.found[0] != state:
                raise VideoError(f"{self.path} has changed since it was read: read it again (Video.from_file)")
            clip = self.found[1]
        else:
            clip = decode() if state is None else _recent.get((self, *state), decode)
        if see is not None and not decoded:
            if clip.frames is None:
                read_clip(self.path, self.request, self.request.colour_matrix, see)
            else:
                show(clip.frames, see)
        return clip


def read_now(path: Path, request: Request) -> Clip | File:
    """The clip of a file, read at once; the file where the clip is too large to keep."""
    state = _state_of(path)
    clip = _read(path, request)
    return clip if clip.frames is not None else File(path, request, (state, clip))


def _state_of(path: Path) -> tuple[int, int] | None:
    """By which it shows that a file has changed; None: it cannot be looked at, which reading it says in full."""
    try:
        state = path.stat()
    except (OSError, ValueError):
        return None
    return state.st_mtime_ns, state.st_size


def _read(path: Path, request: Request, see: See | None = None) -> Clip:
    """Decode what is requested, and warn about it; `see` is shown each frame."""
    return warn_about(read_clip(path, request, request.colour_matrix, see), request)


def show(frames: UInt8[Tensor, "t h w c"], see: See) -> None:
    """Show frames that are in memory, as copies."""
    for i, frame in enumerate(frames):
        see(len(frames), [i], frame.clone())


_recent: Recent[Clip] = Recent(256 * 2**20, lambda clip: clip.n_bytes)
