"""The part of a page that shows activation patching."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from videolens.drawing.html import render
from videolens.experiments.patch_map.result import DIRECTIONS, PatchMap

_MOST_PAIRS = 10


def section(patched: PatchMap) -> Markup:
    """The map with its largest effect, and what the model answers when nothing is patched.

    Raises:
        VideolensError: the two unpatched runs do not differ in the map's metric.
    """
    effects = patched.effects()
    at, unit = np.unravel_index(int(effects.argmax()), effects.shape)
    base, source = DIRECTIONS[patched.direction]
    return render(
        __file__,
        patched=patched,
        base=base,
        source=source,
        most=f"{100 * effects[at, unit]:.0f}",
        label=patched.labels[unit],
        layer=patched.settings.layers[at] + 1,
        rows=patched.runs[["pair", "task", "says_clean", "says_corrupted"]].head(_MOST_PAIRS).to_numpy().tolist(),
    )
