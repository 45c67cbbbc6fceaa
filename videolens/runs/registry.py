"""The experiments that a run knows, by the names they have in a config. A class is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from videolens.errors import VideolensError, near

__all__ = ["EXPERIMENTS", "experiment_class", "result_class"]

# name -> module, class of the `Experiment` protocol, class of its result (with `load`); both are found in the module
EXPERIMENTS: dict[str, tuple[str, str, str]] = {
    "accuracy": ("videolens.experiments.accuracy.experiment", "AccuracyExperiment", "Accuracy"),
    "answer_trace": ("videolens.experiments.answer_trace.experiment", "AnswerTraceExperiment", "AnswerTrace"),
    "attention_map": ("videolens.experiments.attention_map.experiment", "AttentionMapExperiment", "AttentionMap"),
    "flow": ("videolens.experiments.flow.experiment", "FlowExperiment", "FlowMap"),
    "logit_lens": ("videolens.experiments.logit_lens.experiment", "LogitLensExperiment", "LogitLens"),
    "pathway": ("videolens.experiments.pathway.experiment", "PathwayExperiment", "PathwayAccuracy"),
}


def experiment_class(name: str) -> type[Any]:
    """The class whose instances are asked: its constructor takes a model and, by keyword, plain data.

    Raises:
        VideolensError: no such experiment (lists those there are).
    """
    return _look_up(name, 1)


def result_class(name: str) -> type[Any]:
    """The class whose `load` reads what the experiment's result has saved.

    Raises:
        VideolensError: no such experiment (lists those there are).
    """
    return _look_up(name, 2)


def _look_up(name: str, place: int) -> type[Any]:
    if name not in EXPERIMENTS:
        raise VideolensError(near(name, EXPERIMENTS, kind="experiment"))
    entry = EXPERIMENTS[name]
    found: type[Any] = getattr(import_module(entry[0]), entry[place])
    return found
