"""The result of an attribution: scores of all units, the exact changes of some, and how far the two agree."""

from __future__ import annotations

from dataclasses import dataclass as plain_dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
from pydantic.dataclasses import dataclass

from videolens.errors import VideolensError
from videolens.experiments.attribution.agreement import MEASURES, agreement, agreements
from videolens.experiments.common.provenance import SETTINGS, Made
from videolens.experiments.common.result import Result
from videolens.experiments.common.statistics import Interval

TOP = 15


class AttributionRow(NamedTuple):
    """A unit of a question: a row of the table.

    Attributes:
        question, task: of the question.
        layer: 0-based.
        head: 0-based; missing: all heads at once.
        route: from which keys to which queries.
        pairs: causal (query, key) pairs of the route in this prompt.
        base: the metric with nothing closed.
        score: its estimated change if the unit were closed; below zero: closing it does harm.
        exact: its change when the unit was closed; NaN where it was not.
    """

    question: str
    task: str
    layer: int
    head: int | None
    route: str
    pairs: int
    base: float
    score: float
    exact: float


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class AttributionSettings(Made):
    """How scores were made. Forwards are those of a question; the published way is one forward for every unit.

    Attributes:
        n_layers, n_heads: of the model.
        method: "layer", "local", "gradient" or "integrated".
        metric: what scores are changes of.
        grain: "routes" or "frame pairs".
        heads: whether every head is a unit by itself.
        verify: how many units of every question were closed exactly; "all".
        steps: runs that every score is a mean of.
    """

    n_layers: int
    n_heads: int
    method: str
    metric: str
    grain: str
    heads: bool
    verify: int | str
    steps: int = 1


@plain_dataclass(frozen=True, eq=False)
class Attribution(Result):
    """One row per question and unit. Scores are estimates, a screen: `agreement` says how far they can be trusted.

    Attributes:
        table: one `AttributionRow` each.
        settings: how it was made.

    Raises:
        VideolensError: the table contradicts itself or the settings.
    """

    table: pd.DataFrame
    settings: AttributionSettings

    _called: ClassVar[str] = "attribution"
    _files: ClassVar[dict[str, str]] = {"table": "attribution.parquet", "settings": "attribution.json"}
    _tables: ClassVar[dict[str, Any]] = {"table": AttributionRow}

    def check(self) -> None:
        """Scores are numbers, units are those of the model, and of every question some were closed."""
        table = self.table
        for column in ("base", "score"):
            if not np.isfinite(table[column].to_numpy(dtype=float)).all():
                raise VideolensError(f"the column {column!r} holds values that are no finite numbers: make it anew")
        if not table["layer"].between(0, self.settings.n_layers - 1).all():
            raise VideolensError(f"a layer lies outside 0 … {self.settings.n_layers - 1}")
        if table["head"].isna().any() == self.settings.heads:
            raise VideolensError(f"heads={self.settings.heads}, but the table tells heads apart otherwise")
        if table.duplicated(["task", "question", "layer", "head", "route"]).any():
            raise VideolensError("a unit of a question is there twice")
        closed = table["exact"].notna().groupby([table["task"], table["question"]], sort=False)
        if not closed.any().all():
            raise VideolensError("a question has no unit that was closed exactly: scores alone say nothing")

    # -- units ---------------------------------------------------------------------------------------------------------

    @property
    def routes(self) -> list[str]:
        """Routes, in the order of the queries."""
        return list(self.table["route"].unique())

    def units(self, *, task: str | None = None) -> pd.DataFrame:
        """Every unit over questions, the one with the largest mean magnitude first: layer, head, route, n (questions
        that have it), mean `score`, mean `magnitude` of the score, mean `exact` change of those closed.

        Args:
            task: of these questions only; None: all.
        """
        table = self.table if task is None else self.table[self.table["task"] == self._known("task", task, self.tasks)]
        table = table.assign(magnitude=table["score"].abs())
        grouped = table.groupby(["layer", "head", "route"], sort=False, dropna=False)
        found = grouped.agg(
            n=("score", "size"),
            score=("score", "mean"),
            magnitude=("magnitude", "mean"),
            exact=("exact", "mean"),
        )
        return found.reset_index().sort_values("magnitude", ascending=False, kind="stable", ignore_index=True)

    # -- how far to trust them -----------------------------------------------------------------------------------------

    def measure(self, measure: str, *, route: str | None = None, top: int = TOP) -> Interval:
        """Agreement of scores with the exact changes of the units that were closed, with its 95 % interval.

        Args:
            measure: "spearman", "magnitudes", "signs", "recovered" or "recall": `agreement.MEASURES` says what it is.
            route: of this route only; None: all together.
            top: of "recall", how many units of a question; at most a quarter of those closed.
        """
        self._known("measure of agreement", measure, list(MEASURES))
        closed = self._closed if route is None else self._closed[self._closed["route"] == route]
        if not len(closed):
            self._known("route", str(route), self.routes)
            raise VideolensError(f"no unit of the route {route!r} was closed exactly: raise verify=")
        return agreement(closed, measure, top=top, seed=self.settings.seed)

    def agreement(self, *, top: int = TOP) -> pd.DataFrame:
        """All measures of all routes together ("all") and of each route: how many units were closed, and every measure
        with its 95 % interval (`*_low`, `*_high`)."""
        return pd.DataFrame(agreements(self._closed, top=top, seed=self.settings.seed))

    @property
    def _closed(self) -> pd.DataFrame:
        return self.table[self.table["exact"].notna()]

    def __repr__(self) -> str:
        each = self.table.groupby(["task", "question"], sort=False).size()
        per = f"{each.min()}" if each.min() == each.max() else f"{each.min()}–{each.max()}"
        rho, size, recall = (self.measure(name).value for name in ("spearman", "magnitudes", "recall"))
        return (
            f"Attribution({self.settings.model!r}, {self.n} questions of {per} units, {self.settings.method!r}; "
            f"against {len(self._closed)} exact knockouts: ρ {rho:.2f}, of magnitudes {size:.2f}, recall of the top "
            f"{recall:.2f})"
        )
