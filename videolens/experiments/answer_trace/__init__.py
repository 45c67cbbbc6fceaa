"""Answer traces: the probability of every option after each layer."""

from __future__ import annotations

from videolens.experiments.common.declaration import Declaration

EXPERIMENT = Declaration(
    name="answer_trace",
    title="The answer, layer by layer",
    experiment="AnswerTraceExperiment",
    short="trace",
    result="AnswerTrace",
    public={"AnswerTrace": "result", "answer_trace": "experiment"},
)
