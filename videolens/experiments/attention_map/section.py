"""The part of a page that shows what words look at."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from videolens.drawing.html import render, two_lines
from videolens.experiments.attention_map.result import AttentionMap


def section(attended: AttentionMap) -> Markup:
    """A word's attention over the frames of one clip, and how much of every word's attention falls on the video."""
    summary = attended.summary()
    over_all = summary[summary["task"] == "all"]
    most = over_all.loc[over_all.groupby("word", sort=False)["share"].idxmax()]
    return render(__file__, attended=attended, rows=[_row(found) for found in most.to_dict("records")])


def _row(found: dict[str, Any]) -> list[str]:
    """A word, its questions, the layer where it looks at the video most, and its shares there."""
    shares = [
        two_lines(f"{100 * found[name]:.0f}", f"{100 * found[f'{name}_low']:.0f} – {100 * found[f'{name}_high']:.0f}")
        for name in ("share", "share_blocked")
    ]
    return [found["word"], str(found["n"]), str(found["layer"] + 1), *shares]
