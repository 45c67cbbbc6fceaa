"""The part of a page that shows probes."""

from __future__ import annotations

from markupsafe import Markup

from videolens.drawing.html import render
from videolens.experiments.common.words import number
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
            f"{100 * row['accuracy']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]",
            " ".join(
                (
                    number(100 * row["selectivity"], 1),
                    f"[{number(100 * row['selectivity_low'], 1)}, {number(100 * row['selectivity_high'], 1)}]",
                )
            ),
        ]
        for row in probes.summary().to_dict("records")
    ]
    return render(__file__, probes=probes, rows=rows)
