"""Which frames of a video to take."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from operator import index

import numpy as np

from videolens.errors import VideoError, near

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

Sampling = str | Sampler | Sequence[int]
"""A name in `SAMPLINGS`, a function, or frame numbers."""


@dataclass(frozen=True)
class Request:
    """Which frames are wanted of a source called `name`: `n_frames` of the part from `start` to `end`, in seconds.

    Raises:
        VideoError: unknown sampling, n_frames < 1, or times that no video could have.
    """

    n_frames: int
    start: float | int | None
    end: float | int | None
    sampling: Sampling
    name: str

    def __post_init__(self) -> None:
        if not isinstance(self.sampling, str) and not callable(self.sampling):
            try:
                object.__setattr__(self, "sampling", tuple(index(i) for i in self.sampling))
            except TypeError as error:
                raise VideoError(
                    f"sampling is {self.sampling!r}: give one of {', '.join(map(repr, SAMPLINGS))}, a function, or "
                    "frame numbers as whole numbers"
                ) from error
        if isinstance(self.sampling, str) and self.sampling not in SAMPLINGS:
            raise VideoError(near(self.sampling, SAMPLINGS, kind="sampling") + ", a function, or frame numbers")
        if not isinstance(self.n_frames, Integral) or self.n_frames < 1:
            raise VideoError(
                f"n_frames is {self.n_frames!r}: ask for at least one frame of {self.name}, a whole number"
            )
        for name, value in (("start", self.start), ("end", self.end)):
            if value is not None and not (isinstance(value, Real) and math.isfinite(value)):
                raise VideoError(f"{name} is {value!r}: give seconds, or None for the whole of {self.name}")
        if self.start is not None and self.start < 0:
            raise VideoError(f"start is {self.start} s, before {self.name} begins: give a time from 0 s on")
        if self.end is not None and (self.start or 0) >= self.end:
            raise VideoError(f"start {self.start or 0} s is not before end {self.end} s in {self.name}: exchange them?")

    def part(self, n_source: int, fps: float | int) -> tuple[int, int]:
        """(first, last) frame number of the part that is wanted."""
        last = n_source - 1 if self.end is None else min(round(self.end * fps), n_source - 1)
        return 0 if self.start is None else min(max(0, round(self.start * fps)), last), last

    def __call__(self, n_source: int, fps: float | int, duration: float) -> list[int]:
        """Frame numbers: with first = max(0, round(start·fps)) and last = min(round(end·fps), n_source − 1).

        Annotated ends often lie a little behind the last frame, so up to a second is forgiven. A part or frame number
        outside the source is a `VideoError`.
        """
        for name, value, latest in (("start", self.start, duration), ("end", self.end, duration + 1)):
            if value is not None and (value > latest or (name == "start" and value == latest)):
                raise VideoError(
                    f"{name} {value} s lies outside {self.name}, which lasts {duration:.2f} s ({n_source} frames at "
                    f"{fps:.4g} per second): choose times inside it"
                )
        first, last = self.part(n_source, fps)
        sampling = SAMPLINGS[self.sampling] if isinstance(self.sampling, str) else self.sampling
        chosen = sampling(first, last, self.n_frames) if callable(sampling) else sampling
        chosen = [int(i) for i in chosen]
        if not chosen or min(chosen) < 0 or max(chosen) >= n_source:
            raise VideoError(f"frames {chosen} were asked of {self.name}, whose frames run from 0 to {n_source - 1}")
        return chosen
