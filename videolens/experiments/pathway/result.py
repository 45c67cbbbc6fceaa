"""The result of asking under a pathway: accuracies, edges that were left, and what random cuts of the same size do."""

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
from videolens.experiments.common.statistics import Interval, bootstrap_mean
from videolens.interventions.cut_routes import CutRoutes
from videolens.interventions.route_pathway import pathway_from

FULL, PATHWAY = "full", "pathway"


class PathwayRow(NamedTuple):
    """A question under a condition: a row of the table.

    Attributes:
        question, task: of the question.
        condition: "full", "pathway", "random, live edges", …
        seed: of a random cut, else missing.
        n_options: options to choose from.
        answer, choice: letters of the right option, and of the one that ranks first among the options.
        correct: whether they are the same.
        first: whether the right letter ranks first among all tokens.
        p_answer: probability of the right letter among all tokens.
        edges, live_edges: open causal pairs, and those of them on some path to the last token, summed over layers.
        edges_full, live_edges_full: the same with nothing cut.
    """

    question: str
    task: str
    condition: str
    seed: int | None
    n_options: int
    answer: str
    choice: str
    correct: bool
    first: bool
    p_answer: float
    edges: int
    live_edges: int
    edges_full: int
    live_edges_full: int


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class PathwaySettings(Made):
    """How accuracies under a pathway were measured. All questions that were asked are in the table.

    Attributes:
        pathway: what was open, as `pathway_from` takes it.
        random: kinds of random cuts.
        seeds: random cuts drawn per kind.
        engine: "exact" or "full".
    """

    pathway: dict[str, Any]
    random: tuple[str, ...]
    seeds: int
    engine: str = "exact"


@plain_dataclass(frozen=True, eq=False)
class PathwayAccuracy(Result):
    """One row per question, condition and random cut. Every interval is a 95 % bootstrap over questions; all conditions
    of a question are drawn together, so that differences are paired.

    Attributes:
        table: one `PathwayRow` each.
        settings: how it was made.

    Raises:
        VideolensError: the table contradicts itself or the settings.
    """

    table: pd.DataFrame
    settings: PathwaySettings

    _called: ClassVar[str] = "pathway accuracy"

    _files: ClassVar[dict[str, str]] = {"table": "pathway.parquet", "settings": "pathway.json"}
    _tables: ClassVar[dict[str, Any]] = {"table": PathwayRow}

    def check(self) -> None:
        """Every question has every condition, and its numbers fit together."""
        table = self.table
        counts = table.groupby(["task", "question"], sort=False).size()
        rows = 2 + len(self.settings.random) * self.settings.seeds
        if len(counts) == 0 or (counts != rows).any():
            raise VideolensError(
                f"every question needs {rows} rows (full, pathway, {self.settings.seeds} random cuts of each of "
                f"{len(self.settings.random)} kinds), got {sorted(set(counts))}"
            )
        if not table["p_answer"].between(0, 1 + 1e-6).all():
            raise VideolensError("a probability lies outside 0 … 1: the logits were not finite")
        if (table["live_edges"] > table["edges"]).any() or (table["edges"] > table["edges_full"]).any():
            raise VideolensError("there are more live edges than open ones, or more open ones than causal pairs")

    @property
    def pathway(self) -> CutRoutes:
        """What was open."""
        return pathway_from(self.settings.pathway)

    @property
    def conditions(self) -> list[str]:
        """ "full", "pathway", and the kinds of random cuts."""
        return list(self.table["condition"].unique())

    @property
    def accuracy_full(self) -> Interval:
        """Share of right choices with nothing cut."""
        return self.mean("correct", FULL)

    @property
    def accuracy(self) -> Interval:
        """Share of right choices with nothing but the pathway open."""
        return self.mean("correct", PATHWAY)

    @property
    def edges_kept(self) -> Interval:
        """Share of the causal pairs that the pathway leaves open, mean over questions."""
        return self._share("edges", PATHWAY, None)

    @property
    def live_edges_kept(self) -> Interval:
        """Share of the live edges that the pathway leaves, mean over questions."""
        return self._share("live_edges", PATHWAY, None)

    def mean(self, column: str, condition: str, *, task: str | None = None) -> Interval:
        """Mean of "correct", "first" or "p_answer" over questions (of each: over random cuts). `task` None: all."""
        each = self._per_question(column, condition, task)
        return bootstrap_mean(each, within=(0.0, 1.0), seed=self.settings.seed)

    def loss(self, condition: str = PATHWAY, *, column: str = "correct", task: str | None = None) -> Interval:
        """How much is lost against nothing cut, in points (100 × share), paired by question: above zero is a loss."""
        full = self._per_question(column, FULL, task)
        lost, most = full - self._per_question(column, condition, task), 100 * float(full.mean())
        return bootstrap_mean(100 * lost, within=(most - 100, most), seed=self.settings.seed)

    def summary(self) -> pd.DataFrame:
        """Per task ("all": every question) and condition: n, accuracy, loss in points, probability of the right letter,
        shares of open and of live edges, each mean with its 95 % interval (`*_low`, `*_high`)."""
        rows = []
        for task in [None, *self.tasks] if len(self.tasks) > 1 else [None]:
            for condition in self.conditions:
                row: dict[str, Any] = {"task": "all" if task is None else task, "condition": condition}
                accuracy = self.mean("correct", condition, task=task)
                row |= {"n": accuracy.n} | accuracy.columns("accuracy")
                row |= self.loss(condition, task=task).columns("loss_points")
                row |= self.mean("first", condition, task=task).columns("first")
                row |= self.mean("p_answer", condition, task=task).columns("p_answer")
                row["edges_kept"] = self._share("edges", condition, task).value
                row["live_edges_kept"] = self._share("live_edges", condition, task).value
                rows.append(row)
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        full, kept = 100 * self.accuracy_full.value, 100 * self.accuracy.value
        return (
            f"PathwayAccuracy({self.settings.model!r}, {self.n} questions: full {full:.1f} %, {self.pathway.name} "
            f"{kept:.1f} % on {100 * self.live_edges_kept.value:.0f} % of the live edges)"
        )

    def _per_question(self, column: str, condition: str, task: str | None) -> Float[np.ndarray, " question"]:
        if column not in PathwayRow._fields:
            raise VideolensError(near(column, ("correct", "first", "p_answer"), kind="measure"))
        rows = self.table["condition"] == condition
        if not rows.any():
            raise VideolensError(near(condition, self.conditions, kind="condition"))
        if task is not None:
            if task not in self.tasks:
                raise VideolensError(near(task, self.tasks, kind="task"))
            rows &= self.table["task"] == task
        grouped = self.table[rows].groupby(["task", "question"], sort=False)[column]
        return grouped.mean().to_numpy(dtype=float)

    def _share(self, column: str, condition: str, task: str | None) -> Interval:
        kept = self._per_question(column, condition, task) / self._per_question(f"{column}_full", condition, task)
        return bootstrap_mean(kept, seed=self.settings.seed)
