"""Long answers: how the video and what was already written reach the k-th verb of an answer."""

from __future__ import annotations

from videolens.experiments.common.declaration import Declaration

EXPERIMENT = Declaration(
    name="generation",
    title="How a long answer is written",
    experiment="GenerationExperiment",
    result="GenerationTrace",
    public={"GenerationTrace": "result", "trace_generation": "experiment"},
)
