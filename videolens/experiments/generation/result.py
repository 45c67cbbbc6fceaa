"""What came out: how far the probability of an answer's k-th anchor falls when a route into it is cut."""

from __future__ import annotations

from dataclasses import dataclass as plain_dataclass
from dataclasses import fields
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import pandas as pd
from pydantic.dataclasses import dataclass

from videolens.errors import VideolensError, check_whole
from videolens.experiments.common.experiment import Skip
from videolens.experiments.common.provenance import SETTINGS, Made
from videolens.experiments.common.result import Result
from videolens.experiments.flow.result import FlowMap
from videolens.experiments.flow.table import FlowRow, FlowSettings

ROUTES = ("video -> question", "video -> response", "video -> last", "question -> last", "response -> last")
"""The five routes of Map the Flow's appendix D. "response": the answer's tokens before the last one."""


class GenerationRow(NamedTuple):
    """One knockout at one anchor of an answer.

    Attributes:
        question, task: of the question.
        anchor: which of the answer's anchors, from 0.
        place: of the anchor's first token in the answer, from 0: so many tokens were written before it.
        word: the anchor.
        route: what was cut, one of `ROUTES`.
        layer: 0-based, at the centre of the window.
        p_base, p_knockout: probability of the anchor's first token, unblocked and blocked.
        change_percent: (p_knockout − p_base) / p_base × 100.
        answer_knockout: the token that the blocked model ranks first.
    """

    question: str
    task: str
    anchor: int
    place: int
    word: str
    route: str
    layer: int
    p_base: float
    p_knockout: float
    change_percent: float
    answer_knockout: str


class AnswerRow(NamedTuple):
    """What the model answered. `tokens`: how many; `anchors`: how many of its words are anchors."""

    question: str
    task: str
    answer: str
    tokens: int
    anchors: int


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class GenerationSettings(Made):
    """How long answers were traced.

    Attributes:
        n_layers: depth of the model.
        window: layers blocked together.
        anchors: which words were followed: "verbs", "words: …", "tokens: …" or "by the function …".
        n_anchors: how many of an answer; those with fewer were left out.
        max_new_tokens: of an answer, at most.
        engine: "exact", or "full": one forward of the whole sequence per anchor, route and window.
    """

    n_layers: int
    window: int
    anchors: str
    n_anchors: int
    max_new_tokens: int
    engine: str = "full"


def at_anchor(route: str, anchor: int) -> str:
    """What a question is left out of, as `skipped` says it."""
    return f"{route}, anchor {anchor}"


@plain_dataclass(frozen=True, eq=False)
class GenerationTrace(Result):
    """One row per question, anchor, route and layer, what was answered, and how it was made.

    Of each anchor it is a flow map: `trace.flow(0)` has the curves, intervals, peaks and figures of the first.

    Attributes:
        table: one `GenerationRow` each; every question, anchor and route has all layers, in order.
        answers: one `AnswerRow` for every question, those left out among them.
        settings: how it was made.

    Raises:
        VideolensError: the tables contradict themselves, each other or the settings.
    """

    table: pd.DataFrame
    answers: pd.DataFrame
    settings: GenerationSettings

    _called: ClassVar[str] = "trace of generation"
    _files: ClassVar[dict[str, str]] = {
        "table": "generation.parquet",
        "answers": "answers.parquet",
        "settings": "generation.json",
    }
    _tables: ClassVar[dict[str, Any]] = {"table": GenerationRow, "answers": AnswerRow}
    _route: ClassVar[str | None] = "route"

    def check(self) -> None:
        """Every anchor is a flow map, and every question has its answer, with as many anchors as were asked for."""
        if not set(self.table["anchor"]) <= set(self.anchors):
            raise VideolensError(
                f"anchors count from 0 to {self.settings.n_anchors - 1}, got {sorted(set(self.table['anchor']))}"
            )
        if unknown := set(self.table["route"]) - set(ROUTES):
            raise VideolensError(f"the routes are {list(ROUTES)}, got {sorted(unknown)}")
        for anchor in sorted(set(self.table["anchor"])):
            self.flow(int(anchor))
        if self.answers.duplicated(["task", "question"]).any():
            raise VideolensError("an answer is there twice: question ids must be unique within a task")
        enough = self.answers[self.answers["anchors"] >= self.settings.n_anchors]
        if extra := _asked(self.table) - _asked(enough):
            raise VideolensError(
                f"{len(extra)} questions are traced whose answer is not there, or has fewer than "
                f"{self.settings.n_anchors} anchors, such as {sorted(extra)[0]}"
            )

    @property
    def anchors(self) -> list[int]:
        """Which anchors of an answer were followed: 0, 1, …"""
        return list(range(self.settings.n_anchors))

    @property
    def routes(self) -> list[str]:
        """The routes that some anchor has, in the order of `ROUTES`."""
        found = set(self.table["route"])
        return [route for route in ROUTES if route in found]

    def flow(self, anchor: int) -> FlowMap:
        """The flow map of one anchor of all answers: what is followed is the anchor's first token.

        Raises:
            VideolensError: there is no such anchor, or none of its routes could be cut.
        """
        check_whole("anchor", anchor, most=self.settings.n_anchors - 1)
        if anchor not in self._flows:
            self._flows[anchor] = self._flow(anchor)
        return self._flows[anchor]

    def summary(self) -> pd.DataFrame:
        """`FlowMap.summary` of every anchor, with the column `anchor` before its own."""
        parts = [self.flow(anchor).summary().assign(anchor=anchor) for anchor in sorted(set(self.table["anchor"]))]
        table = pd.concat(parts, ignore_index=True)
        return table[["anchor", *(name for name in table.columns if name != "anchor")]]

    def __repr__(self) -> str:
        made = self.settings
        return (
            f"GenerationTrace({made.model!r}, {self.n} of {made.n_asked} answers with {made.n_anchors} anchors "
            f"({made.anchors}), {len(self.routes)} routes, {made.n_layers} layers, window {made.window})"
        )

    @cached_property
    def _flows(self) -> dict[int, FlowMap]:
        return {}

    def _flow(self, anchor: int) -> FlowMap:
        rows = self.table[self.table["anchor"] == anchor].reset_index(drop=True)
        rows = rows.assign(answer=rows["word"], correct=None, correct_knockout=None)
        for name in ("p_correct_base", "p_correct_knockout", "logit_diff_base", "logit_diff_knockout"):
            rows[name] = float("nan")
        table = rows[list(FlowRow._fields)].astype({"correct": "boolean", "correct_knockout": "boolean"})
        made = {each.name: getattr(self.settings, each.name) for each in fields(Made)}
        here = {at_anchor(route, anchor): route for route in ROUTES} | {None: None}
        made["skipped"] = tuple(
            Skip(skip.question, skip.task, here[skip.route], skip.reason)
            for skip in self.settings.skipped
            if skip.route in here
        )
        own = {name: getattr(self.settings, name) for name in ("n_layers", "window", "engine")}
        return FlowMap(table, FlowSettings(**made, **own, samples="all"))


def _asked(table: pd.DataFrame) -> set[tuple[str, str]]:
    return set(zip(table["task"], table["question"], strict=True))
