"""Finding a checkpoint and looking at its files, before anything of it is loaded.

Whatever is wrong with a checkpoint's files is found here, from config.json and the headers of its *.safetensors files.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from operator import index
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from videolens.errors import ModelError, near
from videolens.model.checkpoints.adapters import refuse_adapter_files
from videolens.model.checkpoints.bundled import bundled_names, bundled_path

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_PICKLED_HINT = (
    "pickled weights can run code when they are opened and are refused: where you trust them, "
    "`state = torch.load(file, map_location='cpu', weights_only=True)`, then "
    "`safetensors.torch.save_file({key: weight.clone() for key, weight in state.items()}, 'model.safetensors')`"
)


class PlainConfig(SimpleNamespace):
    """A config.json as it is written: every object in it is a `PlainConfig`, nothing is filled in."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(**{name: _plain(value) for name, value in settings.items()})

    def __reduce__(self) -> tuple[Any, ...]:
        return PlainConfig, ({},), vars(self)  # so that a model that holds one can be copied

    def get_text_config(self) -> Any:
        """The decoder's part, under whichever of the usual names it is here; the whole where there is none."""
        for name in ("text_config", "llm_config", "language_config"):
            if isinstance(part := getattr(self, name, None), PlainConfig) or hasattr(part, "hidden_size"):
                return part
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries again, as the configs of transformers take them."""
        return {name: _unplain(value) for name, value in vars(self).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return PlainConfig(value)
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _unplain(value: Any) -> Any:
    if isinstance(value, PlainConfig):
        return value.to_dict()
    return [_unplain(each) for each in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Stored:
    """A weight in a file: where, in which shape, and in which dtype, as safetensors calls it ("BF16")."""

    file: Path
    shape: tuple[int, ...]
    dtype: str


def find(name: str | os.PathLike[str], *, revision: str | None = None, trust_remote_code: bool) -> Path:
    """The directory of a bundled checkpoint, a directory, or that of a repository on the hub, once it is here.

    A `ModelError` if there is none (it lists the bundled names), if it is an adapter that is not merged, or if a
    revision is asked for of something that is not on the hub.
    """
    name = os.fspath(name)
    if revision is not None and (name in bundled_names() or Path(name).expanduser().is_dir()):
        raise ModelError(
            f"revision {revision!r} of {name!r}, which is here: only repositories on the hub have revisions"
        )
    if name in bundled_names():
        return bundled_path(name)
    path = Path(name).expanduser()
    if name and path.is_dir():
        refuse_adapter_files(path)
        if not (path / "config.json").is_file():
            raise ModelError(f"{path} is a directory without config.json, so not a checkpoint; {_bundled_hint()}")
        return path
    if path.is_file():
        raise ModelError(f"{path} is a file; give the directory of a checkpoint (config.json, *.safetensors)")
    if not name or path.is_absolute() or name.startswith(".") or name.count("/") != 1:
        raise ModelError(
            near(name, bundled_names(), kind="model") + "; nor is it a directory or a hub name (owner/name)"
        )
    return _download(name, revision=revision, trust_remote_code=trust_remote_code)


def short_name(name: str) -> str:
    """What a model is called in tables and figures: the last part of its name or directory."""
    return name.rstrip("/").split("/")[-1] or "model"


def _download(name: str, *, revision: str | None, trust_remote_code: bool) -> Path:
    """A repository's files of the kinds that are read; of its weights none but safetensors."""
    from huggingface_hub import snapshot_download

    code = ["*.py"] if trust_remote_code else []
    at = "" if revision is None else f", revision {revision!r}"
    try:
        found = snapshot_download(
            name,
            revision=revision,
            allow_patterns=["*.json", "*.safetensors", "tokenizer*", "*.model", "*.txt", "*.jinja", *code],
        )
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{name!r}{at}: no such directory here, and not found on the hub ({type(error).__name__}: {error}); "
            f"{_bundled_hint()}"
        ) from error
    refuse_adapter_files(Path(found))
    if not (Path(found) / "config.json").is_file():
        raise ModelError(f"{name!r} has no config.json, so it is not a checkpoint; {_bundled_hint()}")
    return Path(found)


def _bundled_hint() -> str:
    return f"bundled models: {', '.join(map(repr, bundled_names())) or 'none'}"


