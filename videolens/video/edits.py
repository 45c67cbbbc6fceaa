"""Edits of a video: the same number of frames at the same times, with something else in some places.

An edit changes what stands in the places of a clip's frames and never how many there are or when they are shown, so a
prompt made from an edited clip has the same layout as one made from the clip itself: a counterfactual pair for
comparing and patching activations. An edit is data. It is applied, and frame numbers are checked, when frames are first
looked at: until then the files that they come from may stay unread.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import index
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from videolens.errors import VideoError
from videolens.notebook import Shown

NAMES = ("reversed", "shuffled", "frozen", "blank", "swapped", "replaced")
"""The methods of `Video` that make edited copies."""


See = Callable[[int, Sequence[int], UInt8[Tensor, "h w c"]], None]
"""Called with (how many frames a clip has, in which of its places a frame stands, the frame's pixels) for every frame,
in any order. Reading can have to begin anew: what is said last of a place counts."""


class Film(Shown, ABC):
    """Something that frames can come from: a `Video`."""

    @abstractmethod
    def each_frame(self, see: See) -> None:
        """Call `see` with every frame, one after the other: they need not be in memory together."""

    def map_frames(self, change: Callable[[UInt8[Tensor, "h w c"], int], Tensor]) -> Tensor:
        """What `change` makes of every frame, which it gets with the number of frames: [t …], one for each.

        Frames are read, changed and let go one after the other: the result and one frame are in memory, not the clip.

        >>> small = video.map_frames(lambda frame, n: frame[::8, ::8])
        """
        made: Tensor | None = None

        def see(n: int, places: Sequence[int], pixels: Tensor) -> None:
            nonlocal made
            one = change(pixels, n)
            if made is None or made.shape != (n, *one.shape):
                made = one.new_empty(n, *one.shape)
            made[list(places)] = one

        self.each_frame(see)
        assert made is not None  # no clip is without a frame
        return made


class Place(NamedTuple):
    """What is shown in the place of one frame.

    number: of a frame, counted from 0; or a grey level, 0 (black) to 255 (white).
    of: what the frame belongs to: the clip itself, another clip, or "grey".
    """

    number: int
    of: Film | Literal["own", "grey"] = "own"


@runtime_checkable
class Edit(Protocol):
    """Something else in some places. Its text says what it is, as in the `repr` of a video."""

    def __call__(self, places: list[Place]) -> list[Place]:
        """The places afterwards, as many as before; a `VideoError` if it names a frame that the clip does not have."""
        ...


@dataclass(frozen=True)
class Reversed:
    """The opposite order."""

    def __call__(self, places: list[Place]) -> list[Place]:
        return places[::-1]

    def __str__(self) -> str:
        return "reversed"


@dataclass(frozen=True)
class Shuffled:
    """A random order, the same for the same seed and number of frames."""

    seed: int

    def __post_init__(self) -> None:
        if _whole(self.seed, "the seed") < 0:
            raise VideoError(f"the seed is {self.seed}: give a whole number from 0 on")

    def __call__(self, places: list[Place]) -> list[Place]:
        return [places[i] for i in np.random.default_rng(self.seed).permutation(len(places))]

    def __str__(self) -> str:
        return f"shuffled {self.seed}"


@dataclass(frozen=True)
class Frozen:
    """One frame in the place of all."""

    frame: int

    def __post_init__(self) -> None:
        _whole(self.frame, "the frame")

    def __call__(self, places: list[Place]) -> list[Place]:
        return [places[_within(self.frame, len(places), f"frozen({self.frame})")]] * len(places)

    def __str__(self) -> str:
        return f"frozen {self.frame}"


@dataclass(frozen=True)
class Swapped:
    """Two frames change places."""

    i: int
    j: int

    def __post_init__(self) -> None:
        _whole(self.i, "the first frame")
        _whole(self.j, "the second frame")

    def __call__(self, places: list[Place]) -> list[Place]:
        i, j = (_within(number, len(places), f"swapped({self.i}, {self.j})") for number in (self.i, self.j))
        after = list(places)
        after[i], after[j] = places[j], places[i]
        return after

    def __str__(self) -> str:
        return f"swapped {self.i} and {self.j}"


@dataclass(frozen=True)
class Blank:
    """One grey level in the place of all frames."""

    level: int

    def __post_init__(self) -> None:
        if not 0 <= _whole(self.level, "the grey level") <= 255:
            raise VideoError(f"grey level {self.level}: give 0 (black) to 255 (white)")

    def __call__(self, places: list[Place]) -> list[Place]:
        return [Place(self.level, "grey")] * len(places)

    def __str__(self) -> str:
        return f"blank {self.level}"


@dataclass(frozen=True)
class Replaced:
    """Frames of another clip in the place of frames first … stop − 1; `frames` None: those with the same numbers."""

    first: int
    stop: int | None
    other: Film
    frames: tuple[int, ...] | None = None

    def __init__(self, first: int, stop: int | None, other: Film, frames: Sequence[int] | None = None) -> None:
        if not isinstance(other, Film):
            raise VideoError(f"the other clip is {other!r}: give a Video, such as Video.from_file(path)")
        if frames is not None and (isinstance(frames, str) or not hasattr(frames, "__iter__")):
            raise VideoError(f"frames is {frames!r}: give a number for each, such as [0, 0, 1]")
        put = object.__setattr__
        put(self, "first", _whole(first, "the first frame"))
        put(self, "stop", None if stop is None else _whole(stop, "the frame to stop before"))
        put(self, "other", other)
        put(self, "frames", None if frames is None else tuple(_whole(each, "a frame") for each in frames))

    def __call__(self, places: list[Place]) -> list[Place]:
        n = len(places)
        first = self.first + n if self.first < 0 else self.first
        stop = n if self.stop is None else self.stop + n if self.stop < 0 else self.stop
        if not 0 <= first < stop <= n:
            raise VideoError(
                f"replaced({self.first}, {self.stop}, …): frames {first} to {stop - 1} are not a span of the clip, "
                f"which has frames 0 to {n - 1}: give 0 ≤ first < stop ≤ {n}, or both counted from the end"
            )
        numbers = range(first, stop) if self.frames is None else self.frames
        if len(numbers) != stop - first:
            raise VideoError(
                f"replaced({self.first}, {self.stop}, …) takes the place of {stop - first} frames, but {len(numbers)} "
                "frames of the other clip were named: name one for each"
            )
        return [*places[:first], *(Place(number, self.other) for number in numbers), *places[stop:]]

    def __str__(self) -> str:
        stop = "the end" if self.stop is None else self.stop
        frames = "" if self.frames is None else f"frames {', '.join(map(str, self.frames))} of "
        return f"from {self.first} up to {stop} replaced by {frames}{self.other!r}"


def edited(n_frames: int, edits: Sequence[Edit]) -> list[Place]:
    """What is shown in each of a clip's places after its edits, one after the other."""
    places = [Place(number) for number in range(n_frames)]
    for edit in edits:
        places = edit(places)
    return places


def see_edited(own: Callable[[See], None], edits: Sequence[Edit], see: See) -> None:
    """Show every frame of an edited clip, one after the other, where `own` shows those of the clip itself.

    All of the clip's own frames are read, also those that the edits leave out: a damaged clip stays one.

    Raises:
        VideoError: another clip has not the frame that was named, or frames of another size.
    """
    places: list[Place] = []
    at: dict[int, list[int]] = {}
    shape: tuple[int, ...] = ()

    def see_own(n: int, numbers: Sequence[int], pixels: UInt8[Tensor, "h w c"]) -> None:
        nonlocal places, at, shape
        if len(places) != n or tuple(pixels.shape) != shape:
            places, shape = edited(n, edits), tuple(pixels.shape)
            at = _placed(places, "own")
        if here := [i for number in numbers for i in at.get(number, ())]:
            see(n, here, pixels)

    own(see_own)
    for film in {id(place.of): place.of for place in places}.values():
        if film == "grey":
            for level, here in _placed(places, "grey").items():
                see(len(places), here, torch.full(shape, level, dtype=torch.uint8))
        elif not isinstance(film, str):
            _see_other(film, places, shape, see)


def _placed(places: Sequence[Place], of: Film | str) -> dict[int, list[int]]:
    """Number → the places where that frame (or level) of a clip is shown."""
    found: dict[int, list[int]] = {}
    for i, place in enumerate(places):
        if place.of == of:
            found.setdefault(place.number, []).append(i)
    return found


def _see_other(film: Film, places: Sequence[Place], shape: tuple[int, ...], see: See) -> None:
    at: dict[int, list[int]] = {}

    def see_one(n: int, numbers: Sequence[int], pixels: UInt8[Tensor, "h w c"]) -> None:
        if pixels.shape != shape:
            (height, width), (own_height, own_width) = pixels.shape[:2], shape[:2]
            raise VideoError(
                f"{film!r} has frames of {height} × {width} pixels, the clip that they are to be put into frames of "
                f"{own_height} × {own_width}: bring them to one size first, and give Video.from_array(frames, fps=…)"
            )
        if not at:
            for number, here in _placed(places, film).items():
                at.setdefault(_within(number, n, f"frame {number} of {film!r}"), []).extend(here)
        if here := [i for number in numbers for i in at.get(number, ())]:
            see(len(places), here, pixels)

    film.each_frame(see_one)


def _whole(number: int, what: str) -> int:
    try:
        return index(number)
    except TypeError as error:
        raise VideoError(f"{what} is {number!r}: give a whole number") from error


def _within(number: int, n: int, what: str) -> int:
    """A frame number as Python has them: −1 is the last."""
    if not -n <= number < n:
        raise VideoError(f"{what}: the clip has frames 0 to {n - 1}")
    return number % n
