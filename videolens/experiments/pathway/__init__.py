"""Pathways: what is left of the answers when all other attention is cut, and how one is chosen."""

from __future__ import annotations

from videolens.experiments.common.declaration import Declaration

EXPERIMENT = Declaration(
    name="pathway",
    title="The pathways that carry the answer",
    experiment="PathwayExperiment",
    example="--set 'pathway={n_layers: 12, cross_frame: [2, 3], video_to_question: [5, 6], question_to_last: [10]}'",
    result="PathwayAccuracy",
    public={"PathwayAccuracy": "result", "choose_pathway": "choice", "evaluate_pathway": "experiment"},
)
