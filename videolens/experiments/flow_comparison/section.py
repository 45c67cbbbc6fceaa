"""The part of a page that shows models side by side."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from videolens.drawing.html import render
from videolens.experiments.common.words import interval_text, number
from videolens.experiments.flow.measures import measure_named
from videolens.experiments.flow_comparison.result import FlowComparison


def section(compared: FlowComparison) -> Markup:
    """The curves, and every two models' distances with their intervals."""
    one, names = compared.settings[0], compared.names
    rows = [
        [
            f"{names[row.first]} − {names[row.second]}",
            row.n,
            interval_text(row.effect, row.effect_low, row.effect_high),
            interval_text(100 * row.centre, 100 * row.centre_low, 100 * row.centre_high),
            interval_text(100 * row.shape, 100 * row.shape_low, 100 * row.shape_high, sign=""),
            "–" if np.isnan(row.shape_by_chance) else number(100 * row.shape_by_chance, 0, sign=""),
        ]
        for row in compared.distances.itertuples()
    ]
    return render(
        __file__, compared=compared, rows=rows, route=one.route.replace("->", "→"), unit=measure_named(one.measure).sign
    )
