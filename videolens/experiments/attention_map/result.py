"""An attention map: what words of the question look at in the video, and how to read it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from pydantic.dataclasses import dataclass as pydantic_dataclass

from videolens.errors import SelectionError, VideolensError
from videolens.experiments.attention_map.measures import on_frames, on_video, spread, with_intervals
from videolens.experiments.common.experiment import Frame
from videolens.experiments.common.provenance import SETTINGS, Made
from videolens.experiments.common.result import Result

AVERAGED = -1
"""In place of a head: the mean over all of them."""

_ROUNDING = 0.02  # sums of shares in bfloat16

Maps = Float[np.ndarray, "layer head frame row column"]


class AttentionRow(NamedTuple):
    """What a word pays to one video token: a row of an attention map's table.

    Attributes:
        question, task: of the question.
        word: a word of the question, or a selection.
        layer, head: 0-based; head −1: the mean over all heads.
        frame, row, column: of the video token, 0-based.
        attention, attention_blocked: unblocked and blocked, a share of 1; the mean over the word's tokens.
    """

    question: str
    task: str
    word: str
    layer: int
    head: int
    frame: int
    row: int
    column: int
    attention: float
    attention_blocked: float


@pydantic_dataclass(frozen=True, kw_only=True, config=SETTINGS)
class AttentionMapSettings(Made):
    """How an attention map was made. What was left out of it names the word as `route`.

    Attributes:
        n_layers: depth of the model.
        words: what was asked for: words of the question, or selections.
        layers: 0-based layers in the table.
        heads: 0-based heads in the table; (−1,): the mean over all.
        blocked: what was blocked in the second run, in words.
        occurrence: which occurrence of a word; None: all.
        samples: "all", "correct" or "wrong": which questions were kept.
    """

    n_layers: int
    words: tuple[str, ...]
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    blocked: str
    occurrence: int | None = None
    samples: str = "all"


class _WordRows(NamedTuple):
    """One word of one question: which rows of the table, and the grid of its frames."""

    task: str
    question: str
    word: str
    start: int
    stop: int
    grid: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class AttentionMap(Result):
    """Attention of words to video tokens, unblocked and blocked.

    Attributes:
        table: one `AttentionRow` each; every question and word has all layers, heads and cells of its grid, in order.
        clips: one `Frame` each: frames of some of the questions, for figures.
        settings: how it was made.

    Raises:
        VideolensError: the table contradicts itself or the settings.
    """

    table: pd.DataFrame
    clips: pd.DataFrame
    settings: AttentionMapSettings

    _called: ClassVar[str] = "attention map"
    _files: ClassVar[dict[str, str]] = {
        "table": "attention_map.parquet",
        "clips": "attention_map_clips.parquet",
        "settings": "attention_map.json",
    }
    _tables: ClassVar[dict[str, Any]] = {"table": AttentionRow, "clips": Frame}
    _route: ClassVar[str | None] = "word"

    def check(self) -> None:
        """Every question and word has every layer, head and cell, and attention is a share of 1."""
        places = [(part.task, part.question, part.word) for part in self._parts]
        if len(set(places)) < len(places):
            raise VideolensError("a question and word are there twice: question ids must be unique within a task")
        whole = self.table[["layer", "head", "frame", "row", "column"]].to_numpy()
        for part in self._parts:
            sizes = (self.settings.layers, self.settings.heads, *map(range, part.grid))
            expected = np.stack([axis.ravel() for axis in np.meshgrid(*sizes, indexing="ij")], axis=1)
            if not np.array_equal(whole[part.start : part.stop], expected):
                raise VideolensError(
                    f"{part.word!r} of question {part.question!r} needs every layer, head, frame, row and column in "
                    "order: some are missing"
                )
        for blocked, name in enumerate(AttentionRow._fields[-2:]):
            sums = np.concatenate([self._of(part, bool(blocked)).sum((2, 3, 4)).ravel() for part in self._parts])
            if not ((self.table[name] >= 0).all() and (sums <= 1 + _ROUNDING).all()):
                raise VideolensError(f"{name} is a share of 1, but a row sums to {sums.max():.3g} over the video")

    @property
    def words(self) -> list[str]:
        """Words that were found, in the order in which they were asked for."""
        return list(dict.fromkeys(part.word for part in self._parts))

    @property
    def tasks(self) -> list[str]:
        """Tasks, in the order in which they were asked."""
        return list(dict.fromkeys(part.task for part in self._parts))

    @property
    def questions(self) -> list[str]:
        """Ids of the questions, in the order in which they were asked."""
        return list(dict.fromkeys(part.question for part in self._parts))

    @property
    def n(self) -> int:
        """Questions in the map."""
        return len({(part.task, part.question) for part in self._parts})

    def maps(self, word: str, *, question: str | None = None, task: str | None = None, blocked: bool = False) -> Maps:
        """A word's attention to every video token; the mean over questions if none is named.

        Raises:
            SelectionError: no such word, question or task, or a question of this name in several tasks.
            VideolensError: the mean over clips of different grids.
        """
        found = list(self._each(word, blocked, question=question, task=task))
        if grids := sorted({" × ".join(map(str, maps.shape[2:])) for maps in found})[1:]:
            raise VideolensError(f"clips of unequal grids ({', '.join(grids)}, …) have no mean map: name a question")
        return np.mean(found, axis=0)

    def video_share(
        self, word: str, *, blocked: bool = False, task: str | None = None
    ) -> Float[np.ndarray, "question layer"]:
        """Share of a word's attention that falls on the video, of every question by layer; mean over heads.

        Raises:
            SelectionError: no such word or task.
        """
        return np.stack([on_video(maps) for maps in self._each(word, blocked, task=task)])

    def summary(self) -> pd.DataFrame:
        """Per task ("all": every question), word and layer: means over questions with 95 % bootstrap intervals.

        Columns: task, word, layer (0-based), n; `share`, `share_blocked`: of the word's attention that falls on the
        video; `change`: blocked minus unblocked, paired; `spread`, `spread_blocked`: over how many video tokens it is
        spread, 1 if it looks at one (`attention_measures.spread`). Each with `_low` and `_high`.
        """
        tables = []
        for task in [None, *self.tasks]:
            for word in self.words:
                if not any(part.word == word and task in (None, part.task) for part in self._parts):
                    continue
                open_, cut = (list(self._each(word, blocked, task=task)) for blocked in (False, True))
                measured = {
                    "share": np.stack([on_video(maps) for maps in open_]),
                    "share_blocked": np.stack([on_video(maps) for maps in cut]),
                    "change": np.stack([on_video(b) - on_video(a) for a, b in zip(open_, cut, strict=True)]),
                    "spread": np.stack([spread(maps) for maps in open_]),
                    "spread_blocked": np.stack([spread(maps) for maps in cut]),
                }
                head = {"task": "all" if task is None else task, "word": word, "layer": self.settings.layers}
                tables.append(pd.DataFrame(head | {"n": len(open_)} | with_intervals(measured, self.settings.seed)))
        return pd.concat(tables, ignore_index=True)

    def by_frame(self, word: str, *, task: str | None = None) -> pd.DataFrame:
        """Share of a word's attention that falls on each frame, mean over heads and questions with 95 % intervals.

        Columns: word, layer, frame (both 0-based), n; `share`, `share_blocked`, each with `_low` and `_high`. Questions
        with fewer frames count in the frames that they have.

        Raises:
            SelectionError: no such word or task.
        """
        open_, cut = ([on_frames(maps) for maps in self._each(word, blocked, task=task)] for blocked in (False, True))
        tables = []
        for frame in range(max(shares.shape[1] for shares in open_)):
            measured = {
                name: np.stack([each[:, frame] for each in shares if frame < each.shape[1]])
                for name, shares in (("share", open_), ("share_blocked", cut))
            }
            head = {"word": word, "layer": self.settings.layers, "frame": frame, "n": len(measured["share"])}
            tables.append(pd.DataFrame(head | with_intervals(measured, self.settings.seed)))
        return pd.concat(tables, ignore_index=True).sort_values(["layer", "frame"], ignore_index=True)

    def __repr__(self) -> str:
        made = self.settings
        return (
            f"AttentionMap({made.model!r}, {self.n} of {made.n_asked} questions ({made.samples}), words {self.words}, "
            f"{len(made.layers)} of {made.n_layers} layers, blocked: {made.blocked})"
        )

    @cached_property
    def _parts(self) -> list[_WordRows]:
        """Where each word of each question begins and ends."""
        keys = self.table[["task", "question", "word"]]
        starts = np.flatnonzero((keys != keys.shift()).any(axis=1).to_numpy())
        grids = self.table[["frame", "row", "column"]].to_numpy()
        found = []
        for start, stop in zip(starts, [*starts[1:], len(keys)], strict=True):
            task, question, word = keys.iloc[start]
            frames, rows, columns = (int(most) + 1 for most in grids[start:stop].max(axis=0))
            found.append(_WordRows(task, question, word, int(start), int(stop), (frames, rows, columns)))
        return found

    def _of(self, part: _WordRows, blocked: bool) -> Maps:
        values = self.table["attention_blocked" if blocked else "attention"].to_numpy()[part.start : part.stop]
        return values.reshape(len(self.settings.layers), len(self.settings.heads), *part.grid)

    def _each(
        self, word: str, blocked: bool, *, question: str | None = None, task: str | None = None
    ) -> Iterator[Maps]:
        """The maps of a word, one question after the other."""
        known = {"word": (word, self.words), "question": (question, self.questions), "task": (task, self.tasks)}
        for kind, (name, names) in known.items():
            if name is not None:
                self._known(kind, name, names)
        asked = [part for part in self._parts if question in (None, part.question) and task in (None, part.task)]
        if question is not None and len(tasks := {part.task for part in asked}) > 1:
            raise SelectionError(f"question {question!r} is in several tasks, {sorted(tasks)}: say task=")
        if not any(part.word == word for part in asked):
            raise SelectionError(f"{word!r} was found in other questions only: skipped() says where it was not")
        return (self._of(part, blocked) for part in asked if part.word == word)
