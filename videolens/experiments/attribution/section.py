"""The part of a page that says which attention an answer depends on."""

from __future__ import annotations

import numpy as np
import pandas as pd
from markupsafe import Markup

from videolens.drawing.html import render
from videolens.experiments.attribution.agreement import MEASURES
from videolens.experiments.attribution.figure import UNIT, agreement_text, short_route
from videolens.experiments.attribution.result import TOP, Attribution
from videolens.experiments.common.statistics import Interval
from videolens.experiments.common.words import number

_MOST_UNITS = 15


def section(found: Attribution) -> Markup:
    """Scores as a picture, how far they agree with exact knockouts, and the units with the largest."""
    agreement = found.agreement()
    units = found.units().head(_MOST_UNITS)
    return render(
        __file__,
        found=found,
        unit=UNIT[found.settings.metric],
        model=found.settings.model,
        measures=[(name, MEASURES[name]) for name in MEASURES],
        top=TOP,
        agreement=[_agreement_row(row, found.n) for _, row in agreement.iterrows()],
        units=[_unit_row(row) for _, row in units.iterrows()],
    )


def _agreement_row(row: pd.Series, n: int) -> list[str]:
    shown = [_cell(Interval(row[name], row[f"{name}_low"], row[f"{name}_high"], n)) for name in MEASURES]
    route = str(row["route"])
    return [route if route == "all" else short_route(route), str(row["units"]), *shown]


def _cell(found: Interval) -> str:
    return "–" if np.isnan(found.value) else agreement_text(found)


def _unit_row(row: pd.Series) -> list[str]:
    head = "all" if pd.isna(row["head"]) else str(row["head"])
    exact = "–" if np.isnan(row["exact"]) else number(row["exact"], 2)
    return [short_route(str(row["route"])), str(row["layer"] + 1), head, number(row["score"], 2), exact]
