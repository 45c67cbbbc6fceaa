"""Pathways: what is left of the answers when all other attention is cut, and how one is chosen."""

from __future__ import annotations

from videolens.experiments.common.declaration import Declaration

EXPERIMENT = Declaration(
    name="pathway",
    title="The pathways that carry the answer",
    experiment="PathwayExperiment",
    result="PathwayAccuracy",
    public={"PathwayAccuracy": "result", "choose_pathway": "choice", "evaluate_pathway": "experiment"},
)
