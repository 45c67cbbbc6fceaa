"""The paper's claims, judged by flow maps."""

from __future__ import annotations

from videolens.experiments.common.declaration import Declaration

EXPERIMENT = Declaration(
    name="claims", title="The paper’s claims", result="Claims", public={"check_claims": "experiment"}
)
