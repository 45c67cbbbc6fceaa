"""From a name or directory to a loaded module, its tokenizer and its preprocessor settings."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from videolens.errors import ModelError
from videolens.model.checkpoints.adapters import refuse_adapter_keys
from videolens.model.checkpoints.bundled import ASSETS
from videolens.model.checkpoints.claims import check_layers, check_size
from videolens.model.checkpoints.files import find
from videolens.model.checkpoints.headers import Stored, stored_weights
from videolens.model.checkpoints.merging import merge
from videolens.model.checkpoints.quantised import is_packed, refuse_quantised
from videolens.model.checkpoints.quietly import without_bars
from videolens.model.checkpoints.settings import PlainConfig, is_there, read_config, read_ends, read_settings
from videolens.model.checkpoints.weights import FLOATS, build, load_into, misfit
from videolens.model.families import Family, family_of
from videolens.model.vision.pixels import PixelSettings, Preparation, preparation_of

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
_TOKENIZER_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.json")
BUNDLED_TEMPLATE = "shapes"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as it was read.

    Attributes:
        template: name of the prompt template it was trained with: `prompt_template` of its config.json, else that of
            its family; None: its own chat template.
        ends: ids that end an answer, by its generation_config.json.
    """

    name: str
    family: Family
    module: nn.Module
    tokenizer: Any
    pixels: Preparation | None
    template: str | None
    ends: tuple[int, ...] = ()


def read_checkpoint(
    name: str | os.PathLike[str],
    *,
    dtype: torch.dtype | None,
    base: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    trust_remote_code: bool,
) -> Checkpoint:
    """Read a bundled checkpoint, a directory, or a repository on the hub.

    1. Find it: a bundled name, else a directory, else a hub name of the form owner/name. If it is an adapter, find what
       it is for: `base`, else what it names; its config and weights are read, and the adapter is merged into them.
    2. `model_type` and `architectures` of its config.json say which family reads it.
    3. Look at its weight files: all there, whole, safetensors, of floats that models compute in, and about as many as
       config.json describes.
    4. Read the weights; a key that is missing or has the wrong shape is an error, never a random tensor.
    5. Tokenizer and preprocessor settings where the checkpoint has them; an adapter's own come before its base's.

    Raises:
        ModelError: not found, an unknown or text-only architecture, code of its own, weights that are not safetensors,
            not whole, or do not fit.
    """
    # 1. find it
    located = find(name, base=base, revision=revision, trust_remote_code=trust_remote_code)
    directory, source = located.directory, os.fspath(name)
    # 2. its family
    settings = read_config(directory)
    family = family_in(directory, settings, trust_remote_code=trust_remote_code)
    refuse_quantised(settings, family, str(directory / "config.json"), adapted=located.adapter is not None)
    # 3. its weight files
    stored = stored_weights(directory)
    _check_kinds(stored, dtype, settings)
    refuse_adapter_keys(os.fspath(directory), stored)
    ends = tuple(dict.fromkeys(end for each in located.directories for end in read_ends(each)))
    where = str(directory / "config.json")
    check_layers(settings, stored, where)
    check_size(family, settings, stored, where)
    # 4. its weights
    if callable(family.architecture):
        module = build(family, settings)
        load_into(module, stored, family=family, dtype=dtype, source=os.fspath(directory))
    else:
        module = _by_transformers(directory, stored, family, dtype=dtype, trust_remote_code=trust_remote_code)
    if located.adapter is not None:
        module = merge(module, located.adapter, family)
    # 5. tokenizer and preprocessor
    tokenizer, pixels = front_end(located.directories, family, module.config, trust_remote_code=trust_remote_code)
    return Checkpoint(
        name=source,
        family=family,
        module=module,
        tokenizer=tokenizer,
        pixels=pixels,
        template=template_in(directory, settings, family),
        ends=ends,
    )


