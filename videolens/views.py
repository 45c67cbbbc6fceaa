"""Reports: figures, views and pages, drawn from results that are already computed."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# no view is called as its module: importing a module of a package binds its name there
_PUBLIC = {
    "View": "videolens.drawing.view",
    "attention_view": "videolens.experiments.segment_attention.view",
    "pruning_view": "videolens.experiments.pathway.view",
    "script": "videolens.drawing.view",
    "token_view": "videolens.experiments.attention_map.view",
}

__all__ = ["View", "attention_view", "pruning_view", "script", "token_view"]

if TYPE_CHECKING:
    from videolens.drawing.view import View, script
    from videolens.experiments.attention_map.view import token_view
    from videolens.experiments.pathway.view import pruning_view
    from videolens.experiments.segment_attention.view import attention_view


def __getattr__(name: str) -> Any:
    """Import the module of a view at its first use (PEP 562): drawing one does not load what draws the others."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'videolens.views' has no attribute {name!r}; views: {', '.join(__all__)}")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value
