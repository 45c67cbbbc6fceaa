"""How many answers a pathway keeps: asked of many questions at once, and given up as soon as too many are lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from videolens.experiments.common.scoring import check_answerable
from videolens.interventions.cut_routes import CutRoutes
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
        for i, prompt in enumerate(self.prompts):
            name = prompt.question.id if prompt.question is not None and prompt.question.id else f"number {i}"
            check_answerable(prompt, name)
        self.batches = list(_batches(self.prompts))

    @property
    def n(self) -> int:
        """Questions."""
        return len(self.prompts)

    @cached_property
    def full(self) -> Float[Tensor, " question"]:
        """The margin of every question with nothing cut."""
        found = torch.zeros(self.n)
        for members, prompt in self.batches:
            found[members] = margins_of(self.model(prompt)[:, -1], [self.prompts[i] for i in members])
        return found

    def judge(self, pathway: CutRoutes) -> Judged:
        """Every question along a pathway."""
        run, margins, live, flops = (
            self.model.compile(pathway),
            torch.zeros(self.n),
            torch.zeros(self.n),
            torch.zeros(self.n),
        )
        for members, prompt in self.batches:
            margins[members] = margins_of(run(prompt)[:, -1], [self.prompts[i] for i in members])
            plan = run.plan(prompt)
            live[members] = sum(one.pairs for one in plan.layers) / _live_in_full(prompt.shape[1], len(plan.layers))
            flops[members] = plan.flops / plan.full_flops
        return Judged(margins, live, flops)

    def sizes(self, pathway: CutRoutes) -> tuple[float, float]:
        """Shares of the live edges and of the operations that a pathway leaves, mean over questions. Nothing is run."""
        run, live, flops = self.model.compile(pathway), 0.0, 0.0
        for members, prompt in self.batches:
            plan, share = run.plan(prompt), len(members) / self.n
            live += share * sum(one.pairs for one in plan.layers) / _live_in_full(prompt.shape[1], len(plan.layers))
            flops += share * plan.flops / plan.full_flops
        return live, flops

    def keeps(self, pathway: CutRoutes, *, needed: Float[Tensor, " question"], most_lost: int) -> bool:
        """Whether at most so many questions fall below the margin that each needs. Ends as soon as more do, which
        changes nothing but the cost."""
        self.effort.candidates += 1
        lost, run = 0, self.model.compile(pathway)
        for members, prompt in self.batches:
            margins = margins_of(run(prompt)[:, -1], [self.prompts[i] for i in members])
            lost += int((margins < needed[members]).sum())
            plan = run.plan(prompt)
            self.effort.asked += len(members)
            self.effort.operations += len(members) * plan.flops / plan.full_flops
            if lost > most_lost:
                return False
        return True


def _live_in_full(n_pos: int, n_layers: int) -> int:
    """Live edges with nothing cut."""
    return (n_layers - 1) * (n_pos * (n_pos + 1) // 2) + n_pos


def margins_of(logits: Float[Tensor, "batch d_vocab"], prompts: Sequence[Prompt]) -> Float[Tensor, " batch"]:
    """Logit of the right option minus that of the best other one."""
    found = []
    for one, prompt in zip(logits, prompts, strict=True):
        others = [token for token in prompt.option_tokens if token != prompt.answer_token]
        found.append(one[prompt.answer_token] - one[others].max())
    return torch.stack(found).float().cpu()


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
