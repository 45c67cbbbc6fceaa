"""Which software made a result: every result that is written to disk carries this."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import videolens
from videolens.model.transformer import HookedVideoTransformer

__all__ = ["made_with", "versions"]


def made_with(model: HookedVideoTransformer) -> dict[str, Any]:
    """What the settings of every result say of the model and the software: model, revision, dtype, device, versions."""
    cfg = model.cfg
    return {
        "model": str(getattr(cfg, "model_name", "") or ""),
        "revision": getattr(cfg, "revision", None),
        "dtype": str(cfg.dtype).removeprefix("torch."),
        "device": str(cfg.device),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Version of this package, of Python, and of the packages that a number can depend on."""
    found = {"videolens": videolens.__version__, "python": platform.python_version()}
    for name in ("torch", "transformers", "transformer-lens", "av"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
