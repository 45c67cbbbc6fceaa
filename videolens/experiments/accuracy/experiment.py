"""Accuracy: which option a model picks, with the clip as it is and with its time taken away."""

from __future__ import annotations

import string
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from videolens.engine import last_logits
from videolens.errors import VideolensError
from videolens.experiments.accuracy.conditions import apply, check
from videolens.experiments.accuracy.result import COLUMNS, Accuracy, AccuracySettings
from videolens.experiments.common.asking import Asked, Skip
from videolens.experiments.common.provenance import versions
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt
from videolens.question import Question

__all__ = ["AccuracyExperiment", "measure_accuracy", "option_probabilities"]

_QUIET_S = 2.0  # shorter work than this needs no progress bar


def measure_accuracy(
    model: HookedVideoTransformer,
    questions: Iterable[Question],
    *,
    conditions: Sequence[str] = ("as is",),
    name: str | None = None,
    seed: int = 0,
    max_batch: int = 32,
    progress: bool = True,
) -> Accuracy:
    """Ask every question under every condition, and note which option the model picks.

    1. Change the question's video as the condition says (`CONDITIONS`), and make the prompt.
    2. Run prompts of the same layout side by side.
    3. The choice is the option whose letter has the largest logit *among the options' letters* at the last position.
       Whether the token ranked first in the whole vocabulary is an option's letter at all is noted beside it.
    4. It is correct if it is the option that is right under the condition.

    Args:
        model: the model.
        questions: multiple-choice questions whose answer is known.
        conditions: names from `CONDITIONS`.
        name: what to call the model in the table; None: what it was loaded as.
        seed: of the order of shuffled frames.
        max_batch: prompts run side by side.
        progress: show a bar if it takes longer than two seconds.

    Raises:
        QuestionError: a question without options or answer, or one whose reversed answer is not known.
        VideolensError: no questions, an unknown condition, or options that begin with the same token.
    """
    conditions = check(conditions)
    questions = list(questions)
    if not questions:
        raise VideolensError("there are no questions to ask: give at least one")
    if max_batch < 1:
        raise VideolensError(f"max_batch must be at least 1, got {max_batch}")
    name = name if name is not None else str(model.cfg.model_name or "model")
    asked = [_Asked(i, condition, question) for i, question in enumerate(questions) for condition in conditions]
    rows: dict[tuple[int, str], tuple[Any, ...]] = {}
    with tqdm(
        total=len(asked), desc=f"asking {name}", unit="question", delay=_QUIET_S, disable=not progress, leave=False
    ) as bar:
        for batch in _by_layout(_prompts(model, asked, seed), max_batch):
            for (one, prompt), row in zip(batch, _answers(model, [prompt for _, prompt in batch]), strict=True):
                question = prompt.question
                assert question is not None
                rows[one.index, one.condition] = (name, one.question.task, question.id, one.condition, *row)
            bar.update(len(batch))
    table = pd.DataFrame([rows[one.index, one.condition] for one in asked], columns=list(COLUMNS))
    settings = AccuracySettings(
        model=name,
        n_asked=len(questions),
        conditions=conditions,
        seed=seed,
        dtype=str(model.cfg.dtype).removeprefix("torch."),
        device=str(model.cfg.device),
        versions=versions(),
    )
    return Accuracy(table, (settings,))


