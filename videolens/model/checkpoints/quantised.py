"""Checkpoints whose weights are quantised: which are read, and why others are not.

Those of bitsandbytes stay quantised: their layers are bitsandbytes' own, and hook points see the activations between
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from videolens.errors import ModelError
from videolens.model.decoder.layers import is_quantised
from videolens.model.families import Family

METHOD = "bitsandbytes"
_PACKED = ("U8", "I8")


def check_quantisation(path: Path | str, said: Mapping[str, Any]) -> None:
    """Refuse weights that are quantised in a way that is not read.

    In 8 bits bitsandbytes multiplies columns with outliers (of more than `llm_int8_threshold`) by themselves, and which
    they are all rows decide together. What a row computes then depends on later rows: attention is no longer the only
    way between positions, and what a knockout changes is no longer its doing alone.

    Args:
        path: what messages call the config: its file.
        said: its quantization_config.

    Raises:
        ModelError: another method than bitsandbytes, or 8 bits with a threshold for outliers.
    """
    method = said.get("quant_method", "unknown")
    if method != METHOD:
        raise ModelError(
            f"{path} says that the weights are quantised ({method}); expected plain float weights (float32, float16 or "
            f"bfloat16), or weights that {METHOD} has quantised: use the checkpoint it was quantised from"
        )
    threshold = said.get("llm_int8_threshold", 6.0)
    if said.get("load_in_8bit") and threshold != 0:
        raise ModelError(
            f"{path} has 8-bit weights with llm_int8_threshold {threshold!r:.40}: all rows together decide which "
            "columns are outliers, so that what a position computes depends on later ones, and no cut between two of "
            "them is exact. Put 0.0 there, with which every row is computed by itself, or use 4 bits"
        )


def refuse_quantised(settings: Mapping[str, Any], family: Family, where: str, *, adapted: bool) -> None:
    """Refuse quantised weights where they cannot be loaded, or where something is to be added to them.

    Raises:
        ModelError: the base of an adapter, a layout that transformers has no class for, or bitsandbytes is not
            installed.
    """
    if not settings.get("quantization_config"):
        return
    if adapted:
        raise ModelError(
            f"{where} says that the weights are quantised ({METHOD}), and an adapter that is merged into them would be "
            "rounded to their few bits: give base= the checkpoint they were quantised from"
        )
    if callable(family.architecture):
        raise ModelError(
            f"{where} says that the weights are quantised ({METHOD}), and transformers, which loads such layers, has "
            f"no class for the layout of {family.model_type!r}: use the checkpoint it was quantised from"
        )
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise ModelError(
            f"{where} says that the weights are quantised, and {METHOD} cannot be imported ({error}): "
            "pip install 'videolens[bitsandbytes]'"
        ) from error


@torch.no_grad()
def settle(module: nn.Module, dtype: torch.dtype) -> None:
    """Run every quantised layer once: bitsandbytes rearranges weights when a layer is first used, and whoever watches
    the weights would take that for an edit.

    Args:
        module: whose layers, where they will stay.
        dtype: of activations.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear) and is_quantised(layer):
            layer(torch.zeros(2, layer.in_features, dtype=dtype, device=layer.weight.device))


def is_packed(settings: Mapping[str, Any], dtype: str) -> bool:
    """Whether a weight of this dtype, as safetensors calls it, is one that a quantised checkpoint holds."""
    return bool(settings.get("quantization_config")) and dtype in _PACKED
