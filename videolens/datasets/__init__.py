"""Data sets: one way in, whatever the layout on disk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from videolens.errors import DatasetError, near

if TYPE_CHECKING:
    from videolens.datasets.benchmark import Layout, WhenMissing
    from videolens.datasets.questions import Questions
    from videolens.video.sampling import Sampling

__all__ = ["load_dataset"]

DEFAULT_N = 100


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
            `"tvbench"`, `"mvbench"` or `"tomato"`, which lies in `root`; a directory in one of these layouts; or a name
            of the Hugging Face hub ("FunAILab/TVBench"), which is fetched.
        root: where `"tvbench"`, `"mvbench"` or `"tomato"` lies.
        split: of `"shapes"`: "train", "validation" or "test". Of a directory: its subfolder of that name, if it has
            one.
        task, tasks: one task, or several; None for all of a benchmark, and for the five temporal ones of `"shapes"`.
        n: how many questions per task, the listing's first; None for all of a benchmark, and for 100 of `"shapes"`.
        seed: of `"shapes"`. A smaller `n` gives the first of the same questions.
        missing: what is done when videos are not there, or have zero bytes. "error": one error for all of them.
            "report": their questions are left out, a warning says how many, and `.missing` of the result lists them.
        n_frames, sampling: how each video is looked at, as in `Video.open`.

    Returns:
        The questions, task by task: a list with the attribute `missing`.

    Raises:
        DatasetError: no such data set, task or split; a listing that is not JSON, or not in its layout (the file, the
            entry and the field are named); fewer than `n` questions; missing videos; no network.
    """
    from videolens.datasets.benchmark import Look, WhenMissing, open_benchmark

    if not isinstance(name, (str, Path)) or not str(name).strip():
        raise DatasetError(f"the data set's name is {name!r}: give a name or a directory, as text")
    if not isinstance(split, str):
        raise DatasetError(f"split = {split!r}: give a name, such as 'test'")
    if n is not None and (not isinstance(n, int) or isinstance(n, bool) or n < 1):
        raise DatasetError(f"n = {n!r} questions per task: ask for a whole number, at least one")
    if missing not in get_args(WhenMissing):
        raise DatasetError(near(missing, get_args(WhenMissing), kind="way with missing videos"))
    chosen = _tasks(task, tasks)
    if str(name) == "shapes":
        from videolens.datasets.shapes import TEMPORAL_TASKS, cache_directory, write_shapes

        if root is not None:
            raise DatasetError(f"root = {str(root)!r}, but 'shapes' lies in the cache: leave it out")
        chosen = list(TEMPORAL_TASKS) if chosen is None else chosen
        n = n or DEFAULT_N
        place = cache_directory(seed, split)
        directory = write_shapes(place, n=n, seed=seed, split=split, tasks=chosen, keep_longer=True)
        layout = _layouts()["tvbench"]
    else:
        layout, directory = _found(name, root, split)
    return open_benchmark(layout, directory, tasks=chosen, n=n, missing=missing, look=Look(n_frames, sampling))


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


def _layouts() -> dict[str, Layout]:
    """The benchmarks by name."""
    from videolens.datasets.mvbench import MVBench
    from videolens.datasets.tomato import Tomato
    from videolens.datasets.tvbench import TVBench

    return {"tvbench": TVBench(), "mvbench": MVBench(), "tomato": Tomato()}


def _found(name: str | Path, root: str | Path | None, split: str) -> tuple[Layout, Path]:
    """Which layout, and where.

    Raises:
        DatasetError: nothing of that name, or a directory in no layout.
    """
    from videolens.datasets.hub import fetch, is_hub_name

    known = _layouts()
    named = known.get(str(name).lower()) if isinstance(name, str) else None
    if root is not None and named is None:
        raise DatasetError(f"root goes with {', '.join(map(repr, known))}; {str(name)!r} says itself where it lies")
    directory = Path(name if root is None else root).expanduser()
    if not directory.is_dir():
        if named is not None:
            given = "no root is given" if root is None else f"root {directory} is no directory"
            raise DatasetError(
                f"{name!r} lies in a directory of yours, but {given}: load_dataset({name!r}, root=DIR), or give a "
                "name of the hub, such as 'FunAILab/TVBench'"
            )
        if not isinstance(name, str) or not is_hub_name(name):
            raise DatasetError(
                f"{directory} is no directory and " + near(str(name), ["shapes", *known], kind="data set")
            )
        directory = fetch(name)
    for place in (directory / split, directory):
        for layout in _likely(known, place) if named is None else [named]:
            if layout.listings(place):
                return layout, place
    layouts = [named] if named is not None else list(known.values())
    looks = "; ".join(f"{layout.name}'s is {layout.looks}" for layout in layouts)
    raise DatasetError(f"{directory} is in none of the known layouts: {looks}")


def _likely(known: dict[str, Layout], place: Path) -> list[Layout]:
    """The layouts that a directory may be in; TVBench's and MVBench's listings look alike, so what only MVBench has
    tells: one of its tasks, or a folder of its videos."""
    from videolens.datasets.mvbench import FOLDERS
    from videolens.datasets.tvbench import TASKS

    only_tasks = {task.replace("_", " ") for task in FOLDERS} - set(TASKS)
    folders = {folder for each in FOLDERS.values() for folder in each}
    is_mvbench = only_tasks & set(known["mvbench"].listings(place)) or any(
        (place / "video" / folder).is_dir() for folder in folders
    )
    return [known["tomato"], known["mvbench" if is_mvbench else "tvbench"]]
