"""Attention between the segments of a prompt, head by head."""

from __future__ import annotations

from videolens.experiments.common.declaration import Declaration

EXPERIMENT = Declaration(
    name="segment_attention",
    title="Who looks at whom",
    experiment="SegmentAttentionExperiment",
    short="segments",
    result="SegmentAttention",
    public={"measure_attention": "experiment"},
)
