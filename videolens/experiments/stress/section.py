"""The part of a page that shows a stress test."""

from __future__ import annotations

from markupsafe import Markup

from videolens.drawing.html import render
from videolens.experiments.common.words import number
from videolens.experiments.stress.result import FULL, NONE, Stress


def section(stress: Stress) -> Markup:
    """The figure, and a table by perturbation."""
    pathways = [name for name in stress.conditions if name != FULL]
    rows = table_rows(stress)
    compiled = ""
    if stress.settings.compiled:
        same, apart = stress.compiled()
        compiled = (
            f"Compiled and masked pathways choose the same in {100 * same.value:.1f} % of {same.n} prompts; their "
            f"logits differ by at most {apart:.1g} standard deviations. "
        )
    head = ["perturbation", "in full, %"]
    for name in pathways:
        head += [f"{name}, %", f"{name} − full, points", f"{name} = full, %"]
    return render(__file__, stress=stress, head=head, rows=rows, compiled=compiled)


def table_rows(stress: Stress) -> list[list[str]]:
    """By perturbation: shares of right choices in full and along every pathway, in percent and by severity; of each
    pathway, at the highest severity, the paired difference in points with its interval, and the share of questions in
    which it chooses what the whole model chooses."""
    rows = []
    for perturbation in [NONE, *stress.perturbations]:
        severities = stress.severities(perturbation)
        row = [perturbation, _shares(stress, perturbation, FULL)]
        for name in stress.conditions:
            if name == FULL:
                continue
            apart = stress.difference(name, perturbation, severities[-1])
            value, low, high = (number(each) for each in (apart.value, apart.low, apart.high))
            same = stress.agreement(name, perturbation, severities[-1])
            row += [_shares(stress, perturbation, name), f"{value} [{low}, {high}]", f"{100 * same.value:.0f}"]
        rows.append(row)
    return rows


def _shares(stress: Stress, perturbation: str, condition: str) -> str:
    """ "98 · 90 · 72", in percent, by severity."""
    shares = [stress.accuracy(perturbation, at, condition=condition).value for at in stress.severities(perturbation)]
    return " · ".join(f"{100 * share:.0f}" for share in shares)
