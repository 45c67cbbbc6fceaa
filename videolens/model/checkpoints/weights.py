"""Reading weights into a module that the family builds: mapped from the files, never copied unless cast.

For layouts that transformers has no class for. Those that it has are read by transformers (`read.py`).
"""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from videolens.errors import ModelError
from videolens.model.checkpoints.headers import Stored
from videolens.model.checkpoints.settings import PlainConfig
from videolens.model.families import Family

FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
"""The floats that models compute in, as safetensors calls them."""
_RECOMPUTED = re.compile(r"(^|\.)(inv_freq|position_ids)$")
"""Buffers that older versions of transformers wrote into checkpoints, and that are computed from the config."""


@contextmanager
def without_storage() -> Iterator[None]:
    """Modules made in here by this thread have parameters on the meta device, and real buffers.

    Buffers are computed from the config when a module is made (frequencies, position ids); a checkpoint does not hold
    them. (`torch.device("meta")` would leave them without content.)
    """
    mine = threading.get_ident()

    def drop(module: nn.Module, name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        if parameter is None or parameter.is_meta or threading.get_ident() != mine:
            return None
        return nn.Parameter(parameter.detach().to("meta"), requires_grad=False)

    handle = register_module_parameter_registration_hook(drop)  # type: ignore[arg-type]
    try:
        yield
    finally:
        handle.remove()


def build(family: Family, settings: Mapping[str, Any]) -> nn.Module:
    """The module that a family's `architecture` builds from the config, without weights.

    A `ModelError` if the config lacks a setting that the family needs, or has one that makes no sense.
    """
    assert callable(family.architecture)
    config = PlainConfig(dict(settings))
    try:
        with without_storage():
            module = family.architecture(config)
    except (ModelError, MemoryError):
        raise
    except Exception as error:  # whatever a setting that makes no sense makes the architecture raise
        raise ModelError(
            f"config.json does not describe a {family.model_type!r} model: {type(error).__name__}: {error}; expected "
            f"the settings of {list(family.architectures) or family.model_type}"
        ) from error
    if getattr(module, "config", None) is None:
        decoder: Any = module.get_submodule(family.decoder)
        if hasattr(decoder, "config"):
            config.text_config = decoder.config  # with what config.json leaves to defaults
        module.config = config  # type: ignore[assignment]
    return module.eval()


def load_into(
    module: nn.Module, stored: Mapping[str, Stored], *, family: Family, dtype: torch.dtype | None, source: str
) -> None:
    """Give a module built by `build` the weights of a checkpoint, in place.

    1. The checkpoint's keys are renamed; parameters and persistent buffers are what the module expects.
    2. All that does not fit is one error. A parameter under several names (tied embeddings) may be stored under any.
    3. Weights are views of the mapped files; those of another dtype are cast, one at a time.

    Args:
        stored: what the files hold.
        dtype: of all floating point weights; None: `config.dtype`, else that of the first weight.
        source: the checkpoint's name, for messages.

    Raises:
        ModelError: keys are missing, unexpected or of the wrong shape, or not stored as plain floats.
    """
    # 1. keys
    renamed: dict[str, str] = {}
    for key in stored:
        name = _rename(key, family)
        if name in renamed:
            raise ModelError(f"{stored[key].file}: {key!r} and {renamed[name]!r} are both renamed to {name!r}")
        renamed[name] = key
    expected = module.state_dict(keep_vars=True)
    names_of: dict[int, list[str]] = defaultdict(list)
    for name, weight in expected.items():
        names_of[id(weight)].append(name)
    # 2. what does not fit
    lacking = [names[0] for names in names_of.values() if not any(name in renamed for name in names)]
    missing = [name for name in lacking if not _RECOMPUTED.search(name)]
    extra = [key for name, key in renamed.items() if name not in expected and not _RECOMPUTED.search(name)]
    unexpected = [key for key in extra if not any(re.search(pattern, key) for pattern in family.ignore)]
    wrong = [
        (stored[renamed[name]], renamed[name], tuple(weight.shape))
        for name, weight in expected.items()
        if name in renamed and stored[renamed[name]].shape != tuple(weight.shape)
    ]
    if missing or unexpected or wrong:
        shapes = {name: tuple(expected[name].shape) for name in missing}
        raise ModelError(misfit(source, family, missing=shapes, unexpected=unexpected, wrong=wrong, stored=stored))
    # 3. views of the files
    used = {name: renamed[name] for name in expected if name in renamed}
    dtype = dtype or _own_dtype(module.config, [stored[key] for key in used.values()])
    weights = _read({name: (key, stored[key]) for name, key in used.items()}, expected, dtype)
    for names in names_of.values():
        held = {name: nn.Parameter(weights[name], requires_grad=False) for name in names if name in weights}
        if held:
            first, *others = held.values()
            same = all(torch.equal(first, other) for other in others)
            for name in names:  # tied, unless the files say that they are not the same
                _assign(module, name, first if same or name not in held else held[name])


def _rename(key: str, family: Family) -> str:
    for pattern, replacement in family.rename:
        key = re.sub(pattern, replacement, key)
    return key


def _own_dtype(config: Any, stored: list[Stored]) -> torch.dtype:
    named = getattr(config, "dtype", None) or getattr(config, "torch_dtype", None)
    found = getattr(torch, named.removeprefix("torch."), None) if isinstance(named, str) else named
    if isinstance(found, torch.dtype):
        return found
    return next((FLOATS[each.dtype] for each in stored if each.dtype in FLOATS), torch.float32)


def _read(
    wanted: Mapping[str, tuple[str, Stored]], expected: Mapping[str, torch.Tensor], dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """Weights as views of their files, mapped privately: writing to one does not write to the file.

    A weight of another dtype is cast from a mapping of its own, which goes before the next one is read: what is kept
    is the copy alone.
    """
    weights: dict[str, torch.Tensor] = {}
    with ExitStack() as stack:
        files: dict[Path, Any] = {}
        for name, (key, stored) in wanted.items():
            wish = dtype if expected[name].is_floating_point() else expected[name].dtype
            if expected[name].is_floating_point() and stored.dtype not in FLOATS:
                raise ModelError(
                    f"{stored.file}: {key!r} is stored as {stored.dtype}; expected one of {list(FLOATS)}: quantised "
                    "weights are not read"
                )
            if FLOATS.get(stored.dtype) == wish:
                if stored.file not in files:
                    files[stored.file] = stack.enter_context(safe_open(stored.file, framework="pt"))
                weights[name] = files[stored.file].get_tensor(key)
            else:
                with safe_open(stored.file, framework="pt") as file:
                    weights[name] = file.get_tensor(key).to(wish, copy=True)
    return weights


def _assign(module: nn.Module, name: str, weight: nn.Parameter) -> None:
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    if leaf in owner._parameters:
        owner._parameters[leaf] = weight
    else:
        owner._buffers[leaf] = weight.detach()


def misfit(
    source: str,
    family: Family,
    *,
    missing: Mapping[str, tuple[int, ...]],
    unexpected: list[str],
    wrong: list[tuple[Stored, str, tuple[int, ...]]],
    stored: Mapping[str, Stored],
) -> str:
    """What does not fit between a checkpoint and its architecture, with files and expected shapes."""
    files = sorted({each.file.name for each in stored.values()})
    said = [f"{source!r} does not fit a {family.model_type!r} model:"]
    if missing:
        some = [f"{name} {list(shape)}" for name, shape in list(missing.items())[:3]]
        said.append(f"{len(missing)} weights are missing from {_some(files)}: {_some(some, len(missing))};")
    if wrong:
        some = [f"{key} in {at.file.name} is {list(at.shape)}, expected {list(shape)}" for at, key, shape in wrong[:3]]
        said.append(f"{len(wrong)} have another shape: {_some(some, len(wrong))};")
    if unexpected:
        some = [f"{key} in {stored[key].file.name}" if key in stored else key for key in unexpected[:3]]
        said.append(f"{len(unexpected)} were not expected: {_some(some, len(unexpected))};")
    return " ".join(said) + " config.json and *.safetensors must belong together"


def _some(items: list[str], total: int | None = None) -> str:
    more = len(items) > 3 or (total or 0) > 3
    return ", ".join(items[:3]) + (", …" if more else "")
