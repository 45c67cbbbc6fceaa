"""Finding a checkpoint: bundled, in a directory, or on the hub; and the base of one that is an adapter."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from videolens.errors import ModelError, near
from videolens.model.checkpoints.adapters import NOT_MERGED, Adapter, holds_adapter, read_adapter
from videolens.model.checkpoints.bundled import bundled_names, bundled_path
from videolens.model.checkpoints.headers import GGUF
from videolens.model.checkpoints.settings import is_there
from videolens.reading import as_path


@dataclass(frozen=True)
class Located:
    """Where a checkpoint lies.

    Attributes:
        directory: of its config and weights.
        adapter: what is to be merged into them, or None.
    """

    directory: Path
    adapter: Adapter | None = None

    @property
    def directories(self) -> tuple[Path, ...]:
        """All that loading reads from; what lies in a former one comes first: tokenizer, preprocessor settings."""
        return (self.directory,) if self.adapter is None else (self.adapter.directory, self.directory)


def find(
    name: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    trust_remote_code: bool,
) -> Located:
    """A bundled checkpoint, a directory, or a repository on the hub, once it is here; of an adapter its base, too.

    Args:
        name: what to look for.
        base: the checkpoint that an adapter is for; None: the one that it names.
        revision: of a repository on the hub.
        trust_remote_code: fetch code that comes with it.

    Raises:
        ModelError: there is none (it lists the bundled names), a revision is asked for of something that is not on the
            hub, an adapter that cannot be merged or whose base is not found, or a base for what is no adapter.
    """
    directory = _directory(name, revision=revision, trust_remote_code=trust_remote_code)
    if not holds_adapter(directory):
        if base is not None:
            raise ModelError(
                f"base {os.fspath(base)!r} was given for {os.fspath(name)!r}, which is no adapter: {directory} has no "
                "adapter_config.json"
            )
        return Located(_with_config(directory, name))
    adapter = read_adapter(directory)
    asked = base if base is not None else adapter.base
    if asked is None:
        raise ModelError(
            f"{directory} holds an adapter that does not name its base (base_model_name_or_path): give "
            "base=DIRECTORY_OR_NAME"
        )
    at = adapter.revision if base is None else None
    try:
        below = _directory(asked, revision=at, trust_remote_code=trust_remote_code)
        if holds_adapter(below):
            raise ModelError(f"{below} holds an adapter itself: merge one into its base first, and save that")
        return Located(_with_config(below, asked), adapter)
    except ModelError as error:
        raise ModelError(
            f"{directory} holds an adapter for {os.fspath(asked)!r}, and that cannot be loaded: {error}; where it lies "
            "elsewhere, give base=DIRECTORY_OR_NAME"
        ) from error


def _directory(name: str | os.PathLike[str], *, revision: str | None, trust_remote_code: bool) -> Path:
    """The directory of a checkpoint, which may be an adapter."""
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
        return path
    if path.suffix == ".gguf":
        raise ModelError(f"{path}: {GGUF}")
    if path.is_file():
        raise ModelError(f"{path} is a file; give the directory of a checkpoint (config.json, *.safetensors)")
    if not name or path.is_absolute() or name.startswith(".") or name.count("/") != 1:
        raise ModelError(
            near(name, bundled_names(), kind="model") + "; nor is it a directory or a hub name (owner/name)"
        )
    return _download(name, revision=revision, trust_remote_code=trust_remote_code)


def _with_config(directory: Path, name: str | os.PathLike[str]) -> Path:
    if not is_there(directory / "config.json"):
        raise ModelError(
            f"{os.fspath(name)!r} is a directory without config.json ({directory}), so not a checkpoint; "
            f"{_bundled_hint()}"
        )
    return directory


def short_name(name: str) -> str:
    """What a model is called in tables and figures: the last part of its name or directory."""
    return name.rstrip("/").split("/")[-1] or "model"


def _download(name: str, *, revision: str | None, trust_remote_code: bool) -> Path:
    """A repository's files of the kinds that are read; of its weights none but safetensors.

    What an adapter leaves beside itself is fetched too: that it is there is a reason to refuse the adapter.
    """
    from huggingface_hub import snapshot_download

    code = ["*.py"] if trust_remote_code else []
    at = "" if revision is None else f", revision {revision!r}"
    try:
        found = snapshot_download(
            name,
            revision=revision,
            allow_patterns=["*.json", "*.safetensors", "tokenizer*", "*.model", "*.txt", "*.jinja", NOT_MERGED, *code],
        )
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{name!r}{at}: no such directory here, and not found on the hub ({type(error).__name__}: {error}); "
            f"{_bundled_hint()}"
        ) from error
    return Path(found)


def _bundled_hint() -> str:
    return f"bundled models: {', '.join(map(repr, bundled_names())) or 'none'}"
