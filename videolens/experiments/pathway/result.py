"""The result of asking under a pathway: accuracies, edges that were left, and what random cuts of the same size do."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Float

from videolens.errors import VideolensError, near
from videolens.experiments.common.result import QuestionsTable
from videolens.experiments.common.statistics import Interval, bootstrap
from videolens.experiments.common.storing import read_result, settings_from, write_result
from videolens.interventions.pathway import Pathway

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLUMNS", "FULL", "PATHWAY", "PathwayAccuracy", "PathwaySettings"]

FULL, PATHWAY = "full", "pathway"

COLUMNS = (
    "question",
    "task",
    "condition",
    "seed",
    "n_options",
    "answer",
    "choice",
    "correct",
    "first",
    "p_answer",
    "edges",
    "live_edges",
    "edges_full",
    "live_edges_full",
)
"""`condition`: "full", "pathway", "random, live edges", …; `seed`: of a random cut, else missing. `choice`: letter of
the option that ranks first among the options, `correct`: whether it is right; `first`: whether the right letter ranks
first among all tokens. `p_answer`: probability of the right letter among all tokens. `edges`, `live_edges`: open causal
pairs, and those of them on some path to the last token, summed over layers; `*_full`: with nothing cut."""

TABLE, SETTINGS = "pathway.parquet", "pathway.json"


@dataclass(frozen=True)
class PathwaySettings:
    """How accuracies under a pathway were measured.

    Attributes:
        model: the name or directory the model was loaded from.
        pathway: what was open, as `Pathway.from_dict` takes it.
        random: kinds of random cuts.
        seeds: random cuts drawn per kind.
        n_asked: questions asked; all of them are in the table.
        seed: of the bootstrap, and of the first random cut.
        revision: of the checkpoint, where it has one.
        dtype, device: what the model ran in and on.
        versions: of Python and the packages that matter.
        engine: "exact" or "full".
        seconds: time it took.
    """

    model: str
    pathway: dict[str, Any]
    random: tuple[str, ...]
    seeds: int
    n_asked: int
    seed: int = 0
    revision: str | None = None
    dtype: str = ""
    device: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    engine: str = "exact"
    seconds: float | None = None


@dataclass(frozen=True, eq=False)
class PathwayAccuracy(QuestionsTable):
    """One row per question, condition and random cut. Every interval is a 95 % bootstrap over questions; all conditions
    of a question are drawn together, so that differences are paired.

    Attributes:
        table: the columns of `COLUMNS`.
        settings: how it was made.

    Raises:
        VideolensError: the table contradicts itself or the settings.
    """

    table: pd.DataFrame
    settings: PathwaySettings

    _called: ClassVar[str] = "pathway accuracy"

    def __post_init__(self) -> None:
        table = self.table
        if tuple(table.columns) != COLUMNS:
            raise VideolensError(f"accuracies under a pathway have the columns {list(COLUMNS)}, got {list(table)}")
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
    def pathway(self) -> Pathway:
        """What was open."""
        return Pathway.from_dict(self.settings.pathway)

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
        return bootstrap(self._per_question(column, condition, task)[:, None], _only, seed=self.settings.seed)

    def loss(self, condition: str = PATHWAY, *, column: str = "correct", task: str | None = None) -> Interval:
        """How much is lost against nothing cut, in points (100 × share), paired by question: above zero is a loss."""
        lost = self._per_question(column, FULL, task) - self._per_question(column, condition, task)
        return bootstrap(100 * lost[:, None], _only, seed=self.settings.seed)

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

    def figure(self) -> Figure:
        """Which routes are open in which layers, and the accuracies that this leaves."""
        from videolens.experiments.pathway.figure import draw

        return draw(self)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write `pathway.parquet` and `pathway.json` into a directory.

        Raises:
            VideolensError: they are there already, and `overwrite` is False.
        """
        files = {TABLE: self.table, SETTINGS: asdict(self.settings)}
        return write_result(path, files, what="accuracies under a pathway", overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path) -> PathwayAccuracy:
        """Read what `save` wrote.

        Raises:
            VideolensError: the directory does not hold it, or what it holds contradicts itself.
        """
        table, settings = read_result(path, TABLE, SETTINGS, what="accuracies under a pathway")
        file, what = Path(path) / SETTINGS, "pathway's accuracies"
        made = settings_from(PathwaySettings, settings, file, what=what, tuples=("random",))
        return cls(table, made)

    def __repr__(self) -> str:
        full, kept = 100 * self.accuracy_full.value, 100 * self.accuracy.value
        return (
            f"PathwayAccuracy({self.settings.model!r}, {self.n} questions: full {full:.1f} %, {self.pathway.name} "
            f"{kept:.1f} % on {100 * self.live_edges_kept.value:.0f} % of the live edges)"
        )

    def _per_question(self, column: str, condition: str, task: str | None) -> Float[np.ndarray, " question"]:
        if column not in COLUMNS:
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
        return bootstrap(kept[:, None], _only, seed=self.settings.seed)


def _only(mean: np.ndarray) -> float:
    return float(mean[0])
