"""Patch maps: copy activations from another run, everywhere."""

from __future__ import annotations

from videolens.experiments.common.declaration import Declaration

EXPERIMENT = Declaration(
    name="patch_map",
    title="Activations of another run",
    experiment="PatchMapExperiment",
    short="patch",
    result="PatchMap",
    public={"PatchMap": "result", "patch_map": "experiment"},
)
