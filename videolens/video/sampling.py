"""Which frames of a video to take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import index

import numpy as np
from jaxtyping import Float64

from videolens.errors import VideoError, check_whole, is_number, near

Sampler = Callable[[int, int, int], Sequence[int]]
"""(first frame, last frame, how many) → the frames to take."""


def midpoints(first: int, last: int, n: int) -> list[int]:
    """The middle of each of `n` equal segments (Map the Flow, as LLaVA and InternVL sample).

    >>> midpoints(0, 16, 8)
    [1, 3, 5, 7, 9, 11, 13, 15]
    """
    segment = (last - first) / n
    return [int(first + segment / 2 + round(segment * i)) for i in range(n)]


def uniform(first: int, last: int, n: int) -> list[int]:
    """Evenly spaced from the first frame to the last (as VideoLLaMA3 samples)."""
    return np.linspace(first, last, n, dtype=np.int64).tolist()


def stride(first: int, last: int, n: int) -> list[int]:
    """Every so many frames from the first, the last one repeated when there are too few (as LongVideoBench samples)."""
    step = max(1, (last - first + 1) // n)
    return [min(first + step * i, last) for i in range(n)]


SAMPLINGS: dict[str, Sampler] = {"midpoints": midpoints, "uniform": uniform, "stride": stride}

BY_TIME = "time"
"""The sampling that spaces frames by their times: those on view in the middle of `n` equal stretches of time."""

Sampling = str | Sampler | Sequence[int]
"""A name in `SAMPLINGS`, "time", a function, or frame numbers."""


MOST_REPEATED = 1024
"""Frames up to which those of a source that has fewer are repeated."""

COLOUR_MATRICES = {"bt601": "ITU601", "bt709": "ITU709"}
"""Ways to turn stored colours into red, green and blue, by the names that PyAV has for them."""


@dataclass(frozen=True)
class Chosen:
    """The frames that a request takes of a source.

    Attributes:
        numbers: of the frames, counted from 0.
        n_part: frames in the part that they were taken from.
        steps: the shortest and the longest time from one frame of that part to the next, in seconds.
    """

    numbers: list[int]
    n_part: int
    steps: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Request:
    """Which frames are wanted of a source called `name`: `n_frames` of the part from `start` to `end`, in seconds.

    `colour_matrix`: by which their colours are read; None: as the file states.

    Raises:
        VideoError: unknown sampling or colour matrix, n_frames < 1, or times that no video could have.
    """

    n_frames: int
    start: float | int | None
    end: float | int | None
    sampling: Sampling
    name: str
    colour_matrix: str | None = None

    def __post_init__(self) -> None:
        names = (*SAMPLINGS, BY_TIME)
        if not isinstance(self.sampling, str) and not callable(self.sampling):
            try:
                object.__setattr__(self, "sampling", tuple(index(i) for i in self.sampling))
            except TypeError as error:
                raise VideoError(
                    f"sampling is {self.sampling!r}: give one of {', '.join(map(repr, names))}, a function, or "
                    "frame numbers as whole numbers"
                ) from error
        if isinstance(self.sampling, str) and self.sampling not in names:
            raise VideoError(near(self.sampling, names, kind="sampling") + ", a function, or frame numbers")
        if self.colour_matrix is not None and self.colour_matrix not in COLOUR_MATRICES:
            raise VideoError(near(self.colour_matrix, COLOUR_MATRICES, kind="colour matrix"))
        check_whole(f"of {self.name}, n_frames", self.n_frames, least=1, error=VideoError)
        for name, value in (("start", self.start), ("end", self.end)):
            if value is not None and not is_number(value):
                raise VideoError(f"{name} is {value!r}: give seconds, or None for the whole of {self.name}")
        if self.start is not None and self.start < 0:
            raise VideoError(f"start is {self.start} s, before {self.name} begins: give a time from 0 s on")
        if self.end is not None and (self.start or 0) >= self.end:
            raise VideoError(f"start {self.start or 0} s is not before end {self.end} s in {self.name}: exchange them?")

    def part(self, seconds: Float64[np.ndarray, " n"], fps: float | int) -> tuple[int, int]:
        """(first, last) frame number of the part that is wanted.

        Seconds are those of the file's clock: the part is the frames with start ≤ time ≤ end. Where frame i is shown at
        i / fps, as in most files, it is what is published, first = max(0, round(start·fps)) and last =
        min(round(end·fps), n − 1), which can reach half a frame further.

        Raises:
            VideoError: no frame is shown between start and end.
        """
        n = len(seconds)
        if np.abs(seconds - np.arange(n) / fps).max() <= 0.001 + 0.01 / fps:  # mkv and FLV round times to 1 ms
            last = n - 1 if self.end is None else min(round(self.end * fps), n - 1)
            return 0 if self.start is None else min(max(0, round(self.start * fps)), last), last
        first = 0 if self.start is None else int(np.searchsorted(seconds, self.start, side="left"))
        last = n - 1 if self.end is None else int(np.searchsorted(seconds, self.end, side="right")) - 1
        if first > last:
            around = [f"{seconds[i]:.2f} s" for i in (last, first) if 0 <= i < n]
            raise VideoError(
                f"no frame of {self.name} begins to be shown between start {self.start or 0} s and end {self.end} s: "
                f"choose times around those next to them ({', '.join(around)})"
            )
        return first, last

    def __call__(self, seconds: Float64[np.ndarray, " n"], fps: float | int, duration: float) -> Chosen:
        """Frame numbers, of a source whose frames are shown at `seconds`.

        Annotated ends often lie a little behind the last frame, so up to a second is forgiven. A part or frame number
        outside the source is a `VideoError`.
        """
        n_source = len(seconds)
        n_wanted = len(self.sampling) if isinstance(self.sampling, tuple) else self.n_frames
        if n_wanted > max(MOST_REPEATED, n_source):
            raise VideoError(
                f"{n_wanted} frames were asked of {self.name}, which has {n_source}: frames are repeated up to "
                f"{MOST_REPEATED} in all, so ask for at most {max(MOST_REPEATED, n_source)}"
            )
        for name, value, latest in (("start", self.start, duration), ("end", self.end, duration + 1)):
            if value is not None and (value > latest or (name == "start" and value == latest)):
                raise VideoError(
                    f"{name} {value} s lies outside {self.name}, which lasts {duration:.2f} s ({n_source} frames at "
                    f"{fps:.4g} per second): choose times inside it"
                )
        first, last = self.part(seconds, fps)
        sampling = SAMPLINGS.get(self.sampling) if isinstance(self.sampling, str) else self.sampling
        if sampling is None:
            chosen = self._by_time(seconds, first, last, duration)
        else:
            chosen = [int(i) for i in (sampling(first, last, self.n_frames) if callable(sampling) else sampling)]
        if not chosen or min(chosen) < 0 or max(chosen) >= n_source:
            raise VideoError(f"frames {chosen} were asked of {self.name}, whose frames run from 0 to {n_source - 1}")
        steps = np.diff(seconds[first : last + 1])
        return Chosen(chosen, last - first + 1, (float(steps.min()), float(steps.max())) if len(steps) else (0.0, 0.0))

    def _by_time(self, seconds: Float64[np.ndarray, " n"], first: int, last: int, duration: float) -> list[int]:
        """The frames on view in the middle of n equal stretches of time, from start (or the first) to end."""
        begin = float(seconds[first]) if self.start is None else self.start
        end = duration if self.end is None else min(self.end, duration)
        middles = begin + (end - begin) / self.n_frames * (np.arange(self.n_frames) + 0.5)
        return np.clip(np.searchsorted(seconds, middles, side="right") - 1, first, last).tolist()
