"""Attention maps: what a word of the question looks at in the video, with and without something blocked.

Map the Flow, section "Attention maps": rows are a question token, columns the video tokens folded to frames × rows ×
columns, unblocked beside blocked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, cast

import numpy as np
import pandas as pd

from videolens.engine import last_logits
from videolens.errors import SelectionError, VideolensError, near
from videolens.experiments.attention_map.patterns import read_rows
from videolens.experiments.attention_map.result import AVERAGED, CLIPS, COLUMNS, AttentionMap, AttentionMapSettings
from videolens.experiments.attention_map.words import check_words, rows_of
from videolens.experiments.common.asking import Asked, Skip, ask_all
from videolens.experiments.common.provenance import made_with
from videolens.experiments.common.samples import check_samples, why_left_out
from videolens.experiments.common.thumbnails import thumbnails
from videolens.interventions.knockout import Knockout
from videolens.interventions.numbering import check_within, whole_numbers
from videolens.interventions.protocol import Intervention
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt
from videolens.question import Question

__all__ = ["AttentionMapExperiment", "attention_map"]

Blocked = str | Intervention | Sequence[str | Intervention]

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
            with hook functions (knockouts, pathways, patches), or several, all at once.
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


class AttentionMapExperiment:
    """Steps 1 to 4 of `attention_map`, the same for every question. The arguments are those of `attention_map`.

    Raises:
        SelectionError: an unknown route, no words, or one twice.
        VideolensError: layers or heads that the model does not have, nothing blocked, an unknown choice of samples.
    """

    name = "attention_map"
    columns = COLUMNS
    dtypes: ClassVar[dict[str, str]] = {}

    def __init__(
        self,
        model: HookedVideoTransformer,
        *,
        words: str | Sequence[str] = _WORDS,
        interventions: Blocked = "cross-frame",
        blocked_layers: Iterable[int] | int | None = None,
        occurrence: int | None = None,
        layers: Iterable[int] | int | None = None,
        heads: Iterable[int] | int | str | None = None,
        samples: str = "all",
        pictures: int = 4,
        seed: int = 0,
    ) -> None:
        check_samples(samples)
        if isinstance(heads, str) and heads != "mean":
            raise VideolensError(near(heads, ("mean",), kind="choice of heads") + ", or numbers, or None for each")
        self.model, self.words = model, check_words(words)
        self.layers = _numbers("layer", layers, model.cfg.n_layers)
        self.averaged = heads == "mean"
        self.heads = (AVERAGED,) if isinstance(heads, str) else _numbers("head", heads, model.cfg.n_heads)
        cut = _numbers("layer", blocked_layers, model.cfg.n_layers)
        self.interventions, self.blocked = _interventions(model, interventions, cut)
        self.occurrence, self.samples, self.pictures, self.seed = occurrence, samples, pictures, seed
        self.clips: list[tuple[str, str, int, bytes]] = []
        self._pictured = 0
        self._unknown: dict[str, str] = {}  # for the error, if no question has the word

    def ask(self, prompt: Prompt, name: str, task: str, tick: Callable[[float], Any]) -> Asked:
        """Rows of the table for one question, and what was left out of it."""
        if reason := self._left_out(prompt):
            return Asked([], [Skip(name, task, None, reason)])
        # 1. where the words are
        rows, skipped = {}, []
        for word in self.words:
            try:
                rows[word] = rows_of(prompt, word, self.model.tokenizer, occurrence=self.occurrence)
            except SelectionError as error:
                self._unknown.setdefault(word, str(error))
                skipped.append(Skip(name, task, word, str(error).split("; its words")[0]))
        if not rows:
            return Asked([], skipped)
        # 2. and 3. what they look at, 4. in the video
        video, places = prompt.tokens["video"], list(rows.values())
        seen = read_rows(self.model, prompt, places, keys=video, layers=self.layers)
        tick(0.5)
        hooks = [hook for each in self.interventions for hook in each.hooks(prompt)]
        blocked = read_rows(self.model, prompt, places, keys=video, layers=self.layers, fwd_hooks=hooks)
        tick(0.5)
        if self._pictured < self.pictures:
            self._pictured += 1
            self.clips += [(name, task, frame, png) for frame, png in thumbnails(prompt, self.model.pixel_settings)]
        chosen = slice(None) if self.averaged else list(self.heads)
        values = [
            (each.mean(2, keepdim=True) if self.averaged else each[:, :, chosen]).numpy() for each in (seen, blocked)
        ]
        axes = (self.layers, self.heads, *map(range, prompt.tokens.grid))
        cells = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=1).tolist()
        found = [
            (name, task, word, *cell, *pair)
            for i, word in enumerate(rows)
            for cell, *pair in zip(cells, *(each[:, i].ravel().tolist() for each in values), strict=True)
        ]
        return Asked(found, skipped)

    def result(self, table: pd.DataFrame, skipped: Sequence[Skip], n_asked: int, seconds: float | None) -> AttentionMap:
        """The attention map of all questions."""
        if not len(table):
            reasons = dict.fromkeys(
                skip.reason if skip.route is None else self._why(skip.route, skipped) for skip in skipped
            )
            raise SelectionError(
                f"none of the {n_asked} questions is left with samples={self.samples!r}: {'; '.join(reasons)}"
            )
        if missing := [word for word in self.words if word not in set(table["word"])]:
            raise SelectionError(f"no question has {', '.join(map(repr, missing))}: {self._why(missing[0], skipped)}")
        cfg = self.model.cfg
        settings = AttentionMapSettings(
            **made_with(self.model),
            n_layers=cfg.n_layers,
            words=self.words,
            layers=self.layers,
            heads=self.heads,
            blocked=self.blocked,
            n_asked=n_asked,
            occurrence=self.occurrence,
            samples=self.samples,
            seed=self.seed,
            skipped=tuple(skipped),
            seconds=seconds,
        )
        return AttentionMap(table, pd.DataFrame(self.clips, columns=list(CLIPS)), settings)

    def _why(self, word: str, skipped: Sequence[Skip]) -> str:
        return self._unknown.get(word) or next((s.reason for s in skipped if s.route == word), "no question was kept")

    def _left_out(self, prompt: Prompt) -> str | None:
        """Why a question is left out, if it is."""
        if not len(prompt.tokens["video"]):
            return "no video tokens"
        if self.samples == "all":
            return None
        right = prompt.answer_token
        correct = None if right is None else int(last_logits(self.model, prompt).argmax()) == right
        return why_left_out(self.samples, correct)


def _numbers(kind: str, numbers: Iterable[int] | int | None, n: int) -> tuple[int, ...]:
    chosen = whole_numbers(kind, range(n) if numbers is None else numbers)
    check_within(kind, chosen, n)
    if not chosen:
        raise VideolensError(f"{kind}s are empty: name at least one, or leave them out for all of them")
    return chosen


def _interventions(
    model: HookedVideoTransformer, given: Blocked, layers: tuple[int, ...]
) -> tuple[list[Intervention], str]:
    """What is blocked, as interventions and in words."""
    several = list(given) if isinstance(given, (list, tuple)) else [cast(str | Intervention, given)]
    if not several:
        raise VideolensError("interventions are empty: name at least one, such as 'cross-frame'")
    found: list[Intervention] = []
    for each in several:
        one: Any = Knockout.route(each, layers=layers) if isinstance(each, str) else each
        if not hasattr(one, "hooks") or not hasattr(one, "check"):
            raise VideolensError(f"interventions are routes by name or have hook functions, got {one!r}")
        one.check(n_layers=model.cfg.n_layers, n_heads=model.cfg.n_heads)
        found.append(one)
    return found, "; ".join(_described(one, model.cfg.n_layers) for one in found)


def _described(intervention: Intervention, n_layers: int) -> str:
    """An intervention in words, layers counted from 1."""
    if not isinstance(intervention, Knockout):
        return f"{type(intervention).__name__} {getattr(intervention, 'name', '')}".strip()
    words = f"{intervention.source} ↛ {intervention.target}"
    if intervention.earlier_frames:
        words = "cross-frame" if words == "video ↛ video" else f"{words} of later frames"
    at = intervention.layers
    if len(at) == n_layers:
        words += ", all layers"
    elif len(at) > 1 and at == tuple(range(at[0], at[-1] + 1)):
        words += f", layers {at[0] + 1}–{at[-1] + 1}"
    else:
        words += f", layers {', '.join(str(layer + 1) for layer in at) or 'none'}"
    return words if intervention.heads is None else f"{words}, heads {', '.join(map(str, intervention.heads))} (from 0)"
