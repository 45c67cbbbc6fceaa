"""Reports: figures, views and pages, drawn from results that are already computed."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# no view is called as its module: importing a module of a package binds its name there
_PUBLIC = {
    "View": "videolens.report.view",
    "attention_view": "videolens.report.circuits",
    "pruning_view": "videolens.report.pruned_view",
    "script": "videolens.report.view",
    "token_view": "videolens.report.tokens_view",
}

__all__ = ["View", "attention_view", "pruning_view", "script", "token_view"]

if TYPE_CHECKING:
    from videolens.report.circuits import attention_view
    from videolens.report.pruned_view import pruning_view
    from videolens.report.tokens_view import token_view
    from videolens.report.view import View, script


def __getattr__(name: str) -> Any:
    """Import the module of a view at its first use (PEP 562): drawing one does not load what draws the others."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'videolens.report' has no attribute {name!r}; views: {', '.join(__all__)}")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value
