"""Linear probes: what can be read off the residual stream, layer by layer, on clips that no probe has seen."""

from __future__ import annotations

from videolens.experiments.common.declaration import Declaration

EXPERIMENT = Declaration(
    name="probe",
    title="What can be read where",
    experiment="ProbeExperiment",
    result="Probes",
    public={"Probes": "result", "probe": "experiment"},
    example="--n 40 --set 'targets={what moves: moves}'",
)
