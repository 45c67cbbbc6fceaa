"""Does the answer stay when only a pathway is left? Accuracy under a pathway, and under random cuts of the same size.

Map the Flow, section "Effective pathways" and table 3.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import pandas as pd
from torch import Tensor

from videolens.engine import check_engine, sweep
from videolens.errors import QuestionError, VideolensError, near
from videolens.experiments.common.asking import Asked, Row, Skip, ask_all
from videolens.experiments.common.provenance import made_with
from videolens.experiments.pathway.result import COLUMNS, FULL, PATHWAY, PathwayAccuracy, PathwaySettings
from videolens.interventions.pathway import Pathway
from videolens.interventions.random_blocking import MATCHES, RandomBlocking
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt
from videolens.question import Question

__all__ = ["PathwayExperiment", "evaluate_pathway"]


def evaluate_pathway(
    model: HookedVideoTransformer,
    questions: Question | Prompt | Iterable[Question | Prompt],
    pathway: Pathway | Mapping[str, Any],
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
        pathway: what stays open; or the mapping that `Pathway.from_dict` takes.
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


class PathwayExperiment:
    """The steps of `evaluate_pathway`, the same for every question. The arguments are those of `evaluate_pathway`.

    Raises:
        VideolensError: a pathway for another depth, an unknown kind of random cut or engine, no seeds.
    """

    name = "pathway"
    columns = COLUMNS
    dtypes: ClassVar[dict[str, str]] = {"seed": "Int64"}

    def __init__(
        self,
        model: HookedVideoTransformer,
        *,
        pathway: Pathway | Mapping[str, Any],
        random: Sequence[str] = ("live edges", "routes and layers"),
        seeds: int = 3,
        seed: int = 0,
        engine: str = "exact",
        max_memory: int | None = None,
    ) -> None:
        self.model = model
        self.pathway = pathway if isinstance(pathway, Pathway) else Pathway.from_dict(pathway)
        self.pathway.check(n_layers=model.cfg.n_layers, n_heads=model.cfg.n_heads)
        listed = isinstance(random, Sequence) and not isinstance(random, str)
        if not listed or any(random.count(kind) > 1 for kind in random):
            raise VideolensError(f"random is {random!r}: give a list of kinds, each once, from {list(MATCHES)}")
        for kind in random:
            if kind not in list(MATCHES):
                raise VideolensError(near(kind, MATCHES, kind="kind of random cut"))
        for name, number in (("seeds", seeds), ("seed", seed)):
            if not isinstance(number, int) or isinstance(number, bool) or number < 0:
                raise VideolensError(f"{name} = {number!r}: give a whole number from 0 on")
        if seeds < 1 and random:
            raise VideolensError(f"seeds = {seeds}: draw at least one random cut of each kind, or pass random=[]")
        check_engine(engine)
        self.random, self.seeds, self.seed = tuple(random), seeds, seed
        self.engine, self.max_memory = engine, max_memory
        self.cuts: list[tuple[str, int | None, Pathway | RandomBlocking]] = [(PATHWAY, None, self.pathway)]
        self.cuts += [
            (f"random, {kind}", seed + i, RandomBlocking(self.pathway, seed + i, kind))
            for kind in random
            for i in range(seeds)
        ]

    def ask(self, prompt: Prompt, name: str, task: str, tick: Callable[[float], Any]) -> Asked:
        """Rows of the table for one question: one per condition and seed."""
        if not prompt.option_tokens or prompt.answer_token is None:
            raise QuestionError(
                f"question {name!r} has {'no options' if not prompt.option_tokens else 'no known answer'}: accuracy is "
                "about multiple-choice questions whose answer is known"
            )
        # 1.
        found = sweep(
            self.model,
            prompt,
            [cut for _, _, cut in self.cuts],
            engine=self.engine,
            max_memory=self.max_memory,
            tick=tick,
        )
        # 2.
        n, depth = prompt.shape[1], self.model.cfg.n_layers
        whole = (depth * (n * (n + 1) // 2), (depth - 1) * (n * (n + 1) // 2) + n)
        rows = [(name, task, FULL, None, *_answered(found.base, prompt), *whole, *whole)]
        for (condition, seed, cut), logits in zip(self.cuts, found.logits, strict=True):
            kept = cut.edges(prompt), cut.live_edges(prompt)
            rows.append((name, task, condition, seed, *_answered(logits, prompt), *kept, *whole))
        return Asked(rows, [])

    def result(
        self, table: pd.DataFrame, skipped: Sequence[Skip], n_asked: int, seconds: float | None
    ) -> PathwayAccuracy:
        """Accuracies of all questions."""
        settings = PathwaySettings(
            **made_with(self.model),
            pathway=self.pathway.to_dict(),
            random=self.random,
            seeds=self.seeds,
            n_asked=n_asked,
            seed=self.seed,
            engine=self.engine,
            seconds=seconds,
        )
        return PathwayAccuracy(table, settings)


def _answered(logits: Tensor, prompt: Prompt) -> Row:
    """(options, right letter, chosen letter, whether it is right, whether it ranks first of all tokens, p)."""
    assert prompt.answer_token is not None
    tokens = list(prompt.option_tokens)
    chosen, right = int(logits[tokens].argmax()), tokens.index(prompt.answer_token)
    letters = string.ascii_uppercase
    first = int(logits.argmax()) == prompt.answer_token
    share = float(logits.softmax(-1)[prompt.answer_token])
    return len(tokens), letters[right], letters[chosen], chosen == right, first, share
