"""Exact and full in turn, on the same model, prompt and machine."""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from perf_timing import median, seconds
from torch import Tensor

import videolens as vl
from videolens.engine import plan, sweep
from videolens.engine.full import full_logits
from videolens.experiments.flow.plan import route_knockouts
from videolens.interventions.layer_sets import default_window
from videolens.prompt.prompt import Prompt

__all__ = ["Comparison", "Rounds", "knockouts_of"]


def knockouts_of(model: vl.HookedVideoTransformer, prompt: Prompt, routes: Sequence[str]) -> list[vl.Knockout]:
    """Every window of some routes, route by route."""
    n_layers = model.cfg.n_layers
    return route_knockouts(prompt, routes, default_window(n_layers), n_layers)[0]


@dataclass(frozen=True)
class Comparison:
    """Exact against full for some routes; times are medians of the rounds.

    Attributes:
        routes: how many.
        full_s: seconds of the published procedure, scaled from the pairs that were timed.
        exact_s: seconds of the exact engine.
        ratio: median of the rounds' ratios.
        floor: how many times fewer operations the exact way takes where memory is no limit.
        apart: largest |Δlogit| over the pairs, in standard deviations of the logits.
        moved: median of what the pairs' knockouts do to the logits, in the same unit.
        pairs: (route, window) pairs timed in full, all rounds together.
    """

    routes: int
    full_s: float
    exact_s: float
    ratio: float
    floor: float
    apart: float
    moved: float
    pairs: int

    HEAD = (
        "routes",
        "full, s",
        "exact, s",
        "ratio",
        "floor",
        "share of floor, %",
        "max Δlogit, std",
        "knockouts' median, std",
        "pairs timed",
    )

    @property
    def row(self) -> tuple[Any, ...]:
        """As the table has it."""
        share = 100 * self.ratio / self.floor
        return (
            self.routes,
            self.full_s,
            self.exact_s,
            self.ratio,
            self.floor,
            share,
            self.apart,
            self.moved,
            self.pairs,
        )


class Rounds:
    """Repeated timings of both ways. `options` has rounds, pairs, seed and max_memory."""

    def __init__(self, model: vl.HookedVideoTransformer, prompt: Prompt, options: argparse.Namespace) -> None:
        self.model, self.prompt, self.options = model, prompt, options
        self.n_layers = model.cfg.n_layers
        self.knockouts = {route: knockouts_of(model, prompt, [route]) for route in vl.ROUTES}
        self.random = random.Random(options.seed)
        self.unblocked = full_logits(model, prompt, ())
        self.spread = float(self.unblocked.std())

    def compare(self, *choices: Sequence[str]) -> list[Comparison]:
        """One comparison for each choice of routes, from the same rounds."""
        rounds = [self._round(choices) for _ in range(self.options.rounds)]
        return [self._summary(routes, [one[i] for one in rounds]) for i, routes in enumerate(choices)]

    def _round(self, choices: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
        """1. Time the unblocked forward and some pairs in full. 2. Time the exact engine on every choice of routes."""
        base_s, _ = seconds(lambda: full_logits(self.model, self.prompt, ()))
        drawn = self._draw()
        full = {pair: seconds(lambda pair=pair: self._full(*pair)) for pair in drawn}
        return [self._exact(routes, base_s, full) for routes in choices]

    def _draw(self) -> list[tuple[str, int]]:
        """(route, layer) pairs: one of every route, and the rest of any."""
        every = [(route, layer) for route in vl.ROUTES for layer in range(self.n_layers)]
        if self.options.pairs >= len(every):
            return every
        first = [(route, self.random.randrange(self.n_layers)) for route in vl.ROUTES]
        others = [pair for pair in every if pair not in first]
        return first + self.random.sample(others, max(0, self.options.pairs - len(first)))

    def _full(self, route: str, layer: int) -> Tensor:
        return full_logits(self.model, self.prompt, self.knockouts[route][layer].hooks(self.prompt))

    def _exact(self, routes: Sequence[str], base_s: float, full: dict[tuple[str, int], Any]) -> dict[str, Any]:
        many = [knockout for route in routes for knockout in self.knockouts[route]]
        exact_s, found = seconds(lambda: sweep(self.model, self.prompt, many, max_memory=self.options.max_memory))
        mine = {pair: timed for pair, timed in full.items() if pair[0] in routes}
        rows = found.logits.view(len(routes), self.n_layers, -1)
        apart = [self._distance(rows[routes.index(route), layer], mine[route, layer][1]) for route, layer in mine]
        each = [[took for (name, _), (took, _) in mine.items() if name == route] for route in routes]
        return {
            "full_s": base_s + self.n_layers * sum(sum(took) / len(took) for took in each),
            "exact_s": exact_s,
            "floor": plan(self.model, self.prompt, many).ratio,
            "apart": max(apart),
            "moved": [self._distance(logits, self.unblocked) for _, logits in mine.values()],
        }

    def _distance(self, ours: Tensor, theirs: Tensor) -> float:
        return float((ours - theirs).abs().max()) / self.spread

    def _summary(self, routes: Sequence[str], rounds: Sequence[dict[str, Any]]) -> Comparison:
        moved = [by for one in rounds for by in one["moved"]]
        return Comparison(
            routes=len(routes),
            full_s=median(one["full_s"] for one in rounds),
            exact_s=median(one["exact_s"] for one in rounds),
            ratio=median(one["full_s"] / one["exact_s"] for one in rounds),
            floor=rounds[0]["floor"],
            apart=max(one["apart"] for one in rounds),
            moved=median(moved),
            pairs=len(moved),
        )
