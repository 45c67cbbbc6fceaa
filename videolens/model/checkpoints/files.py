"""Finding a checkpoint: bundled, in a directory, or on the hub."""

from __future__ import annotations

import os
from pathlib import Path

from videolens.errors import ModelError, near
from videolens.model.checkpoints.adapters import refuse_adapter_files
from videolens.model.checkpoints.bundled import bundled_names, bundled_path
from videolens.model.checkpoints.settings import is_there
from videolens.reading import as_path


def find(name: str | os.PathLike[str], *, revision: str | None = None, trust_remote_code: bool) -> Path:
    """The directory of a bundled checkpoint, a directory, or that of a repository on the hub, once it is here.

    A `ModelError` if there is none (it lists the bundled names), if it is an adapter that is not merged, or if a
    revision is asked for of something that is not on the hub.
    """
    try:
        path = as_path(name, "the model's name", ModelError).expanduser()
    except ModelError as error:
        raise ModelError(f"{error}; {_bundled_hint()}") from error
    name = os.fspath(name)
    if revision is not None and (name in bundled_names() or Path(name).expanduser().is_dir()):
        raise ModelError(
            f"revision {revision!r} of {name!r}, which is here: only repositories on the hub have revisions"
        )
    if name in bundled_names():
        return bundled_path(name)
    if name and path.is_dir():
        refuse_adapter_files(path)
        if not is_there(path / "config.json"):
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