def front_end(
    directories: Sequence[Path], family: Family, config: Any, *, trust_remote_code: bool
) -> tuple[Any, Preparation | None]:
    """Tokenizer and preparation of pixels, of the first of the directories that has them; None where none has.

    A config that leaves it to the tokenizer what stands for a video is told what the tokenizer has added.

    Raises:
        ModelError: they cannot be read, or do not fit the config.
    """
    tokenizers = (_tokenizer(each, trust_remote_code=trust_remote_code) for each in directories)
    tokenizer = _with_placeholder(next((each for each in tokenizers if each is not None), None), family)
    if callable(family.architecture):
        config.added_tokens = {} if tokenizer is None else tokenizer.get_added_vocab()
    preparations = (preparation_of(each, family.pixels) for each in directories)
    pixels = next((each for each in preparations if each is not None), None)
    if pixels is None and family.pixels_without_file is not None:
        pixels = family.pixels_without_file(config)
    _check_pixels(pixels, config)
    return tokenizer, pixels


def family_in(directory: Path, settings: Mapping[str, Any], *, trust_remote_code: bool) -> Family:
    """The family of a config; an error for none, a text-only model, or one that needs code of its own."""
    model_type, architectures = settings.get("model_type") or "none given", settings.get("architectures") or ()
    try:
        decoder = PlainConfig(dict(settings)).get_text_config()
        family = family_of(model_type, architectures, getattr(decoder, "model_type", None))
    except ModelError as error:
        if settings.get("auto_map") and not trust_remote_code:
            raise ModelError(f"{_needs_code(directory, settings)}; and no family here reads it: {error}") from None
        raise ModelError(f"{directory / 'config.json'}: {error}") from None
    automatic = isinstance(family.architecture, str) and family.architecture.startswith("Auto")
    if automatic and settings.get("auto_map") and not trust_remote_code:
        raise ModelError(_needs_code(directory, settings))
    return family


def template_in(directory: Path, settings: Mapping[str, Any], family: Family) -> str | None:
    """Name of the prompt template of a checkpoint, as in `Checkpoint`."""
    bundled = directory.parent == ASSETS
    template: str | None = settings.get("prompt_template", BUNDLED_TEMPLATE if bundled else family.template)
    return template


def _needs_code(directory: Path, settings: Mapping[str, Any]) -> str:
    named = [
        each for where in settings["auto_map"].values() for each in (where if isinstance(where, list) else [where])
    ]
    code = sorted({each.partition(".")[0] + ".py" for each in named if each})
    return (
        f"{directory / 'config.json'} names code that comes with the checkpoint ({', '.join(code)}), which is refused: "
        "read it, and where you trust it give trust_remote_code=True"
    )


def _check_pixels(pixels: Preparation | None, config: Any) -> None:
    """Refuse frames far larger than the tower's: they would take memory that nobody has before it refuses them.

    Raises:
        ModelError: says both sizes.
    """
    side = getattr(getattr(config, "vision_config", None), "image_size", None)
    side = max(side) if isinstance(side, (list, tuple)) else side
    if not isinstance(pixels, PixelSettings) or not isinstance(side, int):
        return
    size = pixels.crop or pixels.size or 0
    if (found := max(size) if isinstance(size, tuple) else size) > 4 * side:
        raise ModelError(
            f"the preprocessor prepares frames of {found} pixels, and the vision tower takes {side}: preprocessor "
            "files and config.json must belong together"
        )


def _check_kinds(stored: Mapping[str, Stored], dtype: torch.dtype | None, settings: Mapping[str, Any]) -> None:
    """Refuse weights that would be cast without a word: whole numbers and packed ones, unless config.json says that
    they are quantised, and float64 by default.

    Raises:
        ModelError: names a weight, its file and how it is stored.
    """
    if dtype is not None and dtype not in FLOATS.values():
        raise ModelError(f"dtype {dtype} is none that a model computes in: choose one of {list(FLOATS.values())}")
    for key, each in stored.items():
        wide = each.dtype == "F64" and dtype is None
        if is_packed(settings, each.dtype):
            continue
        if key.endswith((".weight", ".bias")) and (wide or each.dtype not in FLOATS):
            advice = "say dtype=torch.float64 or torch.float32" if wide else "quantised weights are not read"
            raise ModelError(
                f"{each.file}: {key!r} is stored as {each.dtype}; expected one of {list(FLOATS)[:3]}: {advice}"
            )


