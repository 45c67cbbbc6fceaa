"""Models: a converted VideoLLM with TransformerLens' hook points."""

from __future__ import annotations

from videolens.model.clean import CleanRun
from videolens.model.config import ATTENTION_PATHS, VideoTransformerConfig
from videolens.model.generation import Generation
from videolens.model.rows import KeyValues, Rows
from videolens.model.transformer import HookedVideoTransformer

__all__ = [
    "ATTENTION_PATHS",
    "CleanRun",
    "Generation",
    "HookedVideoTransformer",
    "KeyValues",
    "Rows",
    "VideoTransformerConfig",
]
