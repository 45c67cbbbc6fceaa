"""Data sets: one way in, whatever the layout on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from videolens.errors import DatasetError, near

if TYPE_CHECKING:
    from videolens.question import Question

__all__ = ["load_dataset"]

DEFAULT_N = 100


def load_dataset(
    name: str | Path,
    *,
    split: str = "test",
    task: str | None = None,
    n: int | None = None,
    seed: int = 0,
) -> list[Question]:
    """Questions of a data set, with their videos.

    Args:
        name: `"shapes"`, the procedural benchmark, whose clips are written as mp4 files into the cache at first use;
            or a directory in TVBench's layout.
        split: of `"shapes"`: "train", "validation" or "test". Of a directory: its subfolder of that name, if it has
            one.
        task: one task; None for all of a directory, and for the five temporal ones of `"shapes"`.
        n: how many questions per task; None for all of a directory, and for 100 of `"shapes"`.
        seed: of `"shapes"`. A smaller `n` gives the first of the same questions.

    Returns:
        The questions, task by task.

    Raises:
        DatasetError: no such data set, task or split, or fewer than `n` questions.
    """
    from videolens.datasets.layout import read_task, tasks_in
    from videolens.datasets.shapes import TEMPORAL_TASKS, cache_directory, write_shapes

    if n is not None and (not isinstance(n, int) or n < 1):
        raise DatasetError(f"n = {n!r} questions per task: ask for a whole number, at least one")
    if str(name) == "shapes":
        tasks = list(TEMPORAL_TASKS) if task is None else [task]
        n = n or DEFAULT_N
        directory = write_shapes(cache_directory(seed, split), n=n, seed=seed, split=split, tasks=tasks)
    else:
        directory = Path(name)
        if not directory.is_dir():
            raise DatasetError(f"{directory} is no directory and " + near(str(name), ["shapes"], kind="data set"))
        if (directory / split / "json").is_dir():
            directory = directory / split
        tasks = tasks_in(directory) if task is None else [task]
        if not tasks:
            raise DatasetError(
                f"{directory} has no json/*.json: TVBench's layout is json/{{task}}.json and video/{{task}}/"
            )
    return [question for each in tasks for question in read_task(directory, each, n=n)]
