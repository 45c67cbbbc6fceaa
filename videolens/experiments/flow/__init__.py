"""Flow maps: cut every route in every window of layers."""

from __future__ import annotations

from videolens.experiments.common.declaration import Declaration

EXPERIMENT = Declaration(
    name="flow",
    title="Where it flows",
    experiment="FlowExperiment",
    result="FlowMap",
    public={"FlowMap": "result", "plan_flow": "plan", "trace_flow": "experiment"},
)