def _by_transformers(
    directory: Path, stored: Mapping[str, Stored], family: Family, *, dtype: torch.dtype | None, trust_remote_code: bool
) -> nn.Module:
    import transformers

    assert isinstance(family.architecture, str)
    architecture = getattr(transformers, family.architecture)
    try:
        with without_bars():
            module, info = architecture.from_pretrained(
                str(directory),
                dtype=dtype if dtype is not None else "auto",
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported below, with their names
            )
    except MemoryError:
        raise
    except Exception as error:  # whatever a setting that makes no sense makes transformers raise
        raise ModelError(
            f"the weights of {str(directory)!r} cannot be read as {family.architecture}: {type(error).__name__}: "
            f"{error}; config.json and *.safetensors must belong together"
        ) from error
    _check_fit(module, info, str(directory), family, stored)
    return module


def _check_fit(
    module: nn.Module, info: Mapping[str, Any], source: str, family: Family, stored: Mapping[str, Stored]
) -> None:
    """What transformers found missing, misshapen or superfluous.

    A superfluous weight of the decoder is an error: without it the numbers are those of another model. Others are a
    warning.
    """
    shapes = {name: tuple(weight.shape) for name, weight in module.state_dict().items()}
    missing = {name: shapes.get(name, ()) for name in sorted(info.get("missing_keys", ()))}
    mismatched = [(_key_of(name, stored), tuple(shape)) for name, _, shape in sorted(info.get("mismatched_keys", ()))]
    wrong = [(stored[key], key, shape) for key, shape in mismatched]
    superfluous = sorted(info.get("unexpected_keys", ()))
    tails = tuple(path.rpartition(".")[2] + "." for path in (f"{family.decoder}.layers", family.unembed))
    unexpected = [key for key in superfluous if any(f".{tail}" in f".{key}" for tail in tails) and "visi" not in key]
    if missing or wrong or unexpected:
        raise ModelError(misfit(source, family, missing=missing, unexpected=unexpected, wrong=wrong, stored=stored))
    if superfluous:
        warnings.warn(f"{source}: {len(superfluous)} weights are not used: {superfluous[:3]} …", stacklevel=5)


def _key_of(name: str, stored: Mapping[str, Stored]) -> str:
    """The checkpoint's key for a weight that transformers may have renamed: the one with the longest common end."""

    def common(key: str) -> int:
        ends = zip(reversed(key.split(".")), reversed(name.split(".")), strict=False)
        return len(list(takewhile(lambda parts: parts[0] == parts[1], ends)))

    return max(stored, key=common)


def _with_placeholder(tokenizer: Any, family: Family) -> Any:
    """A tokenizer that has the family's placeholder as a token, if there is a tokenizer."""
    from transformers import AddedToken

    if tokenizer is not None and family.placeholder is not None and family.placeholder not in tokenizer.get_vocab():
        tokenizer.add_tokens([AddedToken(family.placeholder, special=True, normalized=False)], special_tokens=True)
    return tokenizer


def _tokenizer(directory: Path, *, trust_remote_code: bool) -> Any:
    """The tokenizer of a directory; None where it has no files of one. A `ModelError` if they cannot be read."""
    import transformers

    if not any(is_there(directory / file) for file in _TOKENIZER_FILES):
        return None
    held = [file for file in dict.fromkeys((*_TOKENIZER_FILES, *_TOKENIZER_SETTINGS)) if is_there(directory / file)]
    settings = {file: read_settings(directory / file) for file in held if file in _TOKENIZER_SETTINGS}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(directory), trust_remote_code=trust_remote_code)
        if (chat := settings.get("chat_template.json")) is not None:  # of the processor: it knows what a video is
            tokenizer.chat_template = str(chat["chat_template"])
        tokenizer("a")["input_ids"]
        return tokenizer
    except BaseException as error:  # whatever its files make the tokenizer raise; a panic of Rust is no Exception
        if isinstance(error, MemoryError) or (not isinstance(error, Exception) and "Panic" not in type(error).__name__):
            raise
        raise ModelError(
            f"the tokenizer in {directory} ({held}) cannot be read: {type(error).__name__}: {error}"
        ) from error
