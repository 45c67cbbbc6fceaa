"""The result of a stress test: what was chosen under every perturbation, with nothing cut and along pathways."""

from __future__ import annotations

from dataclasses import dataclass as plain_dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
from pydantic.dataclasses import dataclass

from videolens.errors import VideolensError
from videolens.experiments.common.provenance import SETTINGS, Made
from videolens.experiments.common.result import Result
from videolens.experiments.common.statistics import Interval, bootstrap, bootstrap_mean, proportion
from videolens.experiments.stress.perturbations import NONE

FULL = "full"
BINS = 10


class StressRow(NamedTuple):
    """A question after a perturbation, under a condition: a row of the table.

    Attributes:
        question, task: of the question.
        perturbation: "none", or its name.
        severity: 1 to 3; 0 of "none".
        condition: "full", or the name of a pathway.
        n_options: options to choose from.
        answer, choice: the option that is right, and the one whose letter ranks first among the options' letters.
        correct: whether they are the same.
        confidence: probability of the choice's letter among the options' letters.
        p_answer: probability of the right letter among all tokens.
        compiled_choice: what the compiled pathway chooses; "" where it was not asked.
        compiled_apart: largest |Δlogit| between it and the masked model, in standard deviations of the logits.
    """

    question: str
    task: str
    perturbation: str
    severity: int
    condition: str
    n_options: int
    answer: str
    choice: str
    correct: bool
    confidence: float
    p_answer: float
    compiled_choice: str
    compiled_apart: float


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class StressSettings(Made):
    """How a stress test was made.

    Attributes:
        n_layers: depth of the model.
        pathways: name → what was open, as `pathway_from` takes it.
        perturbations: their names.
        severities: that were asked.
        right: perturbation → what counts as the right answer.
        steps: of an adversarial perturbation.
        compiled: whether compiled pathways were asked, too.
    """

    n_layers: int
    pathways: dict[str, dict[str, Any]]
    perturbations: tuple[str, ...]
    severities: tuple[int, ...]
    right: dict[str, str]
    steps: int
    compiled: bool


