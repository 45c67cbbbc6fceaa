"""Which software made a result: every result that is written to disk carries this."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import videolens

__all__ = ["versions"]


def versions() -> dict[str, str]:
    """Version of this package, of Python, and of the packages that a number can depend on."""
    found = {"videolens": videolens.__version__, "python": platform.python_version()}
    for name in ("torch", "transformers", "transformer-lens", "av"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
