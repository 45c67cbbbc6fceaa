"""The causal pairs of a prompt, taken apart into routes: every pair is in exactly one, so nothing leaks around them.

A prompt is cut into *segments*: part P, every frame of part V with its separators and timestamps, part Q, part A
(`videolens.prompt.selections`). A route leads from segments to a segment; the knockout of its name closes its pairs and
no others (`Knockout.route`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

from videolens.errors import SelectionError, VideolensError, near
from videolens.interventions.knockout import OWN_PART, Knockout
from videolens.prompt.selections import PARTS, part_frames, parts
from videolens.prompt.tokens import TokenMap

GRAINS = ("routes", "frame pairs")
"""How finely pairs are told apart: the eleven routes between parts, in which own frame and earlier frames are two; or
every segment from every other, each frame being one."""

PARTITION: tuple[str, ...] = (
    "part P -> part P",
    "part P -> part V",
    OWN_PART,
    "cross-part",
    "part P -> part Q",
    "part V -> part Q",
    "part Q -> part Q",
    "part P -> part A",
    "part V -> part A",
    "part Q -> part A",
    "part A -> part A",
)
"""The routes of the grain "routes", in the order of the queries. "own-part": from a frame's tokens, separators and
timestamps included, to those of the same frame; "cross-part": to those of later frames."""


class KeyGroup(NamedTuple):
    """Neighbouring keys that some rows read along one route.

    Attributes:
        route: index into `Partition.routes`.
        first, stop: the keys are first … stop − 1. Rows among them read those up to their own.
    """

    route: int
    first: int
    stop: int


class Target(NamedTuple):
    """Neighbouring rows, and along which routes they read which keys. Together the groups are all keys up to a row.

    Attributes:
        first, stop: the rows are first … stop − 1.
        groups: of keys, in order.
    """

    first: int
    stop: int
    groups: tuple[KeyGroup, ...]


class Unit(NamedTuple):
    """What is closed at once: a route in one layer; in one head, or (None) in all."""

    layer: int
    head: int | None
    route: str

    @property
    def knockout(self) -> Knockout:
        """The intervention that closes it and nothing else."""
        return Knockout.route(self.route, layers=self.layer, heads=self.head)


@dataclass(frozen=True)
class Partition:
    """The causal pairs of one prompt by route. Nothing in it is larger than the number of segments, squared.

    Attributes:
        grain: one of `GRAINS`.
        segments: names, in the order of the prompt; each is a selection (`TokenMap`).
        starts: the first position of each segment, and at the end the number of positions.
    """

    grain: str
    segments: tuple[str, ...]
    starts: tuple[int, ...]

    @classmethod
    def of(cls, tokens: TokenMap, grain: str = "routes") -> Partition:
        """The partition of a prompt.

        Raises:
            VideolensError: an unknown grain.
            SelectionError: padding, or frames that do not follow one another.
        """
        check_grain(grain)
        part = parts(tokens.role, tokens.frame)
        frame = part_frames(tokens.role, tokens.frame)
        if bool((part < 0).any()):
            raise SelectionError("a padded prompt has no partition: take its single prompts, `for single in prompt`")
        if bool((frame[frame >= 0].diff() < 0).any()):
            raise SelectionError(
                f"the tokens of the frames do not follow one another ({frame[frame >= 0].tolist()[:40]}), so pairs "
                "cannot be told apart by frame: let every token between frames belong to the frame before or after it"
            )
        both = torch.stack([part, frame])
        begins = (both.diff(dim=1) != 0).any(0).nonzero().flatten() + 1
        starts = [0, *begins.tolist()]
        names = [_segment(int(part[at]), int(frame[at])) for at in starts]
        return cls(grain, tuple(names), (*starts, tokens.n_pos))

    @property
    def n_pos(self) -> int:
        """Positions of the prompt."""
        return self.starts[-1]

    @cached_property
    def routes(self) -> tuple[str, ...]:
        """Names of the routes that have pairs in this prompt, each a route of `Knockout.route`."""
        found = dict.fromkeys(name for names in self._names for name in names)
        return tuple(name for name in PARTITION if name in found) if self.grain == "routes" else tuple(found)

    @cached_property
    def targets(self) -> tuple[Target, ...]:
        """For every segment of rows, the groups of keys that they read."""
        found = []
        for t, names in enumerate(self._names):
            groups: list[KeyGroup] = []
            for s, name in enumerate(names):
                route = self.routes.index(name)
                first = groups.pop().first if groups and groups[-1].route == route else self.starts[s]
                groups.append(KeyGroup(route, first, self.starts[s + 1]))
            found.append(Target(self.starts[t], self.starts[t + 1], tuple(groups)))
        return tuple(found)

    @property
    def pairs(self) -> tuple[int, ...]:
        """Causal (query, key) pairs of every route; in all n (n + 1) / 2."""
        counts = [0] * len(self.routes)
        for target in self.targets:
            n = target.stop - target.first
            for route, first, stop in target.groups:
                own = stop == target.stop
                counts[route] += n * ((target.first if own else stop) - first) + (n * (n + 1) // 2 if own else 0)
        return tuple(counts)

    def units(self, n_layers: int, n_heads: int | None = None) -> list[Unit]:
        """Every route in every layer, and in every head if a number of heads is given: layer by layer, head by head."""
        heads = [None] if n_heads is None else range(n_heads)
        return [Unit(*each) for each in product(range(n_layers), heads, self.routes)]

    def route_of(self, queries: Int64[Tensor, " pair"], keys: Int64[Tensor, " pair"]) -> Int64[Tensor, " pair"]:
        """Index into `routes` of causal pairs, key ≤ query."""
        known = {name: i for i, name in enumerate(self.routes)}
        n = len(self.segments)
        table = torch.full((n, n), -1)
        for t, names in enumerate(self._names):
            for s, name in enumerate(names):
                table[t, s] = known[name]
        starts = torch.tensor(self.starts[1:])
        return table[torch.bucketize(queries, starts, right=True), torch.bucketize(keys, starts, right=True)]

    @cached_property
    def _names(self) -> tuple[tuple[str, ...], ...]:
        """Of every target segment, the routes from the segments up to it."""
        name = _between_parts if self.grain == "routes" else "{} -> {}".format
        return tuple(
            tuple(name(source, target) for source in self.segments[: t + 1]) for t, target in enumerate(self.segments)
        )


def check_grain(grain: str) -> None:
    """Raises:
    VideolensError: no such grain.
    """
    if grain not in GRAINS:
        raise VideolensError(near(grain, GRAINS, kind="grain"))


def _segment(part: int, frame: int) -> str:
    return PARTS[part] if frame < 0 else f"{PARTS[part]} frame {frame}"


def coarse_route(route: str) -> str:
    """The route of the grain "routes" that a route of either grain is part of."""
    source, arrow, target = route.partition(" -> ")
    return _between_parts(source, target) if arrow else route


def _between_parts(source: str, target: str) -> str:
    ends = [name.partition(" frame ")[0] for name in (source, target)]
    if ends == ["part V", "part V"]:
        return OWN_PART if source == target else "cross-part"
    return " -> ".join(ends)