@plain_dataclass(frozen=True, eq=False)
class Stress(Result):
    """One row per question, perturbation, severity and condition.

    Attributes:
        table: one `StressRow` each.
        settings: how it was made.

    Raises:
        VideolensError: the table contradicts itself or the settings.
    """

    table: pd.DataFrame
    settings: StressSettings

    _called: ClassVar[str] = "stress test"
    _files: ClassVar[dict[str, str]] = {"table": "stress.parquet", "settings": "stress.json"}
    _tables: ClassVar[dict[str, Any]] = {"table": StressRow}
    _route: ClassVar[str | None] = "perturbation"

    def check(self) -> None:
        """Every question has every condition wherever it was asked, and once unperturbed."""
        keys = ["task", "question", "perturbation", "severity"]
        conditions = self.table.groupby(keys, sort=False)["condition"].agg(list)
        wanted = [FULL, *self.settings.pathways]
        if wrong := next((each for each in conditions if each != wanted), None):
            raise VideolensError(f"every question needs the conditions {wanted} wherever it is asked, got {wrong}")
        asked = self.table.groupby(["task", "question"], sort=False)["perturbation"].agg(set)
        if not all(NONE in each for each in asked):
            raise VideolensError("a question was not asked unperturbed, so what a perturbation changes is not known")
        if not self.table[["confidence", "p_answer"]].stack().between(0, 1 + 1e-6).all():
            raise VideolensError("a probability lies outside 0 … 1: the logits were not finite")

    @property
    def conditions(self) -> list[str]:
        """ "full", then the pathways."""
        return list(self.table["condition"].unique())

    @property
    def perturbations(self) -> list[str]:
        """What was done, but for "none"."""
        return [each for each in self.table["perturbation"].unique() if each != NONE]

    def severities(self, perturbation: str) -> list[int]:
        """In which severities a perturbation was asked.

        Raises:
            SelectionError: it was not asked.
        """
        known = [NONE, *self.perturbations]
        rows = self.table[self.table["perturbation"] == self._known("perturbation", perturbation, known)]
        return sorted(int(each) for each in rows["severity"].unique())

    def accuracy(
        self, perturbation: str = NONE, severity: int = 0, *, condition: str = FULL, task: str | None = None
    ) -> Interval:
        """Share of right choices, with Wilson's 95 % interval. `task` None: all.

        Raises:
            SelectionError: this was not asked.
        """
        rows = self._rows(perturbation, severity, condition, task)
        return proportion(int(rows["correct"].sum()), len(rows))

    def flips(self, perturbation: str, severity: int, *, condition: str = FULL, task: str | None = None) -> Interval:
        """Share of questions in which another option is chosen than without the perturbation under the same condition,
        with Wilson's 95 % interval.

        Raises:
            SelectionError: this was not asked.
        """
        rows, before = (self._rows(name, at, condition, task) for name, at in ((perturbation, severity), (NONE, 0)))
        return proportion(int((rows["choice"] != before.loc[rows.index, "choice"]).sum()), len(rows))

    def agreement(
        self, condition: str, perturbation: str = NONE, severity: int = 0, *, task: str | None = None
    ) -> Interval:
        """Share of questions in which a pathway and the whole model choose the same, with Wilson's 95 % interval.

        Raises:
            SelectionError: this was not asked.
        """
        rows, full = (self._rows(perturbation, severity, each, task) for each in (condition, FULL))
        return proportion(int((rows["choice"] == full.loc[rows.index, "choice"]).sum()), len(rows))

    def difference(
        self, condition: str, perturbation: str = NONE, severity: int = 0, *, task: str | None = None
    ) -> Interval:
        """Accuracy along a pathway minus that of the whole model, in points: paired by question, with a 95 % bootstrap
        over questions.

        Raises:
            SelectionError: this was not asked.
        """
        apart = self._apart(condition, perturbation, severity, task)
        return bootstrap_mean(100 * apart.to_numpy(), within=(-100.0, 100.0), seed=self.settings.seed)

    def mean_difference(self, condition: str, perturbation: str | None = None, *, task: str | None = None) -> Interval:
        """`difference`, of each question averaged over the severities of a perturbation; None: over all perturbations
        and severities.

        Raises:
            SelectionError: this was not asked.
        """
        names = self.perturbations if perturbation is None else [perturbation]
        apart = [self._apart(condition, name, at, task) for name in names for at in self.severities(name)]
        each = pd.concat(apart).groupby(level=["task", "question"], sort=False).mean()
        return bootstrap_mean(100 * each.to_numpy(), within=(-100.0, 100.0), seed=self.settings.seed)

    def calibration(
        self, perturbation: str = NONE, severity: int = 0, *, condition: str = FULL, task: str | None = None
    ) -> Interval:
        """Expected calibration error among the options: Σ_b |Σ_(i in b) (correct_i − confidence_i)| / n over ten equal
        bins b of confidence (Guo et al. 2017), with a 95 % bootstrap over questions. With few questions it is above
        zero by chance alone.

        Raises:
            SelectionError: this was not asked.
        """
        rows = self._rows(perturbation, severity, condition, task)
        confidence = rows["confidence"].to_numpy(dtype=float)
        apart = rows["correct"].to_numpy(dtype=float) - confidence
        bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
        each = np.where(bins[:, None] == np.arange(BINS), apart[:, None], 0.0)
        return bootstrap(each, lambda means: np.abs(means).sum(axis=-1), seed=self.settings.seed)

    def compiled(self) -> tuple[Interval, float]:
        """Share of prompts in which compiled and masked pathways choose the same, and the largest |Δlogit| between
        them in standard deviations of the logits.

        Raises:
            VideolensError: compiled pathways were not asked.
        """
        rows = self.table[self.table["compiled_choice"] != ""]
        if not len(rows):
            raise VideolensError("compiled pathways were not asked: stress(…, compiled=True)")
        same = int((rows["choice"] == rows["compiled_choice"]).sum())
        return proportion(same, len(rows)), float(rows["compiled_apart"].max())

    def summary(self, *, task: str | None = None) -> pd.DataFrame:
        """A row per perturbation, severity and condition: n, accuracy and its ends, flips, ece; of pathways also
        agreement, and difference_points with its ends.

        Raises:
            SelectionError: no such task.
        """
        found = []
        for perturbation in [NONE, *self.perturbations]:
            for severity in self.severities(perturbation):
                for condition in self.conditions:
                    where: dict[str, Any] = {"perturbation": perturbation, "severity": severity}
                    named = where | {"condition": condition, "task": task}
                    right = self.accuracy(**named)
                    row = where | {"condition": condition, "n": right.n, "accuracy": right.value}
                    row |= {"low": right.low, "high": right.high, "flips": self.flips(**named).value}
                    row["ece"] = self.calibration(**named).value
                    if condition != FULL:
                        row["agreement"] = self.agreement(**named).value
                        row |= self.difference(**named).columns("difference", unit="_points")
                    found.append(row)
        return pd.DataFrame(found)

    def chance(self, task: str | None = None) -> float:
        """Share of right choices of somebody who guesses."""
        rows = self._rows(NONE, 0, FULL, task)
        return float((1 / rows["n_options"]).mean())

    def _apart(self, condition: str, perturbation: str, severity: int, task: str | None) -> pd.Series[float]:
        """By question: 1 where only the pathway is right, −1 where only the whole model is."""
        rows, full = (self._rows(perturbation, severity, each, task) for each in (condition, FULL))
        return rows["correct"].astype(float) - full.loc[rows.index, "correct"].astype(float)

    def _rows(self, perturbation: str, severity: int, condition: str, task: str | None) -> pd.DataFrame:
        """By task and question."""
        table = self.table
        known = [str(each) for each in self.severities(perturbation)]
        self._known(f"severity of {perturbation!r}", str(severity), known)
        self._known("condition", condition, self.conditions)
        chosen = (table["perturbation"] == perturbation) & (table["severity"] == severity)
        chosen &= table["condition"] == condition
        if task is not None:
            chosen &= table["task"] == self._known("task", task, self.tasks)
        rows = table[chosen]
        if not len(rows):
            raise VideolensError(f"no question of task {task!r} was asked under {perturbation!r}: see skipped()")
        return rows.set_index(["task", "question"])

    def __repr__(self) -> str:
        made = self.settings
        return (
            f"Stress({made.model!r}, full and {', '.join(made.pathways)}, {len(self.perturbations)} perturbations, "
            f"severities {', '.join(map(str, made.severities))}, {self.n} questions)"
        )
