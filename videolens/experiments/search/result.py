"""The result of a search for the smallest pathway: all that was found, judged on questions that it was not found on."""

from __future__ import annotations

from dataclasses import dataclass as plain_dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from pydantic.dataclasses import dataclass

from videolens.errors import VideolensError, near
from videolens.experiments.common.provenance import SETTINGS, Made
from videolens.experiments.common.result import Result
from videolens.experiments.common.statistics import Interval, bootstrap, bootstrap_mean
from videolens.interventions.cut_routes import CutRoutes
from videolens.interventions.route_pathway import pathway_from

FULL, REVERSED, ALL_CLOSED = "full", "reversed clip", "all closed"
SIZED = "% of the live edges"
RANDOM, DROPPED = "random cuts", "tokens dropped"
"""Nothing cut; the same of the clip played backwards; all units closed; how names of pathways of given sizes end.
Controls of the chosen pathway: other edges, as many along every route and in every layer, and a number behind the name;
video tokens dropped by attention, at its operations."""


class SearchRow(NamedTuple):
    """A question along a pathway: a row of the table.

    Attributes:
        question, task: of the question.
        pathway: its name; "full", "reversed clip", "all closed" are none.
        correct: whether the right option ranks first among the options.
        margin: logit of the right option minus that of the best other.
        live_edges, flops: shares of the whole that are left of this prompt.
    """

    question: str
    task: str
    pathway: str
    correct: bool
    margin: float
    live_edges: float
    flops: float


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class SearchSettings(Made):
    """How a pathway was searched for.

    Attributes:
        pathways: all that were judged, by name, as `pathway_from` takes them.
        chosen: the one that was asked for.
        request: what was asked for: "keep_accuracy", "live_edges" or "flops", and the value.
        slack: share of the median margin that a kept question must have.
        orders: in which units were closed.
        grain, heads: which units.
        controls: names of what is judged beside the chosen pathway and is none.
        n_searched: questions that were searched on; `n_asked` are those judged on.
        candidates: pathways that were tried; asked: (pathway, question) pairs that were run for it.
        operations: of all that was run to find them, in full forwards of one question: of these pairs, of every
            question with nothing cut, and of attribution.
    """

    pathways: dict[str, dict[str, Any]]
    chosen: str
    request: dict[str, float]
    slack: float
    orders: tuple[str, ...]
    n_searched: int
    candidates: int
    asked: int
    operations: float
    grain: str = "routes"
    heads: bool = False
    controls: tuple[str, ...] = ()

    @property
    def cost(self) -> float:
        """What the search has cost, as a share of all its candidates asked of all its questions by plain forwards."""
        return self.operations / max(self.candidates * self.n_searched, 1)


