"""What lmms-eval is told of the model `videolens`: the entry point of the group "lmms_eval.models"."""

from __future__ import annotations

from typing import Any


def manifest() -> Any:
    """The model `videolens`, by the class that answers. Called by lmms-eval when it lists its models."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="videolens", simple_class_path="videolens.evaluators.lmms_eval.LmmsEvalModel")
