"""Asking perturbed questions of the whole model and along pathways."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from videolens.engine import sweep
from videolens.errors import QuestionError, VideolensError, check_flag, check_whole
from videolens.experiments.common.asking import ask_all
from videolens.experiments.common.experiment import Asked, Cost, Experiment, Gathered, Skip, Tick
from videolens.experiments.common.gradients import check_passes_gradients
from videolens.experiments.common.provenance import made_with
from videolens.experiments.common.scoring import check_answerable, choice_of
from videolens.experiments.stress.attack import attack
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
    """Steps 1 to 3 of `stress`. The arguments are those of `stress`.

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
        self.fast = {name: self.model.compile(one) for name, one in self.pathways.items() if self.compiled}

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
        rows: list[StressRow] = []
        skipped: list[Skip] = []
        costs: list[Cost] = []
        asked = [(NONE, 0), *grid(self.perturbations, self.severities)]
        for perturbation, severity in asked:
            if perturbation == ADVERSARIAL:
                found, cost = self._attacked(self.model.prompt(question), severity)
            else:
                one = question if not severity else perturbed(perturbation, question, severity, seed=self.seed)
                if one is None:
                    skipped.append(Skip(name, task, perturbation, f"it needs {PERTURBATIONS[perturbation].needs}"))
                    continue
                found, cost = self._asked(self.model.prompt(one))
            costs.append(cost)
            rows += [
                self._row(name, task, perturbation, severity, condition, *each) for condition, each in found.items()
            ]
            tick(1 / len(asked))
        whole = Cost(*(sum(getattr(cost, of) for cost in costs) for of in ("forwards", "full_forwards")))
        return Asked(rows, list(dict.fromkeys(skipped)), whole)

    def _asked(self, prompt: Prompt) -> tuple[dict[str, tuple[Prompt, Tensor]], Cost]:
        """Step 1: by condition, the prompt and its last logits."""
        swept = sweep(self.model, prompt, list(self.pathways.values()))
        logits = dict(zip(self.pathways, swept.logits, strict=True))
        return {FULL: (prompt, swept.base)} | {name: (prompt, each) for name, each in logits.items()}, Cost.of(swept)

    def _attacked(self, prompt: Prompt, severity: int) -> tuple[dict[str, tuple[Prompt, Tensor]], Cost]:
        """Step 2: the same, of prompts that were attacked under each condition."""
        found = {}
        for condition, acting in {FULL: [], **{name: [one] for name, one in self.pathways.items()}}.items():
            one = attack(self.model, prompt, acting, epsilon=EPSILON[severity - 1], steps=self.steps)
            found[condition] = (one.prompt, one.logits)
        forwards = len(found) * (_STEP_COST * self.steps + 1)
        return found, Cost(forwards, forwards)

    def _row(
        self,
        name: str,
        task: str,
        perturbation: str,
        severity: int,
        condition: str,
        prompt: Prompt,
        logits: Float[Tensor, " d_vocab"],
    ) -> StressRow:
        """Step 3. Options are named by their words: letters may be others after a perturbation."""
        found = choice_of(logits, prompt)
        fast, same, apart = self.fast.get(condition), "", float("nan")
        if fast is not None:
            again = fast(prompt)[0, -1].to(logits)
            same = _option(prompt, choice_of(again, prompt).choice)
            apart = float((again - logits).abs().max() / logits.std())
        return StressRow(
            name,
            task,
            perturbation,
            severity,
            condition,
            found.n_options,
            _option(prompt, found.answer),
            _option(prompt, found.choice),
            found.correct,
            found.confidence,
            found.p_answer,
            same,
            apart,
        )

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


def _option(prompt: Prompt, letter: str) -> str:
    assert prompt.question is not None and prompt.question.options is not None
    return prompt.question.options[ord(letter) - ord("A")]


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
