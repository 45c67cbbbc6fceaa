"""Data sets: one way in, whatever the layout on disk. Layouts are registered: see `videolens.datasets.benchmark`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from videolens.errors import DatasetError, check_whole, near

if TYPE_CHECKING:
    from videolens.datasets.benchmark import Benchmark, Wanted, WhenMissing
    from videolens.datasets.questions import Questions
    from videolens.video.sampling import Sampling


def load_dataset(
    name: str | Path,
    *,
    root: str | Path | None = None,
    split: str = "test",
    task: str | None = None,
    tasks: Sequence[str] | None = None,
    n: int | None = None,
    seed: int = 0,
    missing: WhenMissing = "error",
    n_frames: int = 8,
    sampling: Sampling = "midpoints",
) -> Questions:
    """Questions of a data set, with their videos.

    Listings are read whole and checked, and every video is looked for, before this returns; videos are decoded when
    they are first looked at.

    >>> load_dataset("shapes", task="moving direction", n=20)
    >>> load_dataset("tvbench", root="/data/TVBench", tasks=["action antonym", "object count"])
    >>> load_dataset("/data/TOMATO", missing="report").missing

    Args:
        name: `"shapes"`, the procedural benchmark, whose clips are written as mp4 files into the cache at first use;
            `"tvbench"`, `"mvbench"`, `"tomato"` or one that you have registered
            (`videolens.datasets.benchmark.register`), which lies in `root`; a directory in one of these layouts; or a
            name of the Hugging Face hub ("FunAILab/TVBench"), which is fetched.
        root: where a benchmark lies that is asked for by name.
        split: of `"shapes"`: "train", "validation" or "test". Of a directory: its subfolder of that name, if it has
            one.
        task: one task; None for all of a benchmark, and for the five temporal ones of `"shapes"`.
        tasks: several, in its place.
        n: how many questions per task, the listing's first; None for all of a benchmark, and for 100 of `"shapes"`.
        seed: of `"shapes"`. A smaller `n` gives the first of the same questions.
        missing: what is done when videos are not there, or have zero bytes. "error": one error for all of them.
            "report": their questions are left out, a warning says how many, and `.missing` of the result lists them.
        n_frames: how many frames of each video, as in `Video.open`.
        sampling: which ones, likewise.

    Returns:
        The questions, task by task: a list with the attribute `missing`.

    Raises:
        DatasetError: no such data set, task or split; a listing that is not JSON, or not in its layout (the file, the
            entry and the field are named); fewer than `n` questions; missing videos; no network.
    """
    from videolens.datasets.benchmark import Look, Wanted, WhenMissing, open_benchmark

    if not isinstance(name, (str, Path)) or not str(name).strip():
        raise DatasetError(f"the data set's name is {name!r}: give a name or a directory, as text")
    if not isinstance(split, str) or not re.fullmatch(r"\w[\w.-]*", split):
        raise DatasetError(f"split = {split!r}: give a name, such as 'test', and a directory as name or root")
    check_whole("seed", seed, error=DatasetError)
    if n is not None:
        check_whole("n", n, least=1, error=DatasetError)
    if missing not in get_args(WhenMissing):
        raise DatasetError(near(missing, get_args(WhenMissing), kind="way with missing videos"))
    wanted = Wanted(str(name), _tasks(task, tasks), n, split, seed)
    benchmark, directory, wanted = _found(name, root, wanted)
    return open_benchmark(benchmark, directory, wanted, missing=missing, look=Look(n_frames, sampling))


def _tasks(task: str | None, tasks: Sequence[str] | None) -> list[str] | None:
    if task is not None and tasks is not None:
        raise DatasetError(f"task = {task!r} and tasks = {tasks!r}: give one of the two")
    if task is not None:
        tasks = [task]
    if tasks is None:
        return None
    if isinstance(tasks, str) or not isinstance(tasks, Iterable) or not all(isinstance(each, str) for each in tasks):
        raise DatasetError(f"tasks = {tasks!r}: give a list of names, or one name as task=")
    if not tasks:
        raise DatasetError("tasks is an empty list: name at least one, or leave it out for all")
    return list(tasks)


def _found(name: str | Path, root: str | Path | None, wanted: Wanted) -> tuple[Benchmark, Path, Wanted]:
    """Which benchmark, where it lies, and what of it is loaded."""
    from videolens.datasets.benchmark import known_benchmarks
    from videolens.datasets.hub import fetch, is_hub_name
    from videolens.reading import as_path

    known = known_benchmarks()
    if isinstance(name, str) and (named := known.get(name.lower())) is not None:
        place = None if root is None else as_path(root, "root", DatasetError).expanduser()
        return named, *named.place(place, wanted)
    if root is not None:
        rooted = ", ".join(repr(each) for each, benchmark in known.items() if benchmark.looks)
        raise DatasetError(f"root goes with {rooted}; {str(name)!r} says itself where it lies")
    directory = as_path(name, "the data set", DatasetError).expanduser()
    if not directory.is_dir():
        if not isinstance(name, str) or not is_hub_name(name):
            raise DatasetError(f"{directory} is no directory and " + near(str(name), known, kind="data set"))
        directory = fetch(name)
    for place in (directory / wanted.split, directory):
        sure = {benchmark: benchmark.fits(place) for benchmark in known.values()}
        surest = max(sure, key=lambda benchmark: sure[benchmark])
        if sure[surest]:
            return surest, place, wanted
    looks = "; ".join(f"{each.name}'s is {each.looks}" for each in known.values() if each.looks)
    raise DatasetError(
        f"{directory} is in none of the known layouts: {looks}; another is made known with "
        "videolens.datasets.benchmark.register"
    )
