"""Where the checkpoints that ship inside the package lie."""

from __future__ import annotations

from pathlib import Path

from videolens.errors import ModelError, near

ASSETS = Path(__file__).parents[2] / "assets"


def bundled_names() -> list[str]:
    """Names of the bundled checkpoints: the folders of `videolens/assets` that hold a `config.json`."""
    return sorted(folder.parent.name for folder in ASSETS.glob("*/config.json"))


def bundled_path(name: str) -> Path:
    """Directory of the bundled checkpoint `name`, in the ordinary Hugging Face layout.

    Raises:
        ModelError: no such checkpoint is bundled; the message lists those that are.
    """
    if name not in bundled_names():
        raise ModelError(near(name, bundled_names(), kind="bundled model"))
    return ASSETS / name
