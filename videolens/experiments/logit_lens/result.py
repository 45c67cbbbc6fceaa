"""The result of the logit lens: which words every video token ranks first, layer by layer, and how often keywords are
among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass as plain_dataclass
from dataclasses import field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from pydantic.dataclasses import dataclass

from videolens.errors import SelectionError, VideolensError
from videolens.experiments.common.experiment import Frame
from videolens.experiments.common.provenance import SETTINGS, Made
from videolens.experiments.common.readout import FINAL_NORM
from videolens.experiments.common.result import Result
from videolens.experiments.common.statistics import bootstrap_shares
from videolens.experiments.logit_lens.keywords import Groups, grouped, subwords
from videolens.interventions.layer_sets import layer_bins


class LensRow(NamedTuple):
    """A word of a video token: a row of a lens's table.

    Attributes:
        question, task: of the question.
        layer: 0-based; the hidden state after it is read.
        frame, row, column: of the video token, from 0.
        rank: 1 is the likeliest.
        token: its id.
        word: its text without the space before it.
        probability: among all tokens.
    """

    question: str
    task: str
    layer: int
    frame: int
    row: int
    column: int
    rank: int
    token: int
    word: str
    probability: float


_PLACE = ["task", "question", "layer", "frame", "row", "column", "rank"]


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class LensSettings(Made):
    """How a logit lens was made.

    Attributes:
        n_layers: depth of the model.
        lens: how hidden states were read: "final norm", or "input embedding, no norm (published)".
        top: words of every video token.
        samples: which questions were kept: "correct", "wrong" or "all".
        groups: the keywords that were to be looked for.
        subwords: the first sub-word of each.
        d_vocab: tokens in the vocabulary.
        tokenized: whether the model has a tokenizer; without one, words are token ids as text.
    """

    n_layers: int
    lens: str = FINAL_NORM
    top: int = 1
    samples: str = "all"
    groups: dict[str, list[str]] = field(default_factory=dict)
    subwords: dict[str, str] = field(default_factory=dict)
    d_vocab: int = 0
    tokenized: bool = True


@plain_dataclass(frozen=True, eq=False)
class LogitLens(Result):
    """One row per question, layer, video token and rank; pictures of the frames; and how it was made.

    Attributes:
        table: one `LensRow` each; every question has all layers, and every layer the same video tokens.
        clips: one `Frame` each; empty where there are none.
        settings: how it was made.
        tokenizer: the model's, for keywords that were not named beforehand; it is not saved.

    Raises:
        VideolensError: the tables contradict themselves or the settings.
    """

    table: pd.DataFrame
    clips: pd.DataFrame
    settings: LensSettings
    tokenizer: Any = field(default=None, repr=False)

    _called: ClassVar[str] = "logit lens"

    _files: ClassVar[dict[str, str]] = {
        "table": "logit_lens.parquet",
        "clips": "frames.parquet",
        "settings": "logit_lens.json",
    }
    _tables: ClassVar[dict[str, Any]] = {"table": LensRow, "clips": Frame}

    def check(self) -> None:
        """Every video token has every rank in every layer."""
        table, made = self.table, self.settings
        if table.duplicated(_PLACE).any():
            raise VideolensError("a video token's word is there twice: question ids must be unique within a task")
        every = table["rank"].to_numpy()
        tokens, rest = divmod(len(table), made.top)
        if rest or not np.array_equal(every, np.tile(np.arange(1, made.top + 1), tokens)):
            raise VideolensError(f"every video token needs the ranks 1 … {made.top} in order: some are missing")
        counts = table.groupby(["task", "question"])["layer"].value_counts().unstack()
        if list(counts.columns) != list(range(made.n_layers)) or not counts.eq(counts[0], axis=0).all(axis=None):
            raise VideolensError(f"every question needs all video tokens in the layers 0 … {made.n_layers - 1}")
        if not table["probability"].between(0, 1 + 1e-5).all():
            raise VideolensError("a probability lies outside 0 … 1: the logits were not finite")

    @property
    def questions(self) -> list[str]:
        """Ids of the questions, in the order in which they were asked."""
        return list(self.table["question"].unique())

    def words(self, question: str, layer: int, *, task: str | None = None, rank: int = 1) -> pd.DataFrame:
        """The words of one question's video tokens after one layer: frame, row, column, token, word, probability.

        Raises:
            SelectionError: the question, the layer or the rank is not in this lens, or the id is one of several tasks.
        """
        rows = self.table["question"] == self._known("question", question, self.questions)
        tasks = list(self.table.loc[rows, "task"].unique())
        if task is None and len(tasks) > 1:
            raise SelectionError(f"question {question!r} is one of each of the tasks {tasks}: say task=")
        task = self._known("task", tasks[0] if task is None else task, tasks)
        for what, number, known in (
            ("layer", layer, range(self.settings.n_layers)),
            ("rank", rank, range(1, self.settings.top + 1)),
        ):
            self._known(what, str(number), [str(each) for each in known])
        rows &= (self.table["task"] == task) & (self.table["layer"] == layer) & (self.table["rank"] == rank)
        columns = ["frame", "row", "column", "token", "word", "probability"]
        return self.table.loc[rows, columns].reset_index(drop=True)

    def subwords(
        self, words: str | Sequence[str] | Mapping[str, Sequence[str]] | None = None
    ) -> tuple[Groups, dict[str, str]]:
        """(keywords by group, keyword → its first sub-word). None: those that the lens was made with.

        Raises:
            VideolensError: a keyword that is not in the vocabulary; none are known; a lens from disk has no tokenizer.
        """
        made = self.settings
        if words is None and not made.groups:
            raise VideolensError(
                "no keywords are known: give a list, lists by group, or 'shapes' or 'action sequence', here or to "
                "logit_lens(…, keywords=…)"
            )
        groups = grouped(words if words is not None else made.groups)
        new = {name: tuple(word for word in group if word not in made.subwords) for name, group in groups.items()}
        if self.tokenizer is None and made.tokenized and any(new.values()):
            missing = [word for group in new.values() for word in group]
            raise VideolensError(
                f"this lens was read from disk, and how {missing} are tokenized is not stored: "
                "LogitLens.load(path, tokenizer=model.tokenizer)"
            )
        return groups, made.subwords | subwords(self.tokenizer, made.d_vocab, new)

    def keywords(
        self,
        words: str | Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        bins: int | None = None,
        *,
        task: str | None = None,
    ) -> pd.DataFrame:
        """How often each keyword is the likeliest word of a video token, over bins of layers that do not overlap.

        A keyword is found where the word of rank 1 is its first sub-word. Columns: group, keyword, subword,
        first_layer, last_layer (0-based, inclusive), count (video tokens × layers × questions where it is
        found), cells (all of them in the bin), rate (count / cells), total (count in all bins), share (count / total,
        NaN where it is never found), share_low, share_high (95 % bootstrap over questions), n (questions).

        Args:
            words: a list, lists by group, or "shapes" or "action sequence"; None: those the lens was made with.
            bins: layers in a bin; None: 5/32 of them. The last one takes what is left.
            task: None: all tasks.

        Raises:
            SelectionError: the task is not in this lens.
            VideolensError: a keyword that is not in the vocabulary, or a bin that does not fit the model.
        """
        groups, pieces = self.subwords(words)
        ranges = layer_bins(self.settings.n_layers, bins)
        rows = []
        for group, keywords in groups.items():
            for keyword in keywords:
                counts, cells = self.counts([pieces[keyword]], ranges, task=task)
                total = int(counts.sum())
                share, low, high = bootstrap_shares(counts, seed=self.settings.seed)
                for i, layers in enumerate(ranges):
                    count, size = int(counts[:, i].sum()), int(cells[:, i].sum())
                    row: dict[str, Any] = {"group": group, "keyword": keyword, "subword": pieces[keyword]}
                    row |= {"first_layer": layers[0], "last_layer": layers[-1]}
                    row |= {"count": count, "cells": size, "rate": count / size, "total": total}
                    rows.append(row | {"share": share[i], "share_low": low[i], "share_high": high[i], "n": len(counts)})
        return pd.DataFrame(rows)

    def counts(
        self, pieces: Sequence[str], ranges: Sequence[range], *, task: str | None = None
    ) -> tuple[Float[np.ndarray, "question bin"], Float[np.ndarray, "question bin"]]:
        """(video tokens whose first word is one of `pieces`, all video tokens), per question and bin of layers."""
        questions, layers, words, known = self._first
        inside = np.ones(len(layers), dtype=bool)
        if task is not None:
            inside = (self.table["task"] == self._known("task", task, self.tasks)).to_numpy()[:: self.settings.top]
        bin_of = np.concatenate([np.full(len(each), i) for i, each in enumerate(ranges)])
        _, row = np.unique(questions[inside], return_inverse=True)
        cell = row * len(ranges) + bin_of[layers[inside]]
        shape = (int(row.max()) + 1, len(ranges))
        found = np.isin(words[inside], np.flatnonzero(known.isin(list(pieces))))
        hits = np.bincount(cell, weights=found, minlength=shape[0] * shape[1]).reshape(shape)
        return hits, np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape).astype(float)

    @cached_property
    def _first(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, pd.Index]:
        """(question, layer, word) of every word of rank 1 as numbers, and the words that the last of them number."""
        first = self.table.iloc[:: self.settings.top]
        words, known = pd.factorize(first["word"])
        questions = first.groupby(["task", "question"], sort=False).ngroup().to_numpy()
        return questions, first["layer"].to_numpy(dtype=int), words, pd.Index(known)

    @classmethod
    def load(cls, path: str | Path, *, tokenizer: Any = None) -> LogitLens:
        """Read what `save` wrote. `tokenizer`: the model's, to look for keywords that were not named beforehand.

        Raises:
            VideolensError: the directory holds no logit lens, or one that is damaged or contradicts itself.
        """
        return replace(super().load(path), tokenizer=tokenizer)

    def __repr__(self) -> str:
        made = self.settings
        return (
            f"LogitLens({made.model!r}, {self.n} of {made.n_asked} questions ({made.samples}), {made.n_layers} layers, "
            f"top {made.top}, lens: {made.lens})"
        )
