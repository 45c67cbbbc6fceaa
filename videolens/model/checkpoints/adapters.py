"""Adapters (LoRA and others of PEFT) that are not merged into the weights: refused, for they would be left out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from torch import nn

from videolens.errors import ModelError, VideolensError
from videolens.reading import read_json

_FILES = ("adapter_config.json", "adapter_model*")
_KEYS = re.compile(r"(^|\.)(lora_\w+|base_layer|modules_to_save|ia3_\w+|adapter_\w+)(\.|$)")
_HOW = (
    "merge it into the weights and load what that gives: "
    "PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(directory)"
)


def refuse_adapter_files(directory: Path) -> None:
    """Raises:
    ModelError: a directory holds an adapter, with or without the weights that it is for; names it and its base.
    """
    files = sorted(path for pattern in _FILES for path in directory.glob(pattern))
    if not files:
        return
    try:
        base = read_json(directory / _FILES[0])["base_model_name_or_path"]
    except (VideolensError, KeyError):
        base = "a model that it does not name"
    raise ModelError(
        f"{directory} holds an adapter ({', '.join(path.name for path in files)}) for {base}, which is not merged into "
        f"the weights and would be left out: {_HOW}; for the base model itself, load a directory without the adapter"
    )


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
