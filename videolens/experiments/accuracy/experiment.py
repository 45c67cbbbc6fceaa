"""Accuracy: which option a model picks, with the clip as it is and with its time taken away."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from videolens.engine.foreseeing import Foreseen, Machine
from videolens.errors import check_whole
from videolens.experiments.accuracy.conditions import apply, check
from videolens.experiments.accuracy.result import Accuracy, AccuracyRow, AccuracySettings
from videolens.experiments.common.asking import ask_all
from videolens.experiments.common.experiment import Asked, Experiment, Gathered, Named, Skip, Tick
from videolens.experiments.common.provenance import made_with
from videolens.experiments.common.scoring import check_answerable, choice_of
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt
from videolens.question import Question


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
    check_whole("max_batch", max_batch, least=1)
    experiment = AccuracyExperiment(model, conditions=conditions, seed=seed, called=name, max_batch=max_batch)
    return ask_all(experiment, questions, progress=progress)


@dataclass
class AccuracyExperiment(Experiment[Accuracy]):
    """Steps 1 to 4 of `measure_accuracy`. In a run questions are asked one at a time: the same numbers to rounding.

    Args:
        model: the model.
        conditions: names from `CONDITIONS`.
        seed: of the order of shuffled frames.
        called: the model's name in the table; None: what it was loaded as.
        max_batch: prompts run side by side.

    Raises:
        VideolensError: an unknown condition.
    """

    name: ClassVar[str] = "accuracy"
    row = AccuracyRow

    model: HookedVideoTransformer
    _: KW_ONLY
    conditions: Sequence[str] = ("as is",)
    seed: int = 0
    called: str | None = None
    max_batch: int = 32

    def __post_init__(self) -> None:
        self.conditions = check(self.conditions)
        self.called = self.called if self.called is not None else str(self.model.cfg.model_name or "model")

    def ask(self, prompt: Prompt, name: str, task: str, tick: Tick) -> Asked:
        """A row of the table per condition.

        Raises:
            QuestionError: the question has no options or answer, or its reversed answer is not known.
        """
        return next(self.ask_each([Named(name, task, prompt)], tick))

    def ask_each(self, named: Iterable[Named], tick: Tick) -> Iterator[Asked]:
        """Questions side by side, where their prompts have the same layout; given back in their order."""
        given: list[Named] = []
        rows: dict[tuple[int, str], AccuracyRow] = {}
        for batch in _by_layout(self._under_conditions(named, given), self.max_batch):
            logits = _side_by_side(self.model, [prompt for _, _, prompt in batch])
            for (number, condition, prompt), each in zip(batch, logits, strict=True):
                found, one = choice_of(each, prompt), given[number]
                rows[number, condition] = AccuracyRow(
                    str(self.called),
                    one.task,
                    one.name,
                    condition,
                    n_options=found.n_options,
                    answer=found.answer,
                    choice=found.choice,
                    correct=found.correct,
                    p_answer=found.p_answer,
                    option_first=found.option_first,
                )
            tick(len(batch) / len(self.conditions))
        for number, one in enumerate(given):
            if (number, self.conditions[0]) in rows:
                yield Asked([rows[number, condition] for condition in self.conditions])
            else:
                yield Asked(skipped=[Skip(one.name, one.task, None, "the prompt was made by hand: it has no question")])

    def foresee(self, prompt: Prompt, machine: Machine) -> Foreseen:
        """A forward for every condition."""
        return Foreseen.plain(len(self.conditions))

    def result(self, gathered: Gathered) -> Accuracy:
        """The accuracies of all questions that were answered; the others stand in the settings."""
        gathered.check_left()
        made = made_with(self.model, gathered) | {"model": self.called}
        settings = AccuracySettings(**made, seed=self.seed, conditions=tuple(self.conditions))
        return Accuracy(gathered.table, (settings,))

    def _under_conditions(self, named: Iterable[Named], given: list[Named]) -> Iterator[_Waiting]:
        """Step 1, one after the other: a prompt is made only when its turn comes. Fills `given` as it goes."""
        for number, (name, task, prompt) in enumerate(named):
            given.append(Named(name, task, None))
            if prompt.question is None:
                continue
            question = replace(prompt.question, id=name, task=task)
            question.letter  # noqa: B018 - says what is missing, before any work is done
            for condition in self.conditions:
                changed = apply(condition, question, seed=self.seed)
                one = prompt if changed is question else self.model.prompt(changed)
                check_answerable(one, name)
                # the tower's work is in the residual already: what is kept until the batch is full should be small
                yield number, condition, replace(one, pixel_values=None, video_features=None)


_Waiting = tuple[int, str, Prompt]  # number of the question, condition, prompt


def _by_layout(prompts: Iterable[_Waiting], max_batch: int) -> Iterator[list[_Waiting]]:
    """Step 2: batches of prompts in which every position is the same kind of thing."""
    waiting: dict[tuple[bytes, bytes], list[_Waiting]] = defaultdict(list)
    for one in prompts:
        tokens = one[2].tokens
        layout = tokens.role.numpy().tobytes(), tokens.option.numpy().tobytes()
        waiting[layout].append(one)
        if len(waiting[layout]) == max_batch:
            yield waiting.pop(layout)
    yield from waiting.values()


@torch.no_grad()
def _side_by_side(model: HookedVideoTransformer, prompts: Sequence[Prompt]) -> Float[Tensor, "prompt d_vocab"]:
    """Logits at the last position of prompts that have the same layout."""
    first = prompts[0]
    batch = replace(
        first,
        input_ids=torch.cat([prompt.input_ids for prompt in prompts]),
        residual=torch.cat([prompt.residual for prompt in prompts]),
        rotary=(
            torch.cat([prompt.rotary[0] for prompt in prompts]),
            torch.cat([prompt.rotary[1] for prompt in prompts]),
        ),
        deepstack=tuple(map(torch.cat, zip(*(prompt.deepstack for prompt in prompts), strict=True))),
    )
    return model(batch)[:, int(first.tokens["last"][0])].float()
