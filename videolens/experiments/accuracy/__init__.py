"""Accuracy: which option a model picks, under conditions that take its time away."""

from __future__ import annotations

from videolens.experiments.common.declaration import Declaration

EXPERIMENT = Declaration(
    name="accuracy",
    title="How often it is right",
    experiment="AccuracyExperiment",
    result="Accuracy",
    public={"measure_accuracy": "experiment"},
)
