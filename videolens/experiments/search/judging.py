"""How questions are answered along a pathway: by margins, and with what is left of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from videolens.errors import VideolensError
from videolens.experiments.common.scoring import check_answerable, margins_of
from videolens.interventions.edges import live_in_full
from videolens.model.compiled.changed_rows import layouts
from videolens.model.compiled.running import CompiledPathway
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt

MOST_IN_A_BATCH = 32


class Judged(NamedTuple):
    """Questions along a pathway.

    Attributes:
        margins: of every question.
        live_edges, flops: share of the whole that the pathway leaves of each.
    """

    margins: Float[Tensor, " question"]
    live_edges: Float[Tensor, " question"]
    flops: Float[Tensor, " question"]


@dataclass
class Judge:
    """Judges pathways by some questions, whose right options are known.

    A question's margin is the logit of the right option minus that of the best other.

    Args:
        model: the model.
        prompts: the questions, laid out for it.
    """

    model: HookedVideoTransformer
    prompts: Sequence[Prompt]

    def __post_init__(self) -> None:
        for prompt, (name, _) in zip(self.prompts, self.names, strict=True):
            check_answerable(prompt, name)

    @property
    def n(self) -> int:
        """Questions."""
        return len(self.prompts)

    @cached_property
    def layouts(self) -> list[list[int]]:
        """Questions of the same roles and frames everywhere."""
        return layouts(self.prompts)

    @property
    def names(self) -> list[tuple[str, str]]:
        """(question, task) of every question."""
        said = [("", "") if one.question is None else (one.question.id, one.question.task) for one in self.prompts]
        return [(name or f"number {i}", task) for i, (name, task) in enumerate(said)]

    @cached_property
    def full(self) -> Float[Tensor, " question"]:
        """The margin of every question with nothing cut."""
        found = torch.zeros(self.n)
        for members in self._batches():
            found[members] = self._margins(self.model, members)
        return found

    def judge(self, pathway: Any, tick: Callable[[int], None] = lambda more: None) -> Judged:
        """Every question along a pathway. `tick` is told how many are done."""
        run, (margins, live, flops) = self._compiled(pathway), torch.zeros(3, self.n)
        for members in self._batches():
            margins[members] = self._margins(run, members)
            live[members], flops[members] = shares(run, self.prompts[members[0]])
            tick(len(members))
        return Judged(margins, live, flops)

    def judge_each(self, cut: Callable[[Prompt], Any], tick: Callable[[int], None] = lambda more: None) -> Judged:
        """Every question along what is cut in it alone."""
        margins, live, flops = torch.zeros(3, self.n)
        for i, prompt in enumerate(self.prompts):
            run = self.model.compile(cut(prompt))
            margins[i] = margins_of(run(prompt)[:, -1], [prompt])
            live[i], flops[i] = shares(run, prompt)
            tick(1)
        return Judged(margins, live, flops)

    def sizes(self, pathway: Any) -> tuple[float, float]:
        """Shares of the live edges and of the operations that a pathway leaves, mean over questions. Nothing is run."""
        run, live, flops = self._compiled(pathway), 0.0, 0.0
        for members in self.layouts:
            found, weight = shares(run, self.prompts[members[0]]), len(members) / self.n
            live, flops = live + weight * found[0], flops + weight * found[1]
        return live, flops

    def _batches(self) -> Iterator[list[int]]:
        for members in self.layouts:
            for first in range(0, len(members), MOST_IN_A_BATCH):
                yield members[first : first + MOST_IN_A_BATCH]

    def _compiled(self, pathway: Any) -> CompiledPathway:
        check_alike(pathway)
        return self.model.compile(pathway)

    def _margins(self, run: Callable[[Prompt], Tensor], members: list[int]) -> Float[Tensor, " member"]:
        some = [self.prompts[i] for i in members]
        return margins_of(run(Prompt.batch(some))[:, -1], some)


def shares(run: CompiledPathway, prompt: Prompt) -> tuple[float, float]:
    """Shares of the live edges and of the operations that are left of a prompt."""
    plan = run.plan(prompt)
    live = sum(one.pairs for one in plan.layers) / live_in_full(prompt.shape[1], len(plan.layers))
    return live, plan.flops / plan.full_flops


def check_alike(pathway: Any) -> None:
    """Raise a `VideolensError` if a pathway says something else of prompts whose roles and frames are alike."""
    if pathway.by_roles:
        return
    for knockout in pathway.knockouts:
        if not knockout.by_roles:
            raise VideolensError(
                f"the pathway {pathway.name!r} cuts '{knockout.source} -> {knockout.target}', which stands elsewhere "
                "in every question: a search compares pathways of routes between parts and roles"
            )
