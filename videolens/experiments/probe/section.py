"""The part of a page that shows probes."""

from __future__ import annotations

from markupsafe import Markup

from videolens.drawing.html import render
from videolens.experiments.common.words import interval_text
from videolens.experiments.probe.result import Probes


def section(probes: Probes) -> Markup:
    """The curves, and of every target and site the layer that is read best."""
    rows = [
        [
            row["target"],
            row["site"] if row["condition"] == "clean" else f"{row['site']}, {row['condition']}",
            row["n"],
            f"{100 * row['chance']:.0f}",
            str(row["layer"] + 1),
            interval_text(*(100 * row[end] for end in ("accuracy", "low", "high")), sign=""),
            interval_text(*(100 * row[f"selectivity{end}"] for end in ("", "_low", "_high"))),
        ]
        for row in probes.summary().to_dict("records")
    ]
    return render(__file__, probes=probes, rows=rows)
