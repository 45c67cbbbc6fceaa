"""Attention maps: what a word of the question looks at in the video, with and without something blocked.

Map the Flow, section "Attention maps": rows are a question token, columns the video tokens folded to frames × rows ×
columns, unblocked beside blocked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Int64
from torch import Tensor

from videolens.engine import last_logits
from videolens.engine.foreseeing import Foreseen, Machine
from videolens.errors import SelectionError, VideolensError, check_whole, near
from videolens.experiments.attention_map.patterns import read_rows
from videolens.experiments.attention_map.result import AVERAGED, AttentionMap, AttentionMapSettings, AttentionRow
from videolens.experiments.attention_map.words import check_words, rows_of
from videolens.experiments.common.asking import ask_all, why_left_out
from videolens.experiments.common.experiment import Asked, Experiment, Frame, Gathered, Skip, Tick, check_samples
from videolens.experiments.common.provenance import made_with
from videolens.interventions.numbering import chosen_numbers
from videolens.interventions.protocol import Acting, as_interventions, described
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt
from videolens.question import Question

Blocked = str | Acting | Mapping[str, Any] | Sequence[Any]

_WORDS = ("true option", "last")


def attention_map(
    model: HookedVideoTransformer,
    questions: Question | Prompt | Iterable[Question | Prompt],
    words: str | Sequence[str] = _WORDS,
    *,
    interventions: Blocked = "cross-frame",
    blocked_layers: Iterable[int] | int | None = None,
    occurrence: int | None = None,
    layers: Iterable[int] | int | None = None,
    heads: Iterable[int] | int | str | None = None,
    samples: str = "all",
    pictures: int = 4,
    seed: int = 0,
    progress: bool = True,
) -> AttentionMap:
    """What words of the question look at in the video, per layer and head, unblocked and blocked.

    1. Find each word's tokens (`videolens.experiments.attention_map.words`): a selection such as "true option" or
       "last", or a word of the stem or an option such as "left"; "word last" is the word where "last" is the selection.
    2. Run the prompt, and read the patterns of these tokens' rows only; average over each word's tokens.
    3. The same under the interventions.
    4. Keep the columns that are video tokens. What is missing from 1 was paid to other tokens.

    A word that a question does not have is skipped for that question, and the map records it.

    >>> vl.attention_map(model, question, ["left", "right"]).figure(word="left")  # doctest: +SKIP

    Args:
        model: the model.
        questions: questions, or prompts made from them or by hand; a batch of prompts counts as several.
        words: one or several.
        interventions: what is blocked in the second run: a route by name ("cross-frame", "video -> stem"), anything
            with hook functions (knockouts, pathways, patches), plain data such as
            `{"route": "video -> stem", "layers": [2, 3]}`, or several, all at once.
        blocked_layers: 0-based layers in which routes given by name are blocked; None: all, as in the paper.
        occurrence: of a word that occurs several times: 0 is the first, −1 the last; None: the mean over all.
        layers: 0-based layers to keep; None: all. The table has a row per layer, head and video token.
        heads: 0-based heads to keep; None: all; "mean": their mean only, a much smaller table.
        samples: "all", "correct": questions the model answers rightly, or "wrong": the others.
        pictures: of how many questions, the first ones, small pictures of the frames are kept for figures.
        seed: of the bootstrap that intervals come from.
        progress: show a bar if it takes longer than two seconds.

    Raises:
        SelectionError: an unknown route; no question has one of the words (the message lists a question's words).
        VideolensError: no questions, layers or heads that the model does not have, nothing blocked, or no question left
            after choosing `samples`.
    """
    experiment = AttentionMapExperiment(
        model,
        words=words,
        interventions=interventions,
        blocked_layers=blocked_layers,
        occurrence=occurrence,
        layers=layers,
        heads=heads,
        samples=samples,
        pictures=pictures,
        seed=seed,
    )
    return ask_all(experiment, questions, progress=progress)


class _Absent(NamedTuple):
    """A word that a question does not have, and what is to be said of it: the words that the question has."""

    question: str
    task: str
    word: str
    reason: str


@dataclass
class AttentionMapExperiment(Experiment[AttentionMap]):
    """Steps 1 to 4 of `attention_map`, the same for every question. The arguments are those of `attention_map`.

    Raises:
        SelectionError: an unknown route, no words, or one twice.
        VideolensError: layers or heads that the model does not have, nothing blocked, an unknown choice of samples.
    """

    name: ClassVar[str] = "attention_map"
    row = AttentionRow
    also: ClassVar[Mapping[str, Any]] = {"clips": Frame, "absent": _Absent}

    model: HookedVideoTransformer
    _: KW_ONLY
    words: str | Sequence[str] = _WORDS
    interventions: Blocked = "cross-frame"
    blocked_layers: Iterable[int] | int | None = None
    occurrence: int | None = None
    layers: Iterable[int] | int | None = None
    heads: Iterable[int] | int | str | None = None
    samples: str = "all"
    pictures: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        check_samples(self.samples)
        check_whole("pictures", self.pictures)
        if self.occurrence is not None:
            check_whole("occurrence", self.occurrence, least=-(2**31))
        if isinstance(self.heads, str) and self.heads != "mean":
            raise VideolensError(near(self.heads, ("mean",), kind="choice of heads") + ", or numbers, or None for each")
        cfg = self.model.cfg
        self.words = self._words = check_words(self.words)
        self._layers = chosen_numbers("layer", self.layers, cfg.n_layers)
        self._heads = (AVERAGED,) if isinstance(self.heads, str) else chosen_numbers("head", self.heads, cfg.n_heads)
        cut = chosen_numbers("layer", self.blocked_layers, cfg.n_layers)
        self._blocked = as_interventions(self.interventions, cfg, layers=cut)

    def ask(self, prompt: Prompt, name: str, task: str, tick: Tick) -> Asked:
        """Rows of the table for one question, and what was left out of it."""
        if reason := self._left_out(prompt):
            return Asked(skipped=[Skip(name, task, None, reason)])
        # 1. where the words are
        places, skipped, absent = {}, [], []
        for word in self._words:
            try:
                places[word] = rows_of(prompt, word, self.model.tokenizer, occurrence=self.occurrence)
            except SelectionError as error:
                absent.append(_Absent(name, task, word, str(error)))
                # without the question's words, so that questions are counted together
                skipped.append(Skip(name, task, word, str(error).split("; its words")[0]))
        rows = self._rows(prompt, (name, task), places, tick) if places else []
        return Asked(rows, skipped, also={"absent": absent})

    def _rows(
        self, prompt: Prompt, who: tuple[str, str], places: Mapping[str, Int64[Tensor, " _some"]], tick: Tick
    ) -> list[AttentionRow]:
        """2. and 3. what the words look at, 4. in the video."""
        hooks = [hook for each in self._blocked for hook in each.hooks(prompt)]
        values = []
        for fwd_hooks in ((), hooks):
            each = read_rows(
                self.model,
                prompt,
                list(places.values()),
                keys=prompt.tokens["video"],
                layers=self._layers,
                fwd_hooks=fwd_hooks,
            )
            averaged = self._heads == (AVERAGED,)
            values.append((each.mean(2, keepdim=True) if averaged else each[:, :, list(self._heads)]).numpy())
            tick(0.5)
        axes = (self._layers, self._heads, *map(range, prompt.tokens.grid))
        cells = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=1).tolist()
        return [
            AttentionRow(*who, word, *cell, *pair)
            for i, word in enumerate(places)
            for cell, *pair in zip(cells, *(each[:, i].ravel().tolist() for each in values), strict=True)
        ]

    def foresee(self, prompt: Prompt, machine: Machine) -> Foreseen:
        """A forward with nothing blocked and one under what is, before them one for the answer that it is chosen by."""
        return Foreseen.plain(2 + (self.samples != "all"))

    def result(self, gathered: Gathered) -> AttentionMap:
        """The attention map of all questions.

        Raises:
            SelectionError: no question has one of the words; lists the words of one.
            VideolensError: no question is left.
        """
        if all(skip.route is None for skip in gathered.skipped):
            gathered.check_left(self.samples)
        if missing := [word for word in self._words if word not in set(gathered.table["word"])]:
            absent = gathered.also["absent"]
            why = absent.loc[absent["word"] == missing[0], "reason"]
            said = why.iloc[0] if len(why) else f"no question was kept ({gathered.reasons})"
            raise SelectionError(f"no question has {', '.join(map(repr, missing))}: {said}")
        n_layers = self.model.cfg.n_layers
        settings = AttentionMapSettings(
            **made_with(self.model, gathered),
            n_layers=n_layers,
            words=self._words,
            layers=self._layers,
            heads=self._heads,
            blocked="; ".join(described(each, n_layers) for each in self._blocked),
            occurrence=self.occurrence,
            samples=self.samples,
            seed=self.seed,
        )
        return AttentionMap(gathered.table, gathered.also["clips"], settings)

    def _left_out(self, prompt: Prompt) -> str | None:
        """Why a question is left out, if it is."""
        if not len(prompt.tokens["video"]):
            return "no video tokens"
        if self.samples == "all":
            return None
        right = prompt.answer_token
        correct = None if right is None else int(self.model.chosen(last_logits(self.model, prompt))) == right
        return why_left_out(self.samples, correct)
