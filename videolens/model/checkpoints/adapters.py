"""Adapters of PEFT: what their files say, before anything is loaded; and where they are refused.

`merging.py` merges one into its base. Weights of an adapter among others are refused: they would be left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from videolens.errors import ModelError
from videolens.model.checkpoints.headers import INDEX, SINGLE, Stored, file_weights
from videolens.model.checkpoints.settings import checked_fields, is_there, read_settings
from videolens.reading import Fields

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_FILES = (CONFIG, "adapter_model*")
NOT_MERGED = "non_lora_trainables*"  # what LLaVA's training writes beside an adapter, as pickles
_KEYS = re.compile(r"(^|\.)(lora_\w+|base_layer|modules_to_save|ia3_\w+|adapter_\w+)(\.|$)")
_HOW = (
    "merge it into the weights and load what that gives: "
    "PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(directory)"
)
_LOW_RANK, _SCALES = ("LORA", "ADALORA", "VERA", "LOHA", "LOKR", "DELORA", "FOURIERFT"), ("IA3", "LN_TUNING")
MERGED = (*_LOW_RANK, "OFT", "BOFT", "HRA", *_SCALES)
"""Types of adapters whose merged weights were compared with peft's own forward, all of them."""
_BASE_CHANGED = "it stands on weights that its training has changed, not on the published base: save it converted"
_REFUSED = {
    "alora_invocation_tokens": "it acts behind some words only, which no merged weight does",
    "arrow_config": "it chooses among adapters by what it reads, which no merged weight does",
    "layer_replication": "it makes the base deeper",
    "megatron_config": "its layers are Megatron's",
    "monteclora_config": "its weights are drawn by chance",
    "use_bdlora": "its layers were not compared here",
    "use_qalora": "its layers were not compared here",
    "kasa_config": _BASE_CHANGED,
}
"""Settings with which an adapter is not merged, and why."""
_KEEPS_BASE = ("gaussian", "orthogonal", "eva")
"""How an adapter may have begun so that it stands on the published base; True and False likewise."""


class _Mapping(Fields):
    base_model_class: str | None = None


class _Config(Fields):
    """What is read of adapter_config.json whatever the type."""

    peft_type: str
    base_model_name_or_path: str | None = None
    revision: str | None = None
    auto_mapping: _Mapping | None = None
    init_lora_weights: bool | str | None = True


@dataclass(frozen=True)
class Adapter:
    """An adapter by its files.

    Attributes:
        directory: where they are.
        kind: such as "LORA".
        base: name or directory of what it is for, as its config says; None if it does not.
        revision: of the base, on the hub.
        trained_on: class of the model that it was trained on, if the config says.
        settings: all that the config says.
        stored: what its weights file holds.
    """

    directory: Path
    kind: str
    base: str | None
    revision: str | None
    trained_on: str | None
    settings: Mapping[str, Any] = field(repr=False)
    stored: Mapping[str, Stored] = field(repr=False)


def holds_adapter(directory: Path) -> bool:
    """Whether a directory has any file of an adapter."""
    return bool(_adapter_files(directory))


def read_adapter(directory: Path) -> Adapter:
    """What the files of an adapter say; no weight is read.

    1. Only an adapter lies there: its config, its weights as safetensors; no weights of a model, and none that training
       has written beside it.
    2. The config names a type that is merged, and nothing that no merged weight can do.
    3. The weights file is whole.

    Raises:
        ModelError: one of these does not hold; names the file, and what to do.
    """
    # 1. the files
    files = [path.name for path in _adapter_files(directory)]
    if any((directory / name).exists() for name in (SINGLE, INDEX)):
        raise ModelError(
            f"{directory} holds weights of a model and an adapter ({', '.join(files)}), which would be left out or "
            "stand on another base: put them into two directories, load that of the adapter, and give base= the other"
        )
    for name in (CONFIG, WEIGHTS):
        if not is_there(directory / name):
            raise ModelError(
                f"{directory} holds an adapter ({', '.join(files)}) without {name}: an adapter is {CONFIG} and "
                f"{WEIGHTS}; pickled weights are not read (save_pretrained writes safetensors)"
            )
    if others := sorted(path.name for path in directory.glob(NOT_MERGED)):
        raise ModelError(
            f"{directory} holds {others[0]} beside the adapter: weights that were trained with it, and that peft does "
            f"not load, so that they would be left out: {_HOW.replace('merge it', 'merge both')}"
        )
    # 2. the config
    path = directory / CONFIG
    settings = read_settings(path)
    known = checked_fields(_Config, settings, path)
    _check_type(path, known, settings)
    # 3. the weights
    return Adapter(
        directory=directory,
        kind=known.peft_type,
        base=known.base_model_name_or_path or None,
        revision=known.revision or None,
        trained_on=known.auto_mapping.base_model_class if known.auto_mapping else None,
        settings=settings,
        stored=file_weights(directory / WEIGHTS),
    )


def _check_type(path: Path, known: _Config, settings: Mapping[str, Any]) -> None:
    if known.peft_type not in MERGED:
        raise ModelError(
            f"{path}: peft_type {known.peft_type!r:.60}, which is not merged here: it is of a type that adds tokens or "
            f"layers, that is not known, or that was not compared; merged are {', '.join(MERGED)}. Where peft can, "
            f"{_HOW}"
        )
    for name, why in _REFUSED.items():
        if settings.get(name):
            raise ModelError(f"{path}: {name} = {settings[name]!r:.60}, which is not merged: {why}")
    begun = known.init_lora_weights
    if isinstance(begun, str) and begun not in _KEEPS_BASE:
        raise ModelError(
            f"{path}: init_lora_weights = {begun!r:.60}: {_BASE_CHANGED} (peft's save_pretrained with "
            "path_initial_model_for_weight_conversion)"
        )


def _adapter_files(directory: Path) -> list[Path]:
    return sorted(path for pattern in _FILES for path in directory.glob(pattern))


def refuse_adapter_keys(source: str, keys: Iterable[str]) -> None:
    """Raises:
    ModelError: some weights, by their keys, belong to an adapter.
    """
    if found := sorted(key for key in keys if _KEYS.search(key)):
        raise ModelError(
            f"{source} holds {len(found)} weights of an adapter, such as {found[0]!r}, which is not merged and would "
            f"be left out: {_HOW}"
        )


def refuse_adapters_of(module: nn.Module) -> None:
    """Raises:
    ModelError: a loaded model carries an adapter.
    """
    refuse_adapter_keys(f"the model ({type(module).__name__})", (name for name, _ in module.named_parameters()))
    if hasattr(module, "peft_config"):
        raise ModelError(f"the model carries an adapter ({module.peft_config}), which is not merged: {_HOW}")