class AccuracyExperiment:
    """`measure_accuracy` one question at a time, for runs: the same numbers to rounding.

    Args:
        model: the model; it is called what it was loaded as.
        conditions: names from `CONDITIONS`.
        seed: of the order of shuffled frames.

    Raises:
        VideolensError: an unknown condition.
    """

    name = "accuracy"
    columns = COLUMNS
    dtypes: ClassVar[dict[str, str]] = {}

    def __init__(self, model: HookedVideoTransformer, *, conditions: Sequence[str] = ("as is",), seed: int = 0) -> None:
        self.model, self.conditions, self.seed = model, check(conditions), seed
        self._called = str(model.cfg.model_name or "model")

    def ask(self, prompt: Prompt, name: str, task: str, tick: Callable[[float], Any]) -> Asked:
        """A row of the table per condition.

        Raises:
            QuestionError: the question has no options or answer, or its reversed answer is not known.
        """
        if prompt.question is None:
            return Asked([], [Skip(name, task, None, "the prompt was made by hand: it has no question")])
        question = replace(prompt.question, id=name, task=task)
        rows = []
        for condition in self.conditions:
            [(_, one)] = _prompts(self.model, [_Asked(0, condition, question)], self.seed)
            [row] = _answers(self.model, [one])
            rows.append((self._called, task, name, condition, *row))
            tick(1 / len(self.conditions))
        return Asked(rows, [])

    def result(self, table: pd.DataFrame, skipped: Sequence[Skip], n_asked: int, seconds: float | None) -> Accuracy:
        """The accuracies of all questions that were answered; the others stand in the settings."""
        if not len(table):
            reasons = sorted({skip.reason for skip in skipped})
            raise VideolensError(f"none of the {n_asked} questions is left: {'; '.join(reasons)}")
        settings = AccuracySettings(
            model=self._called,
            n_asked=len(table) // len(self.conditions),
            conditions=self.conditions,
            seed=self.seed,
            dtype=str(self.model.cfg.dtype).removeprefix("torch."),
            device=str(self.model.cfg.device),
            versions=versions(),
            skipped=tuple(skipped),
        )
        return Accuracy(table, (settings,))


def option_probabilities(model: HookedVideoTransformer, prompt: Prompt) -> Float[Tensor, " option"]:
    """Probability of every option's letter (or first token) at the last position of one prompt, among all tokens."""
    return last_logits(model, prompt).softmax(-1)[list(prompt.option_tokens)]


@dataclass(frozen=True)
class _Asked:
    """A question to be asked under a condition; `index` counts questions."""

    index: int
    condition: str
    question: Question


Layout = tuple[bytes, bytes]
Waiting = list[tuple[_Asked, Prompt]]


def _prompts(model: HookedVideoTransformer, asked: Iterable[_Asked], seed: int) -> Iterator[tuple[_Asked, Prompt]]:
    """Step 1, one after the other: a prompt is made only when its turn comes."""
    for one in asked:
        question = replace(one.question, id=one.question.id or f"question {one.index}")
        question.letter  # noqa: B018 - says what is missing, before any work is done
        prompt = model.prompt(apply(one.condition, question, seed=seed))
        if len(set(prompt.option_tokens)) != len(prompt.option_tokens):
            raise VideolensError(
                f"question {question.id!r}: some of its options begin with the same token, so the token at the last "
                "position does not tell them apart"
            )
        # the tower's work is in the residual already: what is kept until the batch is full should be small
        yield one, replace(prompt, pixel_values=None, video_features=None)


def _by_layout(prompts: Iterable[tuple[_Asked, Prompt]], max_batch: int) -> Iterator[Waiting]:
    """Step 2: batches of prompts in which every position is the same kind of thing."""
    waiting: dict[Layout, Waiting] = defaultdict(list)
    for one, prompt in prompts:
        layout = prompt.tokens.role.numpy().tobytes(), prompt.tokens.option.numpy().tobytes()
        waiting[layout].append((one, prompt))
        if len(waiting[layout]) == max_batch:
            yield waiting.pop(layout)
    yield from waiting.values()


@torch.no_grad()
def _answers(model: HookedVideoTransformer, prompts: Sequence[Prompt]) -> Iterator[tuple[Any, ...]]:
    """Steps 3 and 4: for each prompt the columns of the table from `n_options` on."""
    first = prompts[0]
    batch = replace(
        first,
        input_ids=torch.cat([prompt.input_ids for prompt in prompts]),
        residual=torch.cat([prompt.residual for prompt in prompts]),
        rotary=(
            torch.cat([prompt.rotary[0] for prompt in prompts]),
            torch.cat([prompt.rotary[1] for prompt in prompts]),
        ),
    )
    logits = model(batch)[:, int(first.tokens["last"][0])].float()
    probabilities = logits.softmax(-1)
    for prompt, scores, shares in zip(prompts, logits, probabilities, strict=True):
        question = prompt.question
        assert question is not None and question.answer_index is not None
        letters = string.ascii_uppercase[: len(question.choices)]
        chosen = int(scores[list(prompt.option_tokens)].argmax())
        yield (
            len(letters),
            letters[question.answer_index],
            letters[chosen],
            chosen == question.answer_index,
            float(shares[prompt.option_tokens[question.answer_index]]),
            int(scores.argmax()) in prompt.option_tokens,
        )
