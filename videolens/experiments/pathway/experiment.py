"""Does the answer stay when only a pathway is left? Accuracy under a pathway, and under random cuts of the same size.

Map the Flow, section "Effective pathways" and table 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from torch import Tensor

from videolens.engine import check_engine, sweep
from videolens.engine.foreseeing import Foreseen, Machine, foresee
from videolens.errors import VideolensError, check_whole, near
from videolens.experiments.common.asking import ask_all
from videolens.experiments.common.experiment import Asked, Cost, Experiment, Gathered, Tick
from videolens.experiments.common.provenance import made_with
from videolens.experiments.common.scoring import check_answerable, choice_of
from videolens.experiments.pathway.result import FULL, PATHWAY, PathwayAccuracy, PathwayRow, PathwaySettings
from videolens.interventions.cut_routes import CutRoutes
from videolens.interventions.edges import live_in_full
from videolens.interventions.random_blocking import MATCHES, RandomBlocking
from videolens.interventions.route_pathway import pathway_from
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt
from videolens.question import Question


def evaluate_pathway(
    model: HookedVideoTransformer,
    questions: Question | Prompt | Iterable[Question | Prompt],
    pathway: CutRoutes | Mapping[str, Any],
    *,
    random: Sequence[str] = ("live edges", "routes and layers"),
    seeds: int = 3,
    seed: int = 0,
    engine: str = "exact",
    max_memory: int | None = None,
    progress: bool = True,
) -> PathwayAccuracy:
    """Ask every question in full, along the pathway only, and under random cuts that leave as much.

    1. Under each condition: the option whose letter has the largest logit among the options' letters at the last
       position is the choice. Whether the right letter ranks first in the whole vocabulary is noted beside it.
    2. Count the open and the live edges of every condition in this prompt.

    No question is left out: a question whose answer is not known is an error.

    Args:
        model: the model.
        questions: multiple-choice questions with known answers, or prompts made from them.
        pathway: what stays open; or the mapping that `pathway_from` takes.
        random: what random cuts have in common with the pathway: names from `MATCHES`
            (`videolens.interventions.random_blocking`); empty for none.
        seeds: random cuts drawn, per kind and question.
        seed: of the bootstrap, and of the first random cut.
        engine: "exact" or "full", as in `trace_flow`.
        max_memory: bytes that the exact engine may use besides the model; None: half of what is free.
        progress: show a bar if it takes longer than two seconds.

    Raises:
        QuestionError: a question without options or without a known answer.
        VideolensError: no questions, a pathway for another depth, an unknown kind of random cut.
    """
    experiment = PathwayExperiment(
        model, pathway=pathway, random=random, seeds=seeds, seed=seed, engine=engine, max_memory=max_memory
    )
    return ask_all(experiment, questions, progress=progress)


@dataclass
class PathwayExperiment(Experiment[PathwayAccuracy]):
    """The steps of `evaluate_pathway`, the same for every question. The arguments are those of `evaluate_pathway`.

    Raises:
        VideolensError: a pathway for another depth, an unknown kind of random cut or engine, no seeds.
    """

    name: ClassVar[str] = "pathway"
    row = PathwayRow
    dtypes: ClassVar[dict[str, str]] = {"seed": "Int64"}

    model: HookedVideoTransformer
    _: KW_ONLY
    pathway: CutRoutes | Mapping[str, Any]
    random: Sequence[str] = ("live edges", "routes and layers")
    seeds: int = 3
    seed: int = 0
    engine: str = "exact"
    max_memory: int | None = None

    def __post_init__(self) -> None:
        model, random = self.model, self.random
        self.open = self.pathway if isinstance(self.pathway, CutRoutes) else pathway_from(self.pathway)
        self.open.check(n_layers=model.cfg.n_layers, n_heads=model.cfg.n_heads)
        listed = isinstance(random, Sequence) and not isinstance(random, str)
        if not listed or any(random.count(kind) > 1 for kind in random):
            raise VideolensError(f"random is {random!r}: give a list of kinds, each once, from {list(MATCHES)}")
        for kind in random:
            if kind not in list(MATCHES):
                raise VideolensError(near(kind, MATCHES, kind="kind of random cut"))
        check_whole("seed", self.seed)
        check_whole("seeds", self.seeds, most=10_000)
        if self.seeds < 1 and random:
            raise VideolensError(f"seeds = {self.seeds}: draw at least one random cut of each kind, or pass random=[]")
        check_engine(self.engine)
        self.cuts: list[tuple[str, int | None, CutRoutes | RandomBlocking]] = [(PATHWAY, None, self.open)]
        self.cuts += [
            (f"random, {kind}", seed, RandomBlocking(self.open, seed, kind))
            for kind in random
            for seed in range(self.seed, self.seed + self.seeds)
        ]

    def ask(self, prompt: Prompt, name: str, task: str, tick: Tick) -> Asked:
        """Rows of the table for one question: one per condition and seed."""
        check_answerable(prompt, name)
        # 1. what it chooses under each condition
        cuts = [cut for _, _, cut in self.cuts]
        found = sweep(self.model, prompt, cuts, engine=self.engine, max_memory=self.max_memory, tick=tick)
        # 2. what each condition leaves open
        n, depth = prompt.shape[1], self.model.cfg.n_layers
        whole = (depth * (n * (n + 1) // 2), live_in_full(n, depth))
        conditions: list[tuple[str, int | None, Tensor, tuple[int, int]]] = [(FULL, None, found.base, whole)]
        conditions += [
            (condition, seed, logits, (cut.edges(prompt), cut.live_edges(prompt)))
            for (condition, seed, cut), logits in zip(self.cuts, found.logits, strict=True)
        ]
        rows = [
            PathwayRow(name, task, condition, seed, *choice_of(logits, prompt)[:6], *kept, *whole)
            for condition, seed, logits, kept in conditions
        ]
        return Asked(rows, cost=Cost.of(found))

    def foresee(self, prompt: Prompt, machine: Machine) -> Foreseen:
        """Of one sweep over the pathway and the random cuts."""
        cuts = [cut for _, _, cut in self.cuts]
        return foresee(self.model, prompt, cuts, engine=self.engine, max_memory=self.max_memory, machine=machine)

    def result(self, gathered: Gathered) -> PathwayAccuracy:
        """Accuracies of all questions."""
        gathered.check_left()
        settings = PathwaySettings(
            **made_with(self.model, gathered),
            pathway=self.open.to_dict(),
            random=tuple(self.random),
            seeds=self.seeds,
            seed=self.seed,
            engine=self.engine,
        )
        return PathwayAccuracy(gathered.table, settings)
