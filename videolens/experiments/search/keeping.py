"""Whether a pathway keeps the answers: asked of the questions that are lost first, until that is decided.

Three things make a test cost little, and none of them changes its answer:

1. Every question's run along the pathway that was accepted last is kept (`videolens.model.compiled.kept_runs`), so that
   a candidate costs the rows that it changes.
2. Questions are asked in the order of their margins there, the smallest first: those that a candidate loses come early.
3. A test ends when too many are lost, or when too few are left to be lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from videolens.engine.memory import budget_of
from videolens.experiments.common.scoring import margins_of
from videolens.experiments.search.judging import MOST_IN_A_BATCH, Judge, check_alike
from videolens.model.compiled.changed_rows import ChangePlan, Living
from videolens.model.compiled.kept_runs import KeptRuns, Ran

_FIRST = 8  # questions that are asked before it is looked at how many are lost


class Effort(NamedTuple):
    """What asking has cost.

    Attributes:
        candidates: pathways that were tested.
        asked: (pathway, question) pairs that were run.
        operations: of what was run, in full forwards of a question.
    """

    candidates: int = 0
    asked: int = 0
    operations: float = 0.0

    def __add__(self, other: Effort) -> Effort:  # type: ignore[override]
        return Effort(self[0] + other[0], self[1] + other[1], self[2] + other[2])

    def __sub__(self, other: Effort) -> Effort:
        return Effort(self[0] - other[0], self[1] - other[1], self[2] - other[2])


class Keeping:
    """Tests pathways by how many answers they keep.

    A question is *kept* if its margin is at least `slack` times the median margin with nothing cut. Those that are
    answered wrongly with nothing cut do not count.

    Args:
        judge: has the questions.
        slack: share of the median margin.
        max_memory: bytes for kept runs; None: half of what is free.

    Attributes:
        judge: has the questions.
        effort: what all tests have cost.
        needed: the margin that a kept question has.
        n: questions that count.
        margins: of every question, along the pathway that it was accepted in last.
    """

    def __init__(self, judge: Judge, slack: float, max_memory: int | None = None) -> None:
        self.judge, self.effort = judge, Effort(operations=float(judge.n))  # with nothing cut
        right = judge.full > 0
        self.needed = slack * float(judge.full[right].median())
        self._counted = right.nonzero().flatten()
        self.n = len(self._counted)
        self.margins = judge.full.clone()
        self._before: list[Living | None] = [None] * judge.n
        self._layouts = _kept_runs(judge, budget_of(judge.model, max_memory))
        self._place = {i: (one, slot) for one, members in enumerate(judge.layouts) for slot, i in enumerate(members)}

    def test(self, pathway: Any, most_lost: int) -> bool:
        """Whether a pathway loses at most so many questions. If so, their runs along it are kept for the next test."""
        check_alike(pathway)
        self.effort += Effort(candidates=1)
        way, lost, left, done = _Way(self._layouts, pathway), 0, self.n, list[_Asked]()
        for members in self._batches(most_lost):
            done.append(asked := self._ask(way, members))
            lost, left = lost + int((asked.margins < self.needed).sum()), left - len(members)
            if lost > most_lost:
                return False
            if lost + left <= most_lost:
                break
        for asked in done:
            self._keep(way, asked)
        return True

    def _batches(self, most_lost: int) -> Iterator[list[int]]:
        """The questions that count, in batches of one layout and one kept run. Of each kind those with the smallest
        margin come first; kinds take turns, in the order of their smallest margin, with more questions each time."""
        alike: dict[tuple[int, int], list[int]] = {}
        for i in self._counted[self.margins[self._counted].argsort(stable=True)].tolist():
            alike.setdefault((self._place[i][0], id(self._before[i])), []).append(i)
        left, size = list(alike.values()), max(_FIRST, most_lost + 1)  # fewer decide nothing
        while left:
            for members in left:
                some = members[:size]
                for first in range(0, len(some), MOST_IN_A_BATCH):
                    yield some[first : first + MOST_IN_A_BATCH]
            left, size = [members[size:] for members in left if len(members) > size], 2 * size

    def _ask(self, way: _Way, members: list[int]) -> _Asked:
        """Some questions of one layout along a pathway, from one kept run."""
        layout = self._place[members[0]][0]
        plan = way.plan(layout, self._before[members[0]])
        ran = self._layouts[layout].run(plan, torch.tensor([self._place[i][1] for i in members]))
        if ran.logits is None:
            return _Asked(members, self.margins[members], ran)
        self.effort += Effort(0, len(members), len(members) * plan.share)
        return _Asked(members, margins_of(ran.logits, [self.judge.prompts[i] for i in members]), ran)

    def _keep(self, way: _Way, asked: _Asked) -> None:
        """Some questions' runs become those of the pathway that they were asked along."""
        self.margins[asked.members] = asked.margins
        layout = self._place[asked.members[0]][0]
        some = self._layouts[layout].keep(asked.ran)
        for i in asked.members:
            if self._place[i][1] in some:
                self._before[i] = way.living(layout)


def _kept_runs(judge: Judge, room: int) -> list[KeptRuns]:
    """Of every layout, in so many bytes together."""
    found = []
    for members in judge.layouts:
        prompts = [judge.prompts[i] for i in members]
        found.append(KeptRuns(judge.model, prompts, room))
        room -= found[-1].n_bytes
    return found


class _Asked(NamedTuple):
    """Questions and their margins along a pathway."""

    members: list[int]
    margins: Float[Tensor, " member"]
    ran: Ran


class _Way:
    """To one pathway, from whatever kept runs are of."""

    def __init__(self, layouts: Sequence[KeptRuns], pathway: Any) -> None:
        self._layouts, self._pathway = layouts, pathway
        self._living: dict[int, Living] = {}
        self._plans: dict[tuple[int, int], ChangePlan] = {}

    def living(self, layout: int) -> Living:
        """What the pathway leaves of a layout."""
        if layout not in self._living:
            self._living[layout] = self._layouts[layout].changes.living(self._pathway)
        return self._living[layout]

    def plan(self, layout: int, before: Living | None) -> ChangePlan:
        """What must be computed of it."""
        if (layout, id(before)) not in self._plans:
            self._plans[layout, id(before)] = self._layouts[layout].changes.plan(before, self.living(layout))
        return self._plans[layout, id(before)]
