"""What config.json claims, held against what the weight files hold before a model of that size is built."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from math import prod
from typing import Any

import torch
from torch import nn

from videolens.errors import ModelError
from videolens.model.checkpoints.headers import Stored
from videolens.model.checkpoints.settings import PlainConfig
from videolens.model.families import Family

_MOST_LAYERS = 1000
_SPARE = 10**7  # numbers that a model may have beside its files: tables of positions, masks
_COUNTS = re.compile(r"layers|depth|blocks")
_WIDTHS = re.compile(r"(size|dim|width|heads|channels|features)$")


def check_layers(settings: Mapping[str, Any], stored: Mapping[str, Stored], where: str) -> None:
    """Refuse numbers of layers for which there are no weights, wherever config.json says them.

    Raises:
        ModelError: names the setting, its value, and how many layers or weights the files hold.
    """
    n_held = len({found[1] for key in stored if (found := re.search(r"(?:^|\.)layers\.(\d+)\.", key))})
    for name, value in _integers(settings, _COUNTS):
        if value > max(len(stored), _MOST_LAYERS):
            raise ModelError(
                f"{where} says {name} {value}, and the files hold {len(stored)} weights, of {n_held} layers at most: "
                "config.json and *.safetensors must belong together"
            )


def check_size(family: Family, settings: Mapping[str, Any], stored: Mapping[str, Stored], where: str) -> None:
    """Refuse a model that would be far larger than what the files hold.

    A width of more numbers than all files hold is refused by itself: it may be too large even to be counted. The model
    is built on the meta device, where numbers take no memory, and its numbers are counted. What differs by less is
    named weight by weight when the weights are read. Whatever cannot be built there is left for then, too.

    Raises:
        ModelError: says how many numbers there would be, how many are held, and the largest weights that are not.
    """
    held = sum(prod(each.shape) for each in stored.values())
    for name, value in _integers(settings, _WIDTHS):
        if value > 2 * held + _SPARE:
            raise ModelError(
                f"{where} says {name} {value}, and the files hold {held} numbers in all: config.json and "
                "*.safetensors must belong together"
            )
    with torch.device("meta"), ExitStack() as stack:
        try:
            module = architecture_of(family, settings, stack)
        except (ModelError, MemoryError):
            raise
        except Exception:  # reported where it is built
            return
    if module is None:
        return
    made = dict([*module.named_parameters(), *module.named_buffers()])
    n_numbers = sum(weight.numel() for weight in made.values())
    if n_numbers > 2 * held + _SPARE:
        largest = sorted(made, key=lambda name: -made[name].numel())[:3]
        shapes = ", ".join(f"{name} {list(made[name].shape)}" for name in largest)
        raise ModelError(
            f"{where} describes a model of {n_numbers} numbers, and the files hold {held}; its largest would be "
            f"{shapes}: config.json and *.safetensors must belong together"
        )


def architecture_of(family: Family, settings: Mapping[str, Any], stack: ExitStack) -> nn.Module | None:
    """The module that config.json describes, its weights as they come; None where its class comes with a checkpoint.

    Args:
        family: whose architecture it is.
        settings: of config.json.
        stack: what is entered so that no weight is drawn at random; it is left when the stack is closed.
    """
    if callable(family.architecture):
        return family.architecture(PlainConfig(dict(settings)))
    import transformers
    from transformers.initialization import no_init_weights

    architecture: Any = getattr(transformers, family.architecture)
    kind = getattr(architecture, "config_class", None)
    if kind is None:  # a class that comes with a checkpoint is known when it is loaded
        return None
    stack.enter_context(no_init_weights())
    module: nn.Module = architecture(kind.from_dict(dict(settings)))
    return module


def _integers(settings: Any, named: re.Pattern[str], name: str = "") -> Iterator[tuple[str, int]]:
    """Full names and values of the integers among settings whose own names match."""
    if isinstance(settings, Mapping):
        for key, value in settings.items():
            yield from _integers(value, named, f"{name}.{key}" if name else str(key))
    elif isinstance(settings, int) and not isinstance(settings, bool) and named.search(name.rpartition(".")[2]):
        yield name, settings
