"""A checkpoint as its config.json describes it, without weights: none is read, and none need be there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import nn

from videolens.errors import ModelError
from videolens.model.checkpoints.adapters import holds_adapter, read_adapter
from videolens.model.checkpoints.bundled import bundled_names, bundled_path
from videolens.model.checkpoints.claims import architecture_of
from videolens.model.checkpoints.placing import dtype_named
from videolens.model.checkpoints.read import Checkpoint, family_in, front_end, template_in
from videolens.model.checkpoints.settings import is_there, read_config
from videolens.model.checkpoints.weights import build
from videolens.model.families import Family
from videolens.reading import as_path


def read_shape(
    name: str | os.PathLike[str],
    *,
    dtype: torch.dtype | str | None = None,
    base: str | os.PathLike[str] | None = None,
    trust_remote_code: bool = False,
) -> Checkpoint:
    """What `read_checkpoint` gives, with a module whose weights are on the meta device. Nothing is downloaded.

    1. Find config.json: of a bundled model, in a directory, or the file itself; of an adapter that of its base.
    2. Build what it describes, where numbers take no memory.
    3. Tokenizer and preprocessor settings, where they lie beside it.

    Args:
        name: a bundled model, a directory that needs to hold no more than config.json, or that file.
        dtype: of the weights; None: what config.json says, else float32.
        base: of an adapter; None: what it names.
        trust_remote_code: as in `from_pretrained`, for a tokenizer.

    Raises:
        ModelError: it is not here, describes no model that is read, or a quantised one, whose bytes its config.json
            does not tell.
    """
    # 1.
    directory = _directory(name, base)
    settings = read_config(directory)
    where = str(directory / "config.json")
    if settings.get("quantization_config"):
        raise ModelError(
            f"{where} describes quantised weights, whose bytes are not told from it: plan the checkpoint that they "
            "were made from; in 8 bits weights take about half of what bfloat16 takes, in 4 bits about a quarter"
        )
    family = family_in(directory, settings, trust_remote_code=trust_remote_code)
    # 2.
    module = _module(family, settings, where).to(_dtype(settings, dtype, where)).eval()
    # 3.
    tokenizer, pixels = front_end([directory], family, module.config, trust_remote_code=trust_remote_code)
    return Checkpoint(
        name=os.fspath(name),
        family=family,
        module=module,
        tokenizer=tokenizer,
        pixels=pixels,
        template=template_in(directory, settings, family),
    )


def _directory(name: str | os.PathLike[str], base: str | os.PathLike[str] | None) -> Path:
    """Where config.json lies.

    Raises:
        ModelError: nowhere here.
    """
    text = os.fspath(name)
    path = bundled_path(text) if text in bundled_names() else as_path(name, "the model's name", ModelError).expanduser()
    if path.is_file():
        if path.name != "config.json":
            raise ModelError(f"{path} is no config.json: give that file, or the directory that it lies in")
        return path.parent
    if path.is_dir() and holds_adapter(path):
        below = base if base is not None else read_adapter(path).base
        if below is not None and Path(below) != path:
            return _directory(below, None)
    if path.is_dir() and is_there(path / "config.json"):
        return path
    raise ModelError(
        f"{text!r} is not here, and nothing is downloaded for a plan: put its config.json into a directory, if "
        "possible with the files of its tokenizer and preprocessor (hf download NAME --include '*.json' '*.model'), "
        f"and give that with --model; bundled models: {', '.join(map(repr, bundled_names()))}"
    )


def _module(family: Family, settings: Mapping[str, Any], where: str) -> nn.Module:
    if callable(family.architecture):
        return build(family, settings)
    with torch.device("meta"), ExitStack() as stack:
        try:
            module = architecture_of(family, settings, stack)
        except (ModelError, MemoryError):
            raise
        except Exception as error:  # whatever a setting that makes no sense makes transformers raise
            raise ModelError(
                f"{where} does not describe a {family.model_type!r} model: {type(error).__name__}: {error}"
            ) from error
    if module is None:
        raise ModelError(f"{where} is of a class that comes with its checkpoint: its shape is known once it is loaded")
    return module


def _dtype(settings: Mapping[str, Any], given: torch.dtype | str | None, where: str) -> torch.dtype:
    if given is None:
        inner = settings.get("text_config")
        said = [each.get(key) for each in (settings, inner if isinstance(inner, dict) else {}) for key in _DTYPES]
        given = next((each for each in said if each is not None), "float32")
        if not isinstance(given, str):
            raise ModelError(f"{where} says the dtype {given!r}: say another with --dtype")
    found = dtype_named(given)
    assert found is not None
    return found


_DTYPES = ("dtype", "torch_dtype")