def read_config(directory: Path) -> dict[str, Any]:
    """The settings of config.json; a `ModelError` if it is no JSON object, or says that the weights are quantised."""
    path = directory / "config.json"
    settings = _read_json(path)
    if settings.get("quantization_config"):
        method = settings["quantization_config"].get("quant_method", "unknown")
        raise ModelError(
            f"{path} says that the weights are quantised ({method}); expected plain float weights (float32, float16 or "
            "bfloat16), which can be read, patched and compared: use the checkpoint it was quantised from"
        )
    return settings


def read_ends(directory: Path) -> tuple[int, ...]:
    """Ids that end an answer, by generation_config.json, which may list several; none where there is no such file.

    Raises:
        ModelError: it is not JSON, or names something else than token ids.
    """
    path = directory / "generation_config.json"
    named = _read_json(path).get("eos_token_id") if path.is_file() else None
    try:
        return token_ids(named)
    except TypeError as error:
        raise ModelError(f"{path} has eos_token_id {named!r}; expected a token id, or a list of them") from error


def token_ids(named: Any) -> tuple[int, ...]:
    """One id, several or None, as the configs of checkpoints name them.

    Raises:
        TypeError: it is none of these.
    """
    return tuple(index(one) for one in (named if isinstance(named, (list, tuple)) else [named]) if one is not None)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON ({error}); expected an object of settings") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds a JSON {type(found).__name__}; expected an object of settings")
    return found


def stored_weights(directory: Path) -> dict[str, Stored]:
    """What the weight files hold, from the index and their headers; no weight is read.

    1. Which files: those of model.safetensors.index.json, else model.safetensors, else the only *.safetensors file.
    2. Each file is there and as long as its header says.
    3. Each holds what the index says.

    Raises:
        ModelError: one of them does not hold; names the file and what was expected of it.
    """
    # 1. which files
    index = directory / INDEX
    claimed: dict[str, str] = {}
    if index.is_file():
        claimed = _read_json(index).get("weight_map") or {}
        if not isinstance(claimed, dict) or not claimed or not all(isinstance(at, str) for at in claimed.values()):
            raise ModelError(f'{index} has no "weight_map"; expected one from the key of each weight to its file')
        files = [directory / file for file in sorted(set(claimed.values()))]
    else:
        files = [directory / SINGLE] if (directory / SINGLE).is_file() else sorted(directory.glob("*.safetensors"))
        if len(files) != 1:
            raise ModelError(_no_weights(directory, files))
    # 2. each file is there and whole
    found: dict[str, Stored] = {}
    for file in files:
        if not file.is_file():
            keys = [key for key, where in claimed.items() if where == file.name]
            raise ModelError(
                f"{file} is missing; {INDEX} expects it to hold {len(keys)} weights ({keys[0]!r}, …): fetch all "
                f"{len(files)} files of the checkpoint"
            )
        found |= _header(file)
    # 3. each holds what the index says
    for key, file_name in claimed.items():
        if key not in found or found[key].file.name != file_name:
            raise ModelError(f"{directory / file_name} does not hold {key!r}, which {INDEX} expects in it")
    return found


def _no_weights(directory: Path, files: list[Path]) -> str:
    if files:
        names = [file.name for file in files]
        return f"{directory} holds {names}, but neither {SINGLE} nor {INDEX}, which says what is in which file"
    pickled = sorted(path.name for pattern in _PICKLED for path in directory.glob(pattern))
    held = f"only {pickled}; {_PICKLED_HINT}" if pickled else f"expected {SINGLE}, or {INDEX} and its files"
    return f"{directory} holds no *.safetensors file, {held}"


def _header(file: Path) -> dict[str, Stored]:
    """The entries of a safetensors file: 8 bytes with the length of a JSON header, the header, then the weights."""
    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > size - 8:
                raise ValueError(f"its header should take {length} bytes")
            entries = json.loads(stream.read(length))
        entries.pop("__metadata__", None)
        found = {key: Stored(file, tuple(entry["shape"]), entry["dtype"]) for key, entry in entries.items()}
        expected = 8 + length + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{file} cannot be read as safetensors: {size} bytes, {error or type(error).__name__}; it is truncated or "
            "of another format, fetch it again"
        ) from error
    if size != expected:
        raise ModelError(
            f"{file} has {size} bytes; its header expects {expected} ({sum(math.prod(s.shape) for s in found.values())}"
            " numbers): it is truncated or damaged, fetch it again"
        )
    return found
