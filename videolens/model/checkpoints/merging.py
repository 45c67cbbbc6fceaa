"""An adapter of PEFT on its base: its layers in place, as peft runs them, or merged into the base's weights."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from textwrap import shorten
from typing import Any

from safetensors import safe_open
from torch import nn

from videolens.errors import ModelError, refusing
from videolens.model.checkpoints.adapters import CONFIG, WEIGHTS, Adapter
from videolens.model.checkpoints.weights import FLOATS
from videolens.model.families import Family


def merge(module: nn.Module, adapter: Adapter, family: Family) -> nn.Module:
    """The base with the adapter in its weights, by peft's `merge_and_unload`. The module given is changed.

    1. The class that it was trained on, if its config says, is that of the base.
    2. Where embedding and unembedding are one weight, and the adapter is for one of them, they become two.
    3. The adapter's layers are put in place and get their weights: every one of them, and no other is left over.
    4. They are merged: summed in float32 at least, and rounded once.

    Raises:
        ModelError: peft is not installed, the adapter does not fit the base, or its weights are not finite.
    """
    # 1. the class
    classes = {each.__name__ for each in type(module).__mro__}
    published = set(family.architectures) | ({family.architecture} if isinstance(family.architecture, str) else set())
    if adapter.trained_on is not None and adapter.trained_on not in classes | published:
        raise ModelError(
            f"{adapter.directory / CONFIG} is for a {adapter.trained_on!r}, and the base is a {type(module).__name__!r}"
            f"{_hint(adapter)}"
        )
    # 2. tied weights
    _untie(module, adapter, family)
    with _plain(module, family):
        # 3. its layers
        adapted = attach(module, adapter, family)
        # 4. merging
        with refusing(ModelError, f"peft cannot merge {adapter.directory / WEIGHTS}"):
            merged: nn.Module = adapted.merge_and_unload()
    return merged.requires_grad_(False).eval()


def attach(module: nn.Module, adapter: Adapter, family: Family) -> Any:
    """The base with the adapter's layers in place: peft's own model, in evaluation mode. The module is changed.

    Raises:
        ModelError: as `merge`.
    """
    try:
        import peft
    except ImportError as error:
        raise ModelError(
            f"{adapter.directory} holds an adapter, which peft merges, and peft cannot be imported ({error}): "
            "pip install 'videolens[peft]'"
        ) from error
    where = str(adapter.directory)
    settings = dict(adapter.settings) | {"inference_mode": True}
    kinds: Any = peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING
    kind = kinds.get(adapter.kind)
    if kind is None:
        raise ModelError(
            f"{adapter.directory / CONFIG}: peft {peft.__version__} knows no type {adapter.kind!r}: pip install -U peft"
        )
    known = set(inspect.signature(kind).parameters)
    newer = {name: value for name, value in settings.items() if name not in known}
    if said := sorted(name for name, value in newer.items() if value):
        raise ModelError(
            f"{adapter.directory / CONFIG}: peft {peft.__version__} does not know {said}, which would be left out: "
            "pip install -U peft"
        )
    if "init_lora_weights" in settings:  # its weights are in the file: nothing is to be computed for them
        settings["init_lora_weights"] = True
    renamed = dict(family.rename) if callable(family.architecture) else None
    try:
        config = kind(**{name: value for name, value in settings.items() if name in known})
        # on no device until they get their weights: a config that asks for far more than there is takes no memory
        adapted = peft.PeftModel(module, config, low_cpu_mem_usage=True)
        again = partial(adapted.load_adapter, where, "default", torch_device="cpu", key_mapping=renamed)
        found = again(low_cpu_mem_usage=True)
        again()  # so they were rounded to the base's dtype; now, in float32 at least, they get what the file holds
    except MemoryError:
        raise
    except Exception as error:  # whatever settings and weights that do not fit make peft and torch raise
        why = shorten(str(error), 400, placeholder=" …")
        raise ModelError(
            f"{adapter.directory} does not fit its base ({type(error).__name__}: {why}){_hint(adapter)}"
        ) from error
    _check_all_loaded(adapter, adapted, found)
    _check_finite(adapter)
    return adapted.eval()


@contextmanager
def _plain(module: Any, family: Family) -> Iterator[None]:
    """Inside the block a module that transformers has no class for has no config: peft would take it for one of its."""
    if not callable(family.architecture):
        yield
        return
    config = module.config
    del module.config
    try:
        yield
    finally:
        module.config = config


def _check_all_loaded(adapter: Adapter, adapted: Any, found: Any) -> None:
    """Raises:
    ModelError: weights in the file that belong nowhere, or layers of the adapter that got none.
    """
    tensors = [*adapted.named_parameters(), *adapted.named_buffers()]
    lacking = sorted(name for name, tensor in tensors if tensor.is_meta)
    left = sorted(found.unexpected_keys)
    if lacking or left:
        said = [f"{len(left)} of its weights have no place in it, such as {left[0]!r}"] if left else []
        said += [f"{len(lacking)} layers get no weights, such as {lacking[0]!r}"] if lacking else []
        raise ModelError(f"{adapter.directory} does not fit its base: {', and '.join(said)}{_hint(adapter)}")


def _check_finite(adapter: Adapter) -> None:
    """Raises:
    ModelError: a weight in the file is not finite, or no float.
    """
    file = adapter.directory / WEIGHTS
    with safe_open(file, framework="pt") as weights:
        for key, stored in adapter.stored.items():
            if stored.dtype not in FLOATS:
                raise ModelError(f"{file}: {key!r} is stored as {stored.dtype}; expected one of {list(FLOATS)}")
            if not weights.get_tensor(key).isfinite().all():
                raise ModelError(f"{file}: {key!r} is not finite: training went wrong, or the file is damaged")


def _untie(module: nn.Module, adapter: Adapter, family: Family) -> None:
    """Give the unembedding a weight of its own where it shares one of which the adapter changes one use only."""
    embed: Any = module.get_submodule(family.decoder).get_submodule("embed_tokens")
    head: Any = module.get_submodule(family.unembed)
    names = ("embed_tokens", family.unembed.rpartition(".")[2])
    touched = any(f".{name}." in key for key in adapter.stored for name in names)
    if head.weight is embed.weight and touched:
        head.weight = nn.Parameter(embed.weight.detach().clone(), requires_grad=False)


def _hint(adapter: Adapter) -> str:
    if adapter.base is None:
        return "; its config does not say what it is for: give what it was trained on as base=DIRECTORY_OR_NAME"
    return f"; it says that it is for {adapter.base}: load it with that as its base, base=DIRECTORY_OR_NAME"
