"""An attention map: what words of the question look at in the video, and how to read it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from videolens.errors import SelectionError, VideolensError, near
from videolens.experiments.attention_map.measures import on_frames, on_video, spread, with_intervals
from videolens.experiments.common.asking import Skip
from videolens.experiments.common.result import QuestionsTable
from videolens.experiments.common.storing import read_result, settings_from, write_result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["AVERAGED", "CLIPS", "COLUMNS", "AttentionMap", "AttentionMapSettings"]

COLUMNS = ("question", "task", "word", "layer", "head", "frame", "row", "column", "attention", "attention_blocked")
"""Columns of the table: layers, heads, frames, rows and columns count from 0; attention is a share of 1."""

CLIPS = ("question", "task", "frame", "png")
"""Columns of the small pictures: frames of the token grid, as PNG."""

AVERAGED = -1
"""In place of a head: the mean over all of them."""

_KIND = "an attention map"
TABLE, PICTURES, SETTINGS = "attention_map.parquet", "attention_map_clips.parquet", "attention_map.json"
_ROUNDING = 0.02  # sums of shares in bfloat16

Maps = Float[np.ndarray, "layer head frame row column"]


@dataclass(frozen=True)
class AttentionMapSettings:
    """How an attention map was made.

    Attributes:
        model: its name.
        n_layers: its depth.
        words: what was asked for: words of the question, or selections.
        layers: 0-based layers in the table.
        heads: 0-based heads in the table; (−1,): the mean over all.
        blocked: what was blocked in the second run, in words.
        occurrence: which occurrence of a word; None: all.
        samples: "all", "correct" or "wrong": which questions were kept.
        n_asked: questions asked, before any was left out.
        seed: of the bootstrap.
        revision, dtype, device, versions: of the model and the software.
        skipped: questions left out, of one word (as `route`) or altogether, and why.
        seconds: time it took, the vision tower included.
    """

    model: str
    n_layers: int
    words: tuple[str, ...]
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    blocked: str
    n_asked: int
    occurrence: int | None = None
    samples: str = "all"
    seed: int = 0
    revision: str | None = None
    dtype: str = ""
    device: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    skipped: tuple[Skip, ...] = ()
    seconds: float | None = None


class _Part(NamedTuple):
    """One word of one question: which rows of the table, and the grid of its frames."""

    task: str
    question: str
    word: str
    start: int
    stop: int
    grid: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class AttentionMap(QuestionsTable):
    """Attention of words to video tokens, unblocked and blocked.

    Attributes:
        table: the columns of `COLUMNS`; every question and word has all layers, heads and cells of its grid, in order.
        clips: the columns of `CLIPS`: frames of some of the questions, for figures.
        settings: how it was made.

    Raises:
        VideolensError: the table contradicts itself or the settings.
    """

    table: pd.DataFrame
    clips: pd.DataFrame
    settings: AttentionMapSettings

    _called: ClassVar[str] = "attention map"
    _route: ClassVar[str | None] = "word"

    def __post_init__(self) -> None:
        if tuple(self.table.columns) != COLUMNS or tuple(self.clips.columns) != CLIPS:
            raise VideolensError(
                f"{_KIND} has the columns {list(COLUMNS)} and {list(CLIPS)}, got {list(self.table.columns)} and "
                f"{list(self.clips.columns)}"
            )
        if len(self.table) == 0:
            raise VideolensError(f"{_KIND} without a row: ask at least one question about one of its words")
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
        for blocked, name in enumerate(COLUMNS[-2:]):
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

    def figure(self, kind: str = "frames", **options: Any) -> Figure:
        """Draw the maps of a word over the frames ("frames"), or the share on the video by layer ("share").

        Options of "frames": `word=`, `question=`, `layers=`, `heads=` ("mean", "max" or a head), `scale=` ("log" or
        "linear"); see `videolens.experiments.attention_map.figure.draw_frames`.
        """
        from videolens.experiments.attention_map.figure import draw

        return draw(self, kind, **options)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write `attention_map.parquet`, `attention_map_clips.parquet` and `attention_map.json` into a directory.

        Raises:
            VideolensError: an attention map is there already, and `overwrite` is False.
        """
        files = {TABLE: self.table, PICTURES: self.clips, SETTINGS: asdict(self.settings)}
        return write_result(path, files, what=_KIND, overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path) -> AttentionMap:
        """Read what `save` wrote.

        Raises:
            VideolensError: the directory holds no attention map, or one that contradicts itself.
        """
        table, clips, settings = read_result(path, TABLE, PICTURES, SETTINGS, what="attention map")
        file, tuples = Path(path) / SETTINGS, ("words", "layers", "heads")
        made = settings_from(AttentionMapSettings, settings, file, what="map of attention", tuples=tuples)
        return cls(table, clips, made)

    def __repr__(self) -> str:
        made = self.settings
        return (
            f"AttentionMap({made.model!r}, {self.n} of {made.n_asked} questions ({made.samples}), words {self.words}, "
            f"{len(made.layers)} of {made.n_layers} layers, blocked: {made.blocked})"
        )

    @cached_property
    def _parts(self) -> list[_Part]:
        """Where each word of each question begins and ends."""
        keys = self.table[["task", "question", "word"]]
        starts = np.flatnonzero((keys != keys.shift()).any(axis=1).to_numpy())
        grids = self.table[["frame", "row", "column"]].to_numpy()
        found = []
        for start, stop in zip(starts, [*starts[1:], len(keys)], strict=True):
            task, question, word = keys.iloc[start]
            frames, rows, columns = (int(most) + 1 for most in grids[start:stop].max(axis=0))
            found.append(_Part(task, question, word, int(start), int(stop), (frames, rows, columns)))
        return found

    def _of(self, part: _Part, blocked: bool) -> Maps:
        values = self.table[COLUMNS[-1] if blocked else COLUMNS[-2]].to_numpy()[part.start : part.stop]
        return values.reshape(len(self.settings.layers), len(self.settings.heads), *part.grid)

    def _each(
        self, word: str, blocked: bool, *, question: str | None = None, task: str | None = None
    ) -> Iterator[Maps]:
        """The maps of a word, one question after the other."""
        known = {"word": (word, self.words), "question": (question, self.questions), "task": (task, self.tasks)}
        for kind, (name, names) in known.items():
            if name not in names and not (name is None and kind != "word"):
                raise SelectionError(near(name, names, kind=f"{kind} in this attention map"))
        asked = [part for part in self._parts if question in (None, part.question) and task in (None, part.task)]
        if question is not None and len(tasks := {part.task for part in asked}) > 1:
            raise SelectionError(f"question {question!r} is in several tasks, {sorted(tasks)}: say task=")
        if not any(part.word == word for part in asked):
            raise SelectionError(f"{word!r} was found in other questions only: skipped() says where it was not")
        return (self._of(part, blocked) for part in asked if part.word == word)
