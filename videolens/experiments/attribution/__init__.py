"""Attribution: what closing each route of attention would change, estimated for all of them from one run."""

from __future__ import annotations

from videolens.experiments.common.declaration import Declaration

EXPERIMENT = Declaration(
    name="attribution",
    title="Which attention the answer depends on",
    experiment="AttributionExperiment",
    result="Attribution",
    public={"Attribution": "result", "attribute": "experiment"},
)
