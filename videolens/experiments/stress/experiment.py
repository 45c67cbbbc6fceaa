"""Asking perturbed questions of the whole model and along pathways."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from videolens.engine.full import each_logits
from videolens.errors import QuestionError, VideolensError, check_flag, check_whole
from videolens.experiments.common.asking import ask_all
from videolens.experiments.common.experiment import Asked, Cost, Experiment, Gathered, Skip, Tick
from videolens.experiments.common.gradients import check_passes_gradients
from videolens.experiments.common.provenance import made_with
from videolens.experiments.common.scoring import check_answerable
from videolens.experiments.stress.attack import attack
from videolens.experiments.stress.cases import POSITIONS, Case, row_of, side_by_side
from videolens.experiments.stress.perturbations import (
    ADVERSARIAL,
    EPSILON,
    NONE,
    PERTURBATIONS,
    SEVERITIES,
    check_perturbations,
    check_severities,
    grid,
    perturbed,
)
from videolens.experiments.stress.result import FULL, Stress, StressRow, StressSettings
from videolens.interventions.cut_routes import CutRoutes
from videolens.interventions.route_pathway import pathway_from
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt
from videolens.question import Question

PATHWAY = "pathway"
_STEP_COST = 3.0  # a step of an attack in plain forwards: a forward, and a backward for twice that


def stress(
    model: HookedVideoTransformer,
    pathway: CutRoutes | Mapping[str, Any],
    questions: Question | Iterable[Question | Prompt],
    *,
    perturbations: Sequence[str] = tuple(PERTURBATIONS),
    severities: Sequence[int] = SEVERITIES,
    steps: int = 10,
    compiled: bool = False,
    seed: int = 0,
    progress: bool = True,
) -> Stress:
    """Is a pathway as robust as the whole model? Both are asked questions whose frames, order or words are disturbed.

    1. Ask every question as it is, then after each perturbation in each severity, with nothing cut and along every
       pathway: all of them the same prompt.
    2. "adversarial": projected gradient descent through vision tower and decoder, on the margin of the right option,
       with at most 1, 2, 4 levels of 255 per colour and pixel. Each condition is attacked for itself.
    3. The choice is the option whose letter has the largest logit among the options' letters.

    What counts as right after a perturbation stands in the settings (`right`): mostly the answer as it was, even where
    the perturbed clip may not show it any more; of a reversed clip its `reversed_answer`.

    Args:
        model: the model.
        pathway: what stays open, or the mapping that `pathway_from` takes; or several by name.
        questions: multiple-choice questions with known answers. Of prompts the questions are asked anew.
        perturbations: names, from `PERTURBATIONS` (`videolens.experiments.stress.perturbations`).
        severities: some of 1, 2, 3. "reversed" has one.
        steps: of an adversarial perturbation.
        compiled: ask the compiled pathways (`model.compile`) as well.
        seed: of everything that is drawn, with the question's task and id; and of the bootstrap.
        progress: show a bar if it takes longer than two seconds.

    Raises:
        QuestionError: a question without options or without a known answer.
        ModelError: an adversarial perturbation of a model that passes no gradient.
        VideolensError: no questions, no pathway or one for another depth, an unknown perturbation or severity.
    """
    experiment = StressExperiment(
        model,
        pathway=pathway,
        perturbations=perturbations,
        severities=severities,
        steps=steps,
        compiled=compiled,
        seed=seed,
    )
    return ask_all(experiment, questions, progress=progress)


@dataclass
class StressExperiment(Experiment[Stress]):
    """Steps 1 to 3 of `stress`. The arguments are those of `stress`. Prompts of one layout are run side by side.

    Raises:
        ModelError, VideolensError: as `stress`.
    """

    name: ClassVar[str] = "stress"
    row = StressRow

    model: HookedVideoTransformer
    _: KW_ONLY
    pathway: CutRoutes | Mapping[str, Any]
    perturbations: Sequence[str] = tuple(PERTURBATIONS)
    severities: Sequence[int] = SEVERITIES
    steps: int = 10
    compiled: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        self.perturbations = check_perturbations(self.perturbations)
        self.severities = check_severities(self.severities)
        check_whole("steps", self.steps, least=1)
        check_whole("seed", self.seed)
        check_flag("compiled", self.compiled)
        self.pathways = _pathways(self.pathway)
        for one in self.pathways.values():
            one.check(n_layers=self.model.cfg.n_layers, n_heads=self.model.cfg.n_heads)
        if ADVERSARIAL in self.perturbations:
            check_passes_gradients(self.model, "blocks.", "frontend.")
        wanted = self.compiled or ADVERSARIAL in self.perturbations
        self.fast = {name: self.model.compile(one) for name, one in self.pathways.items()} if wanted else {}

    def ask(self, prompt: Prompt, name: str, task: str, tick: Tick) -> Asked:
        """The rows of one question: one per perturbation, severity and condition.

        Raises:
            QuestionError: it has no options, or its answer is not known.
        """
        if prompt.question is None:
            raise QuestionError(
                f"{name!r} was made by hand, without a question that could be perturbed: give Questions"
            )
        check_answerable(prompt, name)
        question = replace(prompt.question, id=name, task=task)
        plain = self.model.prompt(question)
        asked = [(NONE, 0), *grid(self.perturbations, self.severities)]
        skipped: list[Skip] = []
        rows: dict[tuple[str, int], list[StressRow]] = {each: [] for each in asked}
        forwards = 0.0
        for cases in side_by_side(self._cases(plain, asked, skipped)):
            batch = self._batch(cases)
            for condition in self.conditions:
                self._add(rows, cases, condition, batch)
            forwards += len(cases) * len(self.conditions)
            tick(len(cases) / len(asked))
        if attacks := [severity for perturbation, severity in asked if perturbation == ADVERSARIAL]:
            forwards += self._attack(rows, plain, attacks)
            tick(len(attacks) / len(asked))
        in_order = [row for each in asked for row in rows[each]]
        return Asked(in_order, list(dict.fromkeys(skipped)), Cost(forwards, forwards))

    @property
    def conditions(self) -> list[str]:
        """Nothing cut, and the pathways, by name."""
        return [FULL, *self.pathways]

    def _cases(self, plain: Prompt, asked: Sequence[tuple[str, int]], skipped: list[Skip]) -> Iterator[Case]:
        """What step 1 asks, made one at a time; what is left out is noted in `skipped`. Words are read once where they
        stay the same."""
        question = plain.question
        assert question is not None
        for perturbation, severity in asked:
            if perturbation == ADVERSARIAL:
                continue
            one = question if not severity else perturbed(perturbation, question, severity, seed=self.seed)
            if one is None:
                why = f"it needs {PERTURBATIONS[perturbation].needs}"
                skipped.append(Skip(question.id, question.task, perturbation, why))
                continue
            if (one.stem, one.options, one.answer) == (question.stem, question.options, question.answer):
                yield Case(question, perturbation, severity, plain, self.model.pixels(one.video))
            else:
                yield Case(question, perturbation, severity, self.model.prompt(one))

    @torch.no_grad()
    def _batch(self, cases: Sequence[Case]) -> Prompt:
        """What is asked side by side."""
        frames = [case.pixels for case in cases if case.pixels is not None]
        if frames:
            return self.model.frontend.shown(cases[0].prompt.repeated(len(frames)), torch.stack(frames))
        return Prompt.batch([case.prompt for case in cases])

    def _attack(self, rows: dict[tuple[str, int], list[StressRow]], plain: Prompt, severities: Sequence[int]) -> float:
        """Step 2: the rows of prompts that were attacked under each condition; and what it cost, in plain forwards."""
        assert plain.question is not None
        cases = [Case(plain.question, ADVERSARIAL, severity, plain) for severity in severities]
        size = max(1, POSITIONS // plain.shape[1])
        groups = [cases[at : at + size] for at in range(0, len(cases), size)]
        for condition in self.conditions:
            for some in groups:
                epsilons = [EPSILON[case.severity - 1] for case in some]
                found = attack(self.model, plain, self._traced(condition), epsilons=epsilons, steps=self.steps)
                self._add(rows, some, condition, found.prompt)
        steps = len(groups) + len(cases) * (self.steps - 1)  # all of a group begin in one place
        return len(self.conditions) * (_STEP_COST * steps + 2 * len(cases))

    def _traced(self, condition: str) -> Callable[[Prompt], Tensor]:
        """What is attacked. Compiled, a pathway has the slopes that it has masked, for less."""
        if condition == FULL:
            return lambda batch: each_logits(self.model, batch, ())
        return lambda batch: self.fast[condition].traced(batch)[:, 0]

    @torch.no_grad()
    def _add(
        self, rows: dict[tuple[str, int], list[StressRow]], cases: Sequence[Case], condition: str, batch: Prompt
    ) -> None:
        """Step 3: the rows of prompts that are asked side by side."""
        hooks = () if condition == FULL else self.pathways[condition].hooks(batch)
        logits = each_logits(self.model, batch, hooks)
        compiled = self.compiled and condition != FULL
        again = self.fast[condition](batch)[:, 0].to(logits) if compiled else [None] * len(cases)
        for case, own, other in zip(cases, logits, again, strict=True):
            rows[case.perturbation, case.severity].append(row_of(case, condition, own, other))

    def result(self, gathered: Gathered) -> Stress:
        """The table of all questions."""
        gathered.check_left()
        settings = StressSettings(
            **made_with(self.model, gathered),
            n_layers=self.model.cfg.n_layers,
            pathways={name: one.to_dict() for name, one in self.pathways.items()},
            perturbations=tuple(self.perturbations),
            severities=tuple(self.severities),
            right={name: PERTURBATIONS[name].right for name in self.perturbations},
            steps=self.steps,
            compiled=self.compiled,
            seed=self.seed,
        )
        return Stress(gathered.table, settings)


def _pathways(given: Any) -> dict[str, CutRoutes]:
    """Pathways by name, from one or several.

    Raises:
        VideolensError: none, something else, or a name that is none or "full".
    """
    if isinstance(given, CutRoutes):
        return {PATHWAY: given}
    if not isinstance(given, Mapping) or not given:
        raise VideolensError(
            f"the pathway is {given!r}: give one, such as choose_pathway(…).pathway, or several by name, "
            "{name: pathway}"
        )
    if not all(isinstance(one, (CutRoutes, Mapping)) for one in given.values()):
        return {PATHWAY: pathway_from(given)}
    for name in given:
        if not isinstance(name, str) or not name.strip() or name == FULL:
            raise VideolensError(f"a pathway is called {name!r}: {FULL!r} is the model with nothing cut")
    return {name: one if isinstance(one, CutRoutes) else pathway_from(one) for name, one in given.items()}
