"""The logit lens on video tokens: the words of every patch in every layer."""

from __future__ import annotations

from videolens.experiments.common.declaration import Declaration

EXPERIMENT = Declaration(
    name="logit_lens",
    title="Words of the video tokens",
    experiment="LogitLensExperiment",
    short="lens",
    result="LogitLens",
    public={"LogitLens": "result", "logit_lens": "experiment"},
)
