"""Entropy of answers: how undecided the model is about every question."""

from __future__ import annotations

from videolens.experiments.common.declaration import Declaration

EXPERIMENT = Declaration(
    name="toy",
    title="How undecided the model is",
    experiment="ToyExperiment",
    result="Toy",
    public={"Toy": "result", "measure_toy": "experiment"},
)
