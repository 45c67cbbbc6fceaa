"""The result of tracing answers: how probable every option is at the last token, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass as plain_dataclass
from dataclasses import field
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from pydantic.dataclasses import dataclass

from videolens.errors import VideolensError, near
from videolens.experiments.common.conditions import CLEAN
from videolens.experiments.common.provenance import SETTINGS, Made
from videolens.experiments.common.readout import FINAL_NORM
from videolens.experiments.common.result import Result
from videolens.experiments.common.statistics import Interval, bootstrap, bootstrap_curve


class TraceRow(NamedTuple):
    """One option after one layer: a row of an answer trace's table.

    Attributes:
        question, task: of the question.
        condition: "clean", or the name of an intervention.
        option: its letter, or of an open-ended question the answer in words.
        kind: one of `KINDS`.
        token: what is followed, the option's first token, as text.
        layer: 0-based.
        probability: of the token in the hidden state *after* this layer, at the last position.
        top, top_probability: the word that this hidden state ranks first.
        correct: whether the clean model answers rightly; missing where that is not known.
    """

    question: str
    task: str
    condition: str
    option: str
    kind: str
    token: str
    layer: int
    probability: float
    top: str
    top_probability: float
    correct: bool | None


KINDS = ("true", "false", "unknown", "model's answer")
"""The right option; a wrong one; an option of a question whose answer is not known; what the clean model says, where
that is none of the options."""


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class TraceSettings(Made):
    """How answers were traced.

    Attributes:
        n_layers: depth of the model.
        lens: how hidden states were read: "final norm", or "no norm (published)".
        samples: which questions were kept: "correct", "wrong" or "all", by what the clean model answers.
        interventions: what was done, by the name of the condition.
    """

    n_layers: int
    lens: str = FINAL_NORM
    samples: str = "correct"
    interventions: dict[str, str] = field(default_factory=dict)


@plain_dataclass(frozen=True, eq=False)
class TraceCurve:
    """Mean probability (0 … 1) after each 0-based layer, with its 95 % bootstrap band, over n questions."""

    mean: Float[np.ndarray, " layer"]
    low: Float[np.ndarray, " layer"]
    high: Float[np.ndarray, " layer"]
    n: int


class Rise(NamedTuple):
    """Where the mean probability rises most from one layer to the next, and by how much.

    Attributes:
        layer: 0-based, the one that adds most; NaN where the curve never rises, or in a model of one layer.
        amount: probability after that layer minus the one before it. The layer is chosen once, on all questions, so
            the interval does not account for the choice.
    """

    layer: Interval
    amount: Interval


@plain_dataclass(frozen=True, eq=False)
class AnswerTrace(Result):
    """One row per question, condition, option and layer, and how it was made.

    Attributes:
        table: one `TraceRow` each; every option has all layers, in order.
        settings: how it was made.

    Raises:
        VideolensError: the table contradicts itself or the settings.
    """

    table: pd.DataFrame
    settings: TraceSettings

    _called: ClassVar[str] = "answer trace"
    _files: ClassVar[dict[str, str]] = {"table": "answer_trace.parquet", "settings": "answer_trace.json"}
    _tables: ClassVar[dict[str, Any]] = {"table": TraceRow}
    _route: ClassVar[str | None] = "condition"

    def check(self) -> None:
        """Every option has every layer, and its numbers fit together."""
        table, n_layers = self.table, self.settings.n_layers
        layers = table["layer"].to_numpy()
        if len(table) % n_layers or not np.array_equal(layers, np.tile(np.arange(n_layers), len(table) // n_layers)):
            raise VideolensError(f"every option needs the layers 0 … {n_layers - 1} in order: some are missing")
        if table.duplicated(["task", "question", "condition", "option", "layer"]).any():
            raise VideolensError("an option is there twice: question ids must be unique within a task")
        if unknown := set(table["kind"]) - set(KINDS):
            raise VideolensError(near(sorted(unknown)[0], KINDS, kind="kind of option"))
        if not table[["probability", "top_probability"]].apply(lambda p: p.between(0, 1 + 1e-5)).all(axis=None):
            raise VideolensError("a probability lies outside 0 … 1: the logits were not finite")
        if (table["probability"] > table["top_probability"] + 1e-6).any():
            raise VideolensError("an option is more probable than the word that is ranked first")

    @property
    def conditions(self) -> list[str]:
        """ "clean", then the interventions."""
        return [CLEAN, *(name for name in self.settings.interventions if name in set(self.table["condition"]))]

    @property
    def kinds(self) -> list[str]:
        """Those of `KINDS` that occur."""
        found = set(self.table["kind"])
        return [kind for kind in KINDS if kind in found]

    def probabilities(
        self, kind: str = "true", *, task: str | None = None, condition: str = CLEAN
    ) -> Float[np.ndarray, "question layer"]:
        """Probability of a kind of option for every question that has it; several false ones are averaged.

        Raises:
            SelectionError: the task, the condition or the kind is not in this trace.
        """
        rows = self.table["kind"] == self._known("kind", kind, self.kinds)
        rows &= self.table["condition"] == self._known("condition", condition, self.conditions)
        if task is not None:
            rows &= self.table["task"] == self._known("task", task, self.tasks)
        found = self.table[rows]
        means = found.groupby(["task", "question", "layer"], sort=False)["probability"].mean()
        return means.to_numpy(dtype=float).reshape(-1, self.settings.n_layers)

    def curve(self, kind: str = "true", *, task: str | None = None, condition: str = CLEAN) -> TraceCurve:
        """Mean probability after every layer with its interval.

        Raises:
            SelectionError: the task, the condition or the kind is not in this trace.
            VideolensError: no question of that task has that kind of option.
        """
        each = self.probabilities(kind, task=task, condition=condition)
        mean, low, high = bootstrap_curve(each, within=(0.0, 1.0), seed=self.settings.seed)
        return TraceCurve(mean=mean, low=low, high=high, n=len(each))

    def rise(self, kind: str = "true", *, task: str | None = None, condition: str = CLEAN) -> Rise:
        """The layer that raises the mean probability most, and by how much it does.

        Layer 0 is never it: what it adds to the embedding is not part of a trace.

        Raises:
            SelectionError: the task, the condition or the kind is not in this trace.
            VideolensError: no question of that task has that kind of option.
        """
        each = self.probabilities(kind, task=task, condition=condition)
        where = bootstrap(each, _rising, seed=self.settings.seed)
        if np.isnan(where.value):
            return Rise(where, Interval(np.nan, np.nan, np.nan, where.n))
        layer = int(where.value)
        amount = bootstrap(each, lambda curves: curves[..., layer] - curves[..., layer - 1], seed=self.settings.seed)
        return Rise(where, amount)

    def summary(self) -> pd.DataFrame:
        """Per task ("all": every question), condition and kind: the end of the curve and its rise, with intervals.

        Columns: task, condition, kind, n, last, last_low, last_high (probability after the last layer), rise_layer,
        rise_layer_low, rise_layer_high, rise, rise_low, rise_high. Layers count from 0.
        """
        rows = []
        for task in [None, *self.tasks]:
            for condition in self.conditions:
                for kind in self.kinds:
                    each = self.probabilities(kind, task=task, condition=condition)
                    if len(each) == 0:
                        continue
                    last = bootstrap(each, lambda curves: curves[..., -1], within=(0.0, 1.0), seed=self.settings.seed)
                    rise = self.rise(kind, task=task, condition=condition)
                    row: dict[str, Any] = {"task": "all" if task is None else task, "condition": condition}
                    row |= {"kind": kind, "n": last.n} | last.columns("last")
                    rows.append(row | rise.layer.columns("rise_layer") | rise.amount.columns("rise"))
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        made = self.settings
        return (
            f"AnswerTrace({made.model!r}, {self.n} of {made.n_asked} questions ({made.samples}), {made.n_layers} "
            f"layers, lens: {made.lens}, conditions: {', '.join(self.conditions)})"
        )


def _rising(curves: Float[np.ndarray, "*draw layer"]) -> Float[np.ndarray, "*draw"]:
    """The 0-based layer after which a curve is highest above what it was before; NaN if it never rises."""
    steps = np.diff(curves)
    if not steps.shape[-1]:
        return np.full(steps.shape[:-1], np.nan)
    return np.where(steps.max(axis=-1) > 0, steps.argmax(axis=-1) + 1.0, np.nan)
