"""How many answers a pathway keeps: asked of many questions at once, and given up as soon as too many are lost."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from videolens.errors import VideolensError
from videolens.experiments.common.scoring import check_answerable, margins_of
from videolens.interventions.cut_routes import CutRoutes
from videolens.interventions.edges import live_in_full
from videolens.model.compiled.running import CompiledPathway
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt

FIRST_BATCH, MOST_IN_A_BATCH = 4, 32


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
class Effort:
    """What asking has cost.

    Attributes:
        candidates: pathways that were judged.
        asked: (pathway, question) pairs that were run.
        operations: of what was run, in full forwards of a question.
    """

    candidates: int = 0
    asked: int = 0
    operations: float = 0.0


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
    effort: Effort = field(default_factory=Effort)

    def __post_init__(self) -> None:
        for prompt, (name, _) in zip(self.prompts, self.names, strict=True):
            check_answerable(prompt, name)
        self.batches = list(_batches(self.prompts))

    @property
    def n(self) -> int:
        """Questions."""
        return len(self.prompts)

    @property
    def names(self) -> list[tuple[str, str]]:
        """(question, task) of every question."""
        said = [("", "") if one.question is None else (one.question.id, one.question.task) for one in self.prompts]
        return [(name or f"number {i}", task) for i, (name, task) in enumerate(said)]

    @cached_property
    def full(self) -> Float[Tensor, " question"]:
        """The margin of every question with nothing cut."""
        found = torch.zeros(self.n)
        for members, prompt in self.batches:
            found[members] = self._margins(self.model, members, prompt)
        return found

    def judge(self, pathway: CutRoutes) -> Judged:
        """Every question along a pathway."""
        run, (margins, live, flops) = self._compiled(pathway), torch.zeros(3, self.n)
        for members, prompt in self.batches:
            margins[members] = self._margins(run, members, prompt)
            live[members], flops[members] = _shares(run, prompt)
        return Judged(margins, live, flops)

    def sizes(self, pathway: CutRoutes) -> tuple[float, float]:
        """Shares of the live edges and of the operations that a pathway leaves, mean over questions. Nothing is run."""
        run, live, flops = self._compiled(pathway), 0.0, 0.0
        for members, prompt in self.batches:
            shares, weight = _shares(run, prompt), len(members) / self.n
            live, flops = live + weight * shares[0], flops + weight * shares[1]
        return live, flops

    def keeps(self, pathway: CutRoutes, *, needed: Float[Tensor, " question"], most_lost: int) -> bool:
        """Whether at most so many questions fall below the margin that each needs. Ends as soon as more do, which
        changes nothing but the cost."""
        self.effort.candidates += 1
        lost, run = 0, self._compiled(pathway)
        for members, prompt in self.batches:
            lost += int((self._margins(run, members, prompt) < needed[members]).sum())
            self.effort.asked += len(members)
            self.effort.operations += len(members) * _shares(run, prompt)[1]
            if lost > most_lost:
                return False
        return True

    def _compiled(self, pathway: CutRoutes) -> CompiledPathway:
        _check_alike(pathway)
        return self.model.compile(pathway)

    def _margins(self, run: Callable[[Prompt], Tensor], members: list[int], prompt: Prompt) -> Float[Tensor, " member"]:
        return margins_of(run(prompt)[:, -1], [self.prompts[i] for i in members])


def _shares(run: CompiledPathway, prompt: Prompt) -> tuple[float, float]:
    """Shares of the live edges and of the operations that are left of a prompt."""
    plan = run.plan(prompt)
    live = sum(one.pairs for one in plan.layers) / live_in_full(prompt.shape[1], len(plan.layers))
    return live, plan.flops / plan.full_flops


def _check_alike(pathway: CutRoutes) -> None:
    """Raise a `VideolensError` if a pathway says something else of prompts whose roles and frames are alike."""
    for knockout in pathway.knockouts:
        for name in re.split(r"\s*\|\s*", f"{knockout.source}|{knockout.target}"):
            if re.fullmatch(r"true option|false options|option [A-Z]|f\d+ r\d+ c\d+", name):
                raise VideolensError(
                    f"the pathway {pathway.name!r} cuts {name!r}, which stands elsewhere in every question: a search "
                    "compares pathways of routes between parts and roles"
                )


def _batches(prompts: Sequence[Prompt]) -> Iterator[tuple[list[int], Prompt]]:
    """Prompts that are laid out alike, in batches: what is open is worked out once for all of them.

    They share one token map, which is of the first of them: of what is searched and compared nothing depends on which
    option is right, or where options end. Batches of different layouts take turns, small ones first: most tests are
    lost in the first few.
    """
    alike: dict[bytes, list[int]] = {}
    for i, prompt in enumerate(prompts):
        alike.setdefault(_key(prompt), []).append(i)
    left, size = list(alike.values()), FIRST_BATCH
    while left:
        for members in left:
            one = Prompt.batch([prompts[i] for i in members[:size]])
            yield members[:size], replace(one, tokens=prompts[alike[_key(prompts[members[0]])][0]].tokens)
        left = [members[size:] for members in left if len(members) > size]
        size = min(2 * size, MOST_IN_A_BATCH)


def _key(prompt: Prompt) -> bytes:
    """Equal for prompts with the same roles and frames everywhere."""
    return b"|".join(each.numpy().tobytes() for each in (prompt.tokens.role, prompt.tokens.frame))
