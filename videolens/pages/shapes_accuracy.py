"""Accuracy on the procedural benchmark: the measurement that the documentation quotes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from videolens.datasets import load_dataset
from videolens.datasets.shapes_tasks import STILL_TASKS, TEMPORAL_TASKS
from videolens.experiments.accuracy.conditions import check
from videolens.experiments.accuracy.experiment import measure_accuracy
from videolens.experiments.accuracy.result import Accuracy
from videolens.model.transformer import HookedVideoTransformer


def shapes_accuracy(
    models: Mapping[str, HookedVideoTransformer],
    *,
    n: int,
    split: str = "test",
    seed: int = 0,
    tasks: Sequence[str] = (*TEMPORAL_TASKS, *STILL_TASKS),
    conditions: Sequence[str] = ("as is", "reversed"),
    progress: bool = True,
) -> Accuracy:
    """Ask each model `n` questions of every task: temporal ones under all conditions, still ones as they are.

    Args:
        models: by the name they are to have in the table.
        n: questions per task.
        split: "train", "validation" or "test".
        seed: of the questions, and of the order of shuffled frames.
        tasks: of the procedural benchmark.
        conditions: for temporal tasks. To a clip in which nothing moves they mean nothing.
        progress: show bars.

    Raises:
        DatasetError: an unknown task or split.
        VideolensError: an unknown condition.
    """
    conditions = check(conditions)
    moving = [
        q
        for task in tasks
        if task not in STILL_TASKS
        for q in load_dataset("shapes", split=split, task=task, n=n, seed=seed)
    ]
    still = [
        q
        for task in tasks
        if task in STILL_TASKS
        for q in load_dataset("shapes", split=split, task=task, n=n, seed=seed)
    ]
    parts = []
    for name, model in models.items():
        for questions, asked in ((moving, conditions), (still, ("as is",))):
            if questions:
                parts.append(
                    measure_accuracy(model, questions, conditions=asked, name=name, seed=seed, progress=progress)
                )
    return Accuracy.join(parts)
