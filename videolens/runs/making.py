"""What a config asks for, made: questions, model, experiments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from videolens.datasets import load_dataset
from videolens.errors import VideolensError
from videolens.experiments import declared
from videolens.experiments.common.experiment import Experiment
from videolens.model.checkpoints.placing import dtype_named
from videolens.model.loading import load
from videolens.model.transformer import HookedVideoTransformer
from videolens.question import Question
from videolens.runs.config import RunConfig

Say = Callable[[str], None]


def questions_of(config: RunConfig) -> list[Question]:
    """The questions of its data set.

    Raises:
        VideolensError: they cannot be loaded, or there are none; names the field.
    """
    try:
        questions = load_dataset(**config.dataset)
    except VideolensError as error:
        raise type(error)(f"{config.where}.dataset: {error}") from error
    if not questions:
        raise VideolensError(f"{config.where}.dataset: it has no questions to ask")
    return questions


def model_of(config: RunConfig, say: Say) -> HookedVideoTransformer:
    """The model; `say` is called with where it runs.

    Raises:
        ModelError: it cannot be loaded, or its dtype is none that a model has.
    """
    asked = dict(config.model)
    try:
        dtype_named(asked["dtype"])
    except VideolensError as error:
        raise type(error)(f"{config.where}.model.dtype: {error}") from None
    return load(asked.pop("name"), say=say, **asked)


def experiments_of(config: RunConfig, model: HookedVideoTransformer) -> dict[str, Experiment[Any]]:
    """The experiments by label.

    Raises:
        VideolensError: an experiment does not take its options; names the field.
    """
    made: dict[str, Experiment[Any]] = {}
    for i, each in enumerate(config.experiments):
        try:
            made[each.label] = declared(each.name).experiment_class(model, **each.options)
        except (VideolensError, TypeError) as error:
            raise VideolensError(f"{config.where}.experiments[{i}] ({each.label}): {error}") from error
    return made


@contextmanager
def torch_threads(n: int) -> Iterator[None]:
    """Torch with so many threads: sums are taken in another order with another number of them."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
