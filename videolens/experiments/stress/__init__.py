"""Stress: is a pathway as robust as the whole model, when frames, their order or the words are disturbed?"""

from __future__ import annotations

from videolens.experiments.common.declaration import Declaration

EXPERIMENT = Declaration(
    name="stress",
    title="What a pathway bears",
    experiment="StressExperiment",
    result="Stress",
    public={"Stress": "result", "stress": "experiment"},
    example="--set 'pathway={n_layers: 12, cross_frame: [2, 3], video_to_question: [5, 6], question_to_last: [10]}'",
)
