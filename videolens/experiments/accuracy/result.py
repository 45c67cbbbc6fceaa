"""The result of asking questions under conditions: what was chosen, and the share that is right, with intervals."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass as plain_dataclass
from typing import Any, ClassVar, NamedTuple

import pandas as pd
from pydantic.dataclasses import dataclass

from videolens.errors import VideolensError, near
from videolens.experiments.common.provenance import SETTINGS, Made
from videolens.experiments.common.result import Result, skipped_table
from videolens.experiments.common.statistics import Interval, proportion


class AccuracyRow(NamedTuple):
    """A question under a condition: a row of the table.

    Attributes:
        model: what it is called.
        task, question: of the question.
        condition: one of `CONDITIONS`.
        n_options: options to choose from.
        answer: letter of the option that is right under the condition.
        choice: letter of the option that the model ranks first among the options.
        correct: whether they are the same.
        p_answer: probability of the right letter among all tokens.
        option_first: whether the token ranked first among all tokens is one of the options' letters.
    """

    model: str
    task: str
    question: str
    condition: str
    n_options: int
    answer: str
    choice: str
    correct: bool
    p_answer: float
    option_first: bool


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class AccuracySettings(Made):
    """How one model was asked. `model` is what it is called in the table; `seed` is of the order of shuffled frames.

    Attributes:
        conditions: names from `CONDITIONS`, each asked of every question that was not left out.
    """

    conditions: tuple[str, ...]


@plain_dataclass(frozen=True, eq=False)
class Accuracy(Result):
    """One row per model, question and condition, and how it was made. The choice is always among the options' letters.

    Attributes:
        table: one `AccuracyRow` each.
        settings: how it was made; one entry per call that made it.

    Raises:
        VideolensError: the table contradicts itself or the settings.
    """

    table: pd.DataFrame
    settings: tuple[AccuracySettings, ...]

    _called: ClassVar[str] = "measurement of accuracy"
    _files: ClassVar[dict[str, str]] = {"table": "accuracy.parquet", "settings": "accuracy.json"}
    _tables: ClassVar[dict[str, Any]] = {"table": AccuracyRow}
    _route: ClassVar[str | None] = "condition"

    def check(self) -> None:
        """Every question of a model was asked under all conditions, and what is called correct is."""
        table = self.table
        asked = {(each.model, frozenset(each.conditions)) for each in self.settings}
        found = table.groupby(["model", "task", "question"], sort=False)["condition"].agg(frozenset)
        for (model, task, question), conditions in found.items():
            if (model, conditions) not in asked:
                raise VideolensError(
                    f"{model!r} was asked question {question!r} of task {task!r} under {sorted(conditions)}, which the "
                    f"settings do not say: {[(each.model, list(each.conditions)) for each in self.settings]}"
                )
        if len(table) > (most := sum(each.n_asked * len(each.conditions) for each in self.settings)):
            raise VideolensError(f"{len(table)} answers, but by the settings {most} were asked for")
        if table.duplicated(["model", "task", "question", "condition"]).any():
            raise VideolensError("a model was asked the same question twice: ids must be unique within a task")
        if not ((table["answer"] == table["choice"]) == table["correct"]).all():
            raise VideolensError("an answer is called correct that is not, or the other way round")
        if not table["p_answer"].between(0, 1 + 1e-6).all():
            raise VideolensError("a probability lies outside 0 … 1: the logits were not finite")
        if set(table["model"]) != {each.model for each in self.settings}:
            raise VideolensError(f"the table is about the models {sorted(set(table['model']))}, the settings are not")

    @classmethod
    def join(cls, parts: Iterable[Accuracy]) -> Accuracy:
        """Several results as one: other models, other questions or other conditions.

        Raises:
            VideolensError: none, or the same question of a model under the same condition twice.
        """
        parts = list(parts)
        if not parts:
            raise VideolensError("nothing to join: give at least one result")
        tables = pd.concat([part.table for part in parts], ignore_index=True)
        return cls(tables, tuple(each for part in parts for each in part.settings))

    @property
    def models(self) -> list[str]:
        """Models, in the order in which they were asked."""
        return list(self.table["model"].unique())

    @property
    def conditions(self) -> list[str]:
        """Conditions, in the order in which they were asked."""
        return list(self.table["condition"].unique())

    def skipped(self) -> pd.DataFrame:
        """What was left out of any of the calls: task, condition, reason, and how many questions."""
        left = [skip for each in self.settings for skip in each.skipped]
        return skipped_table(left, self._route)

    def share(self, model: str, task: str, condition: str = "as is") -> Interval | None:
        """Share of right choices with Wilson's 95 % interval; None if this was not asked.

        Raises:
            VideolensError: the model, the task or the condition is not in this result at all.
        """
        table = self.table
        for kind, value, known in (
            ("model", model, self.models),
            ("task", task, self.tasks),
            ("condition", condition, self.conditions),
        ):
            if value not in known:
                raise VideolensError(near(value, known, kind=f"{kind} in this result"))
            table = table[table[kind] == value]
        return proportion(int(table["correct"].sum()), len(table)) if len(table) else None

    def chance(self, task: str) -> float:
        """Share of right choices of somebody who guesses."""
        return float((1 / self.table.loc[self.table["task"] == task, "n_options"]).mean())

    def summary(self) -> pd.DataFrame:
        """Per model, task and condition: n, accuracy, low, high, chance, not_an_option.

        `low` and `high`: Wilson's 95 % interval. `not_an_option`: share of questions whose first-ranked token of all is
        no option's letter.
        """
        rows: list[dict[str, Any]] = []
        for (model, task, condition), group in self.table.groupby(["model", "task", "condition"], sort=False):
            share = proportion(int(group["correct"].sum()), len(group))
            row = {"model": model, "task": task, "condition": condition, "n": share.n}
            row |= {"accuracy": share.value, "low": share.low, "high": share.high, "chance": self.chance(task)}
            rows.append(row | {"not_an_option": float(1 - group["option_first"].mean())})
        return pd.DataFrame(rows)

    def markdown(self) -> str:
        """A table for a page of documentation: one row per task, one column per model and condition that was asked."""
        asked = [(model, condition) for model in self.models for condition in self.conditions]
        asked = [
            pair for pair in asked if ((self.table["model"] == pair[0]) & (self.table["condition"] == pair[1])).any()
        ]
        heads = [f"{model}" if condition == "as is" else f"{model}, {condition}" for model, condition in asked]
        lines = [f"| task | n | chance | {' | '.join(heads)} |", "|---|--:|--:|" + "--:|" * len(heads)]
        for task in self.tasks:
            shares = [self.share(model, task, condition) for model, condition in asked]
            n = sorted({share.n for share in shares if share is not None})
            count = f"{n[0]}" if len(n) == 1 else f"{n[0]}–{n[-1]}"
            cells = ["–" if share is None else percent(share) for share in shares]
            lines.append(f"| {task} | {count} | {100 * self.chance(task):.0f} % | {' | '.join(cells)} |")
        return "\n".join([*lines, "", self.note()])

    def note(self) -> str:
        """How to read the numbers, in plain words."""
        other = 1 - self.table["option_first"].mean()
        meant = {
            "reversed": "Reversed: the clip backwards, scored against the answer that is then right.",
            "shuffled": "Shuffled: the frames in a random order.",
            "blank": "Blank: black frames.",
        }
        return " ".join(
            [
                "Right choices in percent with Wilson's 95 % interval. The choice is the option whose letter the "
                f"model ranks first among the options' letters; in {100 * other:.1f} % of all prompts the token "
                "ranked first of the whole vocabulary was no option's letter.",
                *(meant[condition] for condition in self.conditions if condition in meant),
            ]
        )

    def __repr__(self) -> str:
        return f"Accuracy({self.models}, {len(self.tasks)} tasks, {self.conditions}, {len(self.table)} answers)"


def percent(share: Interval) -> str:
    """A share in percent with its interval: "96.5 [92.9, 98.3]"."""
    return f"{100 * share.value:.1f} [{100 * share.low:.1f}, {100 * share.high:.1f}]"
