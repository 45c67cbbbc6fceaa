"""The procedural benchmark: moving shapes as real mp4 files, and questions about time, in TVBench's layout.

Any size, from a seed. Item `index` of a task depends on nothing but (seed, split, task, index): asking for 200
questions gives the 20 that asking for 20 gave, and 180 more. The clips of the splits differ whatever the seeds: the
split of a clip is a property of its content (see :func:`in_split`).
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from videolens.datasets.benchmark import Wanted, register, slug
from videolens.datasets.shapes_tasks import MAKERS, TASKS, TEMPORAL_TASKS, Ask
from videolens.datasets.shapes_world import FPS, Scene, render
from videolens.datasets.tvbench import TVBench
from videolens.errors import DatasetError, VideolensError, check_whole, near
from videolens.progress import progress_bar
from videolens.reading import read_json

SPLITS = ("train", "validation", "test")
DEFAULT_N = 100
VERSION = 1
"""Counted up whenever the same (seed, split, task, index) would give another clip or question."""


@dataclass(frozen=True)
class Item:
    """One clip and one question about it, the options in the order of their letters."""

    id: str
    scene: Scene
    ask: Ask

    def entry(self) -> dict[str, Any]:
        """The question as TVBench writes it (video, question, candidates, answer), with fields of our own: id,
        completion, the answer of the clip backwards, and which shape moves, where one does."""
        moves = {} if self.ask.moves is None else {"moves": self.ask.moves}
        return moves | {
            "video": f"{self.id}.mp4",
            "question": self.ask.stem,
            "candidates": list(self.ask.options),
            "answer": self.ask.answer,
            "id": self.id,
            "completion": self.ask.completion,
            "reversed_answer": self.ask.answer_reversed,
        }


def in_split(scene: Scene, split: str) -> bool:
    """Whether a clip belongs to a split: told from a checksum of what is drawn, eight tenths being training clips.

    A clip and its reversal are always in the same split.
    """
    bucket = zlib.crc32(min(scene.fingerprint(), scene.reversed().fingerprint())) % 10
    return {"train": bucket < 8, "validation": bucket == 8, "test": bucket == 9}[split]


def make_item(task: str, *, split: str, seed: int, index: int) -> Item:
    """The clip and question number `index` of a task. Unknown task or split, or a number below 0: a `DatasetError`.

    Letters are balanced: in every run of as many items as there are options, each letter is right once.
    """
    _check(task, split, seed)
    rng = np.random.default_rng([VERSION, seed, SPLITS.index(split), TASKS.index(task), index])
    while True:
        scene, asks = MAKERS[task](rng)
        if in_split(scene, split):
            break
    asks = [ask for ask in asks if ask.task == task]
    ask = asks[int(rng.integers(len(asks)))]
    k = len(ask.options)
    block = np.random.default_rng([VERSION, seed, SPLITS.index(split), TASKS.index(task), index // k, k])
    place = int(block.permutation(k)[index % k])
    others = [str(option) for option in rng.permutation([o for o in ask.options if o != ask.answer])]
    options = (*others[:place], ask.answer, *others[place:])
    return Item(f"{slug(task)}-{split}-{seed}-{index:05d}", scene, replace(ask, options=options))


def write_shapes(
    directory: str | Path,
    *,
    n: int,
    seed: int = 0,
    split: str = "test",
    tasks: Sequence[str] = TASKS,
    keep_longer: bool = False,
) -> Path:
    """Write `n` questions of each task, each with its own clip, as `json/{task}.json` and `video/{task}/*.mp4`.

    Clips that are there already are kept. Files are written under another name first, so that an interrupted run
    leaves no half-written one.

    Args:
        directory: where to; made if it is not there.
        n, seed, split, tasks: what.
        keep_longer: leave a listing alone that begins with these questions and has more, because somebody else may be
            about to read it.

    Returns:
        The directory.

    Raises:
        DatasetError: unknown task or split, `n` below 1, or a negative seed.
    """
    check_whole("n", n, least=1, error=DatasetError)
    for task in tasks:
        _check(task, split, seed)
    directory = Path(directory)
    with progress_bar("writing shapes", total=n * len(tasks), unit="clips", digits=0, delay=2) as bar:
        for task in tasks:
            folder = directory / "video" / slug(task)
            folder.mkdir(parents=True, exist_ok=True)
            entries = []
            for index in range(n):
                item = make_item(task, split=split, seed=seed, index=index)
                write_clip(item.scene, folder / f"{item.id}.mp4")
                entries.append(item.entry())
                bar.update()
            listing = directory / "json" / f"{slug(task)}.json"
            listing.parent.mkdir(exist_ok=True)
            if not (keep_longer and _begins_with(listing, entries)):
                _write_whole(listing, json.dumps(entries, indent=1))
    return directory


def write_clip(scene: Scene, path: Path) -> None:
    """Draw a clip and write it as H.264 in mp4, unless the file is there."""
    if path.exists():
        return
    from videolens.video.video import Video

    Video.from_array(render(scene), fps=FPS).write(path, fps=FPS)  # whole, or not at all


def cache_directory(seed: int, split: str) -> Path:
    """Where `load_dataset("shapes")` keeps its clips: under $VIDEOLENS_CACHE, else under the user's cache folder."""
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("VIDEOLENS_CACHE") or user / "videolens") / f"shapes-v{VERSION}" / f"seed-{seed}" / split


def _write_whole(path: Path, text: str) -> None:
    """Write a file under another name until it is whole; then it gets its own. What fails leaves nothing behind.

    Raises:
        DatasetError: there is no room, or no right to write.
    """
    part = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise DatasetError(f"{path} cannot be written ({error}): make room, or set VIDEOLENS_CACHE") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _begins_with(listing: Path, entries: list[dict[str, Any]]) -> bool:
    try:
        return bool(read_json(listing, kind=list)[: len(entries)] == entries)
    except VideolensError:
        return False


def _check(task: str, split: str, seed: int) -> None:
    if task not in TASKS:
        raise DatasetError(near(task, TASKS, kind="task"))
    if split not in SPLITS:
        raise DatasetError(near(split, SPLITS, kind="split"))
    check_whole("seed", seed, error=DatasetError)


class Shapes(TVBench):
    """The procedural benchmark, by its name: written into the cache at first use, in TVBench's layout."""

    name = "shapes"
    looks = ""

    def place(self, root: Path | None, wanted: Wanted) -> tuple[Path, Wanted]:
        """The cache, where clips and listings are once this returns; the temporal tasks, unless others are named.

        A `DatasetError` if a root is given, task or split is unknown, or the seed negative.
        """
        if root is not None:
            raise DatasetError(f"root = {str(root)!r}, but {self.name!r} lies in the cache: leave it out")
        tasks = list(TEMPORAL_TASKS) if wanted.tasks is None else wanted.tasks
        n, seed, split = wanted.n or DEFAULT_N, wanted.seed, wanted.split
        place = cache_directory(seed, split)
        write_shapes(place, n=n, seed=seed, split=split, tasks=tasks, keep_longer=True)
        return place, replace(wanted, tasks=tasks, n=n)


BENCHMARK = register(Shapes())
