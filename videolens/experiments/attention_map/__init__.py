"""Attention maps: what words look at in the video."""

from __future__ import annotations

from videolens.experiments.common.declaration import Declaration

EXPERIMENT = Declaration(
    name="attention_map",
    title="What words look at",
    experiment="AttentionMapExperiment",
    short="attention",
    result="AttentionMap",
    public={"AttentionMap": "result", "attention_map": "experiment"},
)
