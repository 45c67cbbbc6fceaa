"""Flow maps of several models side by side."""

from __future__ import annotations

from videolens.experiments.common.declaration import Declaration

EXPERIMENT = Declaration(
    name="flow_comparison",
    title="Models side by side",
    result="FlowComparison",
    public={"compare_flows": "experiment", "FlowComparison": "result"},
)
