"""The smallest pathway that keeps the answers, found by closing routes and asking again."""

from __future__ import annotations

from videolens.experiments.common.declaration import Declaration

EXPERIMENT = Declaration(
    name="search",
    title="The smallest pathway",
    result="PathwaySearch",
    public={"PathwaySearch": "result", "find_pathway": "experiment", "pathway_overlap": "overlap"},
)