@plain_dataclass(frozen=True, eq=False)
class PathwaySearch(Result):
    """One row per question and pathway. Intervals are 95 % bootstraps over questions, paired by question.

    Attributes:
        table: one `SearchRow` each.
        settings: how it was made.

    Raises:
        VideolensError: the table contradicts itself or the settings.
    """

    table: pd.DataFrame
    settings: SearchSettings

    _called: ClassVar[str] = "pathway search"
    _files: ClassVar[dict[str, str]] = {"table": "search.parquet", "settings": "search.json"}
    _tables: ClassVar[dict[str, Any]] = {"table": SearchRow}

    def check(self) -> None:
        """Every question has every pathway, and numbers are numbers."""
        table, settings = self.table, self.settings
        names = {FULL, *settings.pathways, *settings.controls}
        if settings.chosen not in settings.pathways:
            raise VideolensError(f"the chosen pathway {settings.chosen!r} is none of those judged")
        if not names <= set(table["pathway"]) <= names | {REVERSED}:
            raise VideolensError(f"the table's pathways are {sorted(set(table['pathway']))}, not {sorted(names)}")
        counts = table.groupby(["task", "question"], sort=False)["pathway"].agg(["size", "nunique"])
        if (counts != table["pathway"].nunique()).any(axis=None):
            raise VideolensError("a question lacks a pathway, or has one twice")
        if not np.isfinite(table["margin"]).all():
            raise VideolensError("a margin is no finite number: the logits were not")
        if (table["correct"] != (table["margin"] > 0)).any():
            raise VideolensError("a question counts as right though its margin is not above zero, or the reverse")

    # -- pathways ------------------------------------------------------------------------------------------------------

    @property
    def pathway(self) -> CutRoutes:
        """The one that was asked for."""
        return self.named(self.settings.chosen)

    def named(self, name: str) -> CutRoutes:
        """A pathway that was judged, by its name."""
        known = self.settings.pathways
        if name not in known:
            raise VideolensError(near(name, known, kind="pathway"))
        return pathway_from(known[name])

    def accuracy(self, name: str, *, task: str | None = None) -> Interval:
        """Share of right choices along a pathway, or "full"."""
        return bootstrap_mean(self._each(name, "correct", task), within=(0.0, 1.0), seed=self.settings.seed)

    def loss(self, name: str, *, task: str | None = None) -> Interval:
        """What is lost against nothing cut, in points, paired by question; above zero is a loss."""
        full = self._each(FULL, "correct", task)
        most = 100 * float(full.mean())
        lost = 100 * (full - self._each(name, "correct", task))
        return bootstrap_mean(lost, within=(most - 100, most), seed=self.settings.seed)

    def share(self, name: str, of: str = "live_edges", *, task: str | None = None) -> float:
        """Share of the live edges, or of the operations ("flops"), that a pathway leaves."""
        return float(self._each(name, of, task).mean())

    def faithfulness(self, name: str, *, corrupt: str = ALL_CLOSED) -> Interval:
        """(margin − margin when corrupt) / (margin in full − margin when corrupt), of means: 1 is all, 0 nothing.

        Args:
            name: of a pathway.
            corrupt: "all closed": every unit is closed. "reversed clip": the clip is played backwards. (In MIB, Mueller
                et al. 2025, another input.)
        """
        margins = np.stack([self._each(each, "margin", None) for each in (name, FULL, corrupt)], axis=-1)
        return bootstrap(
            margins,
            lambda means: (means[..., 0] - means[..., 2]) / (means[..., 1] - means[..., 2]),
            seed=self.settings.seed,
        )

    def curve(self, *, corrupt: str = ALL_CLOSED) -> pd.DataFrame:
        """Faithfulness of the pathways of given sizes, 0.1 to 50 % of the live edges, and of all: size, live_edges,
        faithfulness. `attrs` hold the areas over size: CPR = ∫ f, CMD = ∫ |1 − f| (MIB)."""
        sized = {name: float(name.split()[0]) / 100 for name in self.settings.pathways if name.endswith(SIZED)}
        rows = [(size, self.share(n), self.faithfulness(n, corrupt=corrupt).value) for n, size in sized.items()]
        found = pd.DataFrame([*rows, (1.0, 1.0, 1.0)], columns=["size", "live_edges", "faithfulness"])
        found = found.sort_values("size", ignore_index=True)
        found.attrs["CPR"] = float(np.trapezoid(found["faithfulness"], found["size"]))
        found.attrs["CMD"] = float(np.trapezoid((1 - found["faithfulness"]).abs(), found["size"]))
        return found

    def front(self) -> pd.DataFrame:
        """Every pathway and control: accuracy, points lost, faithfulness, shares of live edges and operations, and
        `best`: whether no other leaves less and loses no more."""
        rows = []
        for name in (*self.settings.pathways, *self.settings.controls):
            row: dict[str, Any] = {"pathway": name, "live_edges": self.share(name), "flops": self.share(name, "flops")}
            row |= self.accuracy(name).columns("accuracy") | self.loss(name).columns("loss_points")
            rows.append(row | self.faithfulness(name).columns("faithfulness"))
        table = pd.DataFrame(rows).sort_values("live_edges", ascending=False, ignore_index=True)
        table["best"] = [
            not (
                (table["live_edges"] < row.live_edges) & (table["accuracy"] >= row.accuracy)
                | (table["live_edges"] <= row.live_edges) & (table["accuracy"] > row.accuracy)
            ).any()
            for row in table.itertuples()
        ]
        return table

    def __repr__(self) -> str:
        lost, chosen = self.loss(self.settings.chosen), self.settings.chosen
        said = f"{chosen!r} keeps {100 * self.share(chosen):.1f} % of the live edges and loses {lost.value:.1f} points"
        return f"PathwaySearch({self.settings.model!r}, {self.n} questions: {said} [{lost.low:.1f}, {lost.high:.1f}])"

    def _each(self, name: str, column: str, task: str | None) -> Float[np.ndarray, " question"]:
        rows = self.table[self.table["pathway"] == self._known("pathway", name, list(self.table["pathway"].unique()))]
        if task is not None:
            rows = rows[rows["task"] == self._known("task", task, self.tasks)]
        return rows[column].to_numpy(dtype=float)
