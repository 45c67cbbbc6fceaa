"""What is asked in a stress test: perturbed questions, which of them are run side by side, and the row of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from videolens.experiments.common.scoring import choice_of
from videolens.experiments.stress.result import StressRow
from videolens.model.agreement import apart
from videolens.model.compiled.opening import layout_of
from videolens.prompt.prompt import Prompt
from videolens.question import Question

POSITIONS = 4096  # of the prompts that are run side by side: more of them save no more time


class Case(NamedTuple):
    """A question after a perturbation.

    Attributes:
        question: as it was.
        perturbation, severity: what is done to it.
        prompt: of what is asked.
        pixels: where only the frames are others than the prompt's, these frames, prepared.
    """

    question: Question
    perturbation: str
    severity: int
    prompt: Prompt
    pixels: Float[Tensor, "frame channel height width"] | None = None


def side_by_side(cases: Iterable[Case]) -> Iterator[list[Case]]:
    """Neighbours of one layout, no more than are worth a forward together."""

    def layout(case: Case) -> object:
        return case.pixels is None, layout_of(case.prompt.tokens, by_roles=True)

    for _, alike in groupby(cases, key=layout):
        some: list[Case] = []
        for case in alike:
            if some and (len(some) + 1) * case.prompt.shape[1] > POSITIONS:
                yield some
                some = []
            some.append(case)
        yield some


def row_of(
    case: Case, condition: str, logits: Float[Tensor, " d_vocab"], compiled: Float[Tensor, " d_vocab"] | None
) -> StressRow:
    """The row of a case under a condition. Options are named by their words: letters may be others after a
    perturbation.

    Args:
        case: what was asked.
        condition: "full", or the name of a pathway.
        logits: of the last position.
        compiled: those of the compiled pathway, where it was asked.
    """
    prompt, question = case.prompt, case.question
    found, same, off = choice_of(logits, prompt), "", float("nan")
    if compiled is not None:
        same = _option(prompt, choice_of(compiled, prompt).choice)
        off = apart(compiled, logits)
    return StressRow(
        question.id,
        question.task,
        case.perturbation,
        case.severity,
        condition,
        found.n_options,
        _option(prompt, found.answer),
        _option(prompt, found.choice),
        found.correct,
        found.confidence,
        found.p_answer,
        same,
        off,
    )


def _option(prompt: Prompt, letter: str) -> str:
    assert prompt.question is not None and prompt.question.options is not None
    return prompt.question.options[ord(letter) - ord("A")]
