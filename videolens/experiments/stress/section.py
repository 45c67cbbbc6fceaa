"""The part of a page that shows a stress test."""

from __future__ import annotations

from markupsafe import Markup

from videolens.drawing.html import render
from videolens.experiments.stress.result import Stress
from videolens.experiments.stress.table import TABLE_NOTE, table_head, table_rows


def section(stress: Stress) -> Markup:
    """The figure, and a table by perturbation."""
    said = TABLE_NOTE
    if stress.settings.compiled:
        same, apart = stress.compiled()
        said += (
            f" Compiled and masked pathways choose the same in {100 * same.value:.1f} % of {same.n} prompts; their "
            f"logits differ by at most {apart:.1g} standard deviations."
        )
    return render(__file__, stress=stress, head=table_head(stress), rows=table_rows(stress), said=said)
