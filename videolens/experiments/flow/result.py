"""The result of tracing flow: how far the answer's probability falls when a route is cut in a window of layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Float

from videolens.errors import VideolensError
from videolens.experiments.common.experiment import Skip
from videolens.experiments.common.result import Result
from videolens.experiments.common.statistics import Interval, Within, bootstrap, bootstrap_curve, centre
from videolens.experiments.flow.measures import ShareRight, measure_named, open_layers, share_right
from videolens.experiments.flow.split import FlowSplit, split_flow
from videolens.experiments.flow.table import FlowRow, FlowSettings, check_table
from videolens.interventions.knockout import route_name


@dataclass(frozen=True, eq=False)
class Curve:
    """Mean change per knockout, with its 95 % bootstrap band, over n questions.

    Attributes:
        layers: 0-based layer that names each knockout: the centre of its window, unless the style is another.
        mean, low, high: in the unit of the measure (percent, unless another was asked for).
        unknown: questions along the route that are not among the n: there the measure is not known.
    """

    mean: Float[np.ndarray, " layer"]
    low: Float[np.ndarray, " layer"]
    high: Float[np.ndarray, " layer"]
    n: int
    layers: tuple[int, ...]
    unknown: int = 0


@dataclass(frozen=True, eq=False)
class FlowMap(Result):
    """One row per question, route and knockout, and how it was made.

    What its methods measure is the relative change of the followed answer's probability, unless `measure` names another
    of `MEASURES`.

    Attributes:
        table: one `FlowRow` each; every question and route has all knockouts (`settings.cuts`), in order.
        settings: how it was made.

    Raises:
        VideolensError: the table contradicts itself or the settings.
    """

    table: pd.DataFrame
    settings: FlowSettings

    _called: ClassVar[str] = "flow map"
    _files: ClassVar[dict[str, str]] = {"table": "flow.parquet", "settings": "flow.json"}
    _tables: ClassVar[dict[str, Any]] = {"table": FlowRow}
    _route: ClassVar[str | None] = "route"

    def check(self) -> None:
        """Every question and route has every knockout, and its numbers fit together."""
        check_table(self.table, self.settings)

    @property
    def routes(self) -> list[str]:
        """Routes, in the order in which they were traced."""
        return list(self._of_route)

    @cached_property
    def _of_route(self) -> dict[str, pd.DataFrame]:
        """The rows of each route: every measurement begins with one of them, or with those of a task in it."""
        return dict(iter(self.table.groupby("route", sort=False)))

    @cached_property
    def _of_task(self) -> dict[tuple[str, str], pd.DataFrame]:
        """The rows of each task along each route."""
        return {(route, task): rows for (route, task), rows in self.table.groupby(["route", "task"], sort=False)}

    @cached_property
    def _layers(self) -> tuple[int, ...]:
        """What names each knockout of a route."""
        return tuple(self.settings.cuts)

    def by_question(self, route: str, *, task: str | None = None, measure: str = "answer") -> pd.DataFrame:
        """The change of every question (index: task, question) by every knockout (columns: its layer).

        NaN where the measure is not known, as that of a right option is where no answer was given.

        Raises:
            SelectionError: the route or the task is not in this map.
            VideolensError: no such measure.
        """
        asked = self._rows(route, task)[["task", "question"]].iloc[:: len(self._layers)]
        return pd.DataFrame(
            self._values(route, task, measure),
            index=pd.MultiIndex.from_frame(asked),
            columns=pd.Index(self._layers, name="layer"),
        )

    def changes(
        self, route: str, *, task: str | None = None, measure: str = "answer"
    ) -> Float[np.ndarray, "question layer"]:
        """The change of every question for which it is known, by every knockout. `task` None: all tasks.

        Raises:
            SelectionError: the route or the task is not in this map.
            VideolensError: no such measure.
        """
        values = self._values(route, task, measure)
        return values[~np.isnan(values).any(axis=1)]

    def within(self, route: str, *, task: str | None = None, measure: str = "answer") -> Within | None:
        """The least and the greatest change that a question along a route can have, on average: how far questions that
        were not asked could take the mean. None: the measure has no ends (logits), or is known of no question.

        Raises:
            SelectionError: the route or the task is not in this map.
            VideolensError: no such measure.
        """
        return measure_named(measure).within(self._rows(route, task))

    def curve(self, route: str, *, task: str | None = None, measure: str = "answer") -> Curve:
        """Mean change by every knockout with its interval.

        Raises:
            SelectionError: the route or the task is not in this map.
            VideolensError: no question of that task was traced along that route, or of none the measure is known.
        """
        changes = self.changes(route, task=task, measure=measure)
        n = len(self._rows(route, task)) // len(self._layers)
        if n and not len(changes):
            raise VideolensError(f"{measure!r} is not known of any of the {n} questions along {route!r}")
        within = self.within(route, task=task, measure=measure)
        mean, low, high = bootstrap_curve(changes, within=within, seed=self.settings.seed)
        return Curve(mean, low, high, n=len(changes), layers=self._layers, unknown=n - len(changes))

    def accuracy(self, route: str, *, task: str | None = None, among: str = "all tokens") -> ShareRight:
        """Share of questions answered rightly when the route is cut, by every knockout, and the drop in points.

        It is an accuracy only if all questions were traced (`samples="all"`); `ShareRight.kind` says what it is.
        `among`: "all tokens", the token ranked first of all is the right one; "options", of the options' tokens.

        Raises:
            SelectionError: the route or the task is not in this map.
            VideolensError: of no question the right answer is known.
        """
        made = self.settings
        return share_right(self._rows(route, task), self._layers, samples=made.samples, among=among, seed=made.seed)

    def effect(self, route: str, *, task: str | None = None, measure: str = "answer") -> Interval:
        """Mean change over all knockouts."""
        changes = self.changes(route, task=task, measure=measure)
        within = self.within(route, task=task, measure=measure)
        return bootstrap(changes, lambda curves: curves.mean(axis=-1), within=within, seed=self.settings.seed)

    def peak(self, route: str, *, task: str | None = None, measure: str = "answer") -> tuple[int, Interval]:
        """(layer, change there) where the mean change is deepest.

        The layer is chosen once, on all questions; the interval is that of the change at this layer.
        """
        changes = self.changes(route, task=task, measure=measure)
        layer = self._layers[int(changes.mean(axis=0).argmin()) if len(changes) else 0]
        return layer, self.change(route, layer, task=task, measure=measure)

    def change(self, route: str, layer: int, *, task: str | None = None, measure: str = "answer") -> Interval:
        """Mean change by the knockout that stands at one layer.

        Raises:
            VideolensError: no knockout stands there; or as `curve`.
        """
        if layer not in self._layers:
            raise VideolensError(
                f"no knockout of {self!r} stands at layer {layer!r}: they stand at {list(self._layers)}"
            )
        at, changes = self._layers.index(layer), self.changes(route, task=task, measure=measure)
        within = self.within(route, task=task, measure=measure)
        return bootstrap(changes, lambda curves: curves[..., at], within=within, seed=self.settings.seed)

    def noise_floor(self, route: str, *, task: str | None = None, measure: str = "answer") -> float:
        """What rounding alone makes of a mean change, in percent or points: 95 % of means of noise lie within ± this.

        0 in float32, in maps that were made before noise was measured, and of logits, for which it is not.
        `settings.noise` is that of one question; rounding of different questions has nothing to do with each other, so
        in a mean it shrinks as 1 / √n.
        """
        n, noise = len(self.changes(route, task=task, measure=measure)), self.settings.noise
        return 0.0 if noise is None or not n or measure_named(measure).unit == "logits" else 1.96 * noise / n**0.5

    def centre(self, route: str, *, task: str | None = None, measure: str = "answer") -> Interval:
        """The 0-based layer the effect centres on: mean layer, weighted by how far the mean change falls below zero.

        NaN unless the style is "centre": of other cuts it would not say where in depth the effect lies.
        """
        changes = self.changes(route, task=task, measure=measure)
        if self.settings.style != "centre":
            return Interval(np.nan, np.nan, np.nan, len(changes))
        return bootstrap(changes, centre, seed=self.settings.seed)

    def open_layers(
        self,
        route: str,
        *,
        threshold: float | int = -5,
        bin: int | None = None,
        groups: Sequence[str | None] = (None,),
        measure: str = "answer",
    ) -> list[int]:
        """0-based layers of the bins in which the mean change along a route is below a threshold: what
        `Pathway.from_flow` opens.

        Args:
            route: one of this map's routes.
            threshold: in the unit of the measure.
            bin: neighbouring layers in a bin; None: `default_bin`.
            groups: tasks; None stands for all questions together. A bin is open if any of the groups opens it.
            measure: of the change.

        Raises:
            SelectionError: the route or a task is not in this map.
            VideolensError: a threshold that is no number, a bin that does not fit, no such measure, or a route along
                which it is known of no question.
        """
        return open_layers(self, route, threshold=threshold, bin=bin, groups=groups, measure=measure)

    def split(self, route: str = "cross-frame", *, by: str = "mean") -> FlowSplit:
        """The questions in groups, by whether cutting `route` lowers or raises the followed answer's probability.

        See `split_flow`. The failed ones among a model's answers (`samples="wrong"`) are such two groups in the paper.
        """
        return split_flow(self, route, by=by)

    def of(self, questions: Sequence[tuple[str, str]], *, reason: str) -> FlowMap:
        """The map of some questions, by (task, question); the others are recorded as left out, with the reason.

        Raises:
            VideolensError: none of them is in this map.
        """
        chosen = set(questions)
        pairs = list(zip(self.table["task"], self.table["question"], strict=True))
        kept = np.array([pair in chosen for pair in pairs])
        out = tuple(Skip(name, task, None, reason) for task, name in dict.fromkeys(pairs) if (task, name) not in chosen)
        made = replace(self.settings, skipped=self.settings.skipped + out)
        return FlowMap(self.table[kept].reset_index(drop=True), made)

    def summary(self, *, measure: str = "answer") -> pd.DataFrame:
        """Per task ("all": every question) and route: effect, deepest window and centre, each with its 95 % interval.

        Columns: task, route, n, effect_percent, effect_low, effect_high, peak_layer, peak_percent, peak_low, peak_high,
        centre, centre_low, centre_high; for other measures with their unit instead of percent. Layers count from 0.
        """
        rows, unit = [], f"_{measure_named(measure).unit}"
        for task in [None, *self.tasks]:
            for route in self.routes:
                about: dict[str, Any] = {"task": task, "measure": measure}
                if len(self.changes(route, **about)) == 0:
                    continue
                layer, peak = self.peak(route, **about)
                row: dict[str, Any] = {"task": "all" if task is None else task, "route": route, "n": peak.n}
                row |= self.effect(route, **about).columns("effect", unit=unit) | {"peak_layer": layer}
                row |= peak.columns("peak", unit=unit) | self.centre(route, **about).columns("centre")
                rows.append(row)
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        made = self.settings
        return (
            f"FlowMap({made.model!r}, {self.n} of {made.n_asked} questions ({made.samples}), "
            f"{len(self.routes)} routes, {made.n_layers} layers, "
            + (f"window {made.window})" if made.style == "centre" else f"cut: {made.style})")
        )

    def _values(self, route: str, task: str | None, measure: str) -> Float[np.ndarray, "question layer"]:
        """The change of every question; NaN where it is not known."""
        return measure_named(measure).of(self._rows(route, task)).reshape(-1, len(self._layers))

    def _rows(self, route: str, task: str | None) -> pd.DataFrame:
        route = self._known("route", route_name(route), list(self._of_route))
        if task is None:
            return self._of_route[route]
        rows = self._of_task.get((route, self._known("task", task, self.tasks)))
        return self._of_route[route].iloc[:0] if rows is None else rows
