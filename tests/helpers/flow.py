"""Invented flow maps that look as real ones may, for the tests of results and figures."""

from __future__ import annotations

import numpy as np
import pandas as pd

from videolens.experiments.flow.result import FlowMap
from videolens.experiments.flow.table import FlowRow, FlowSettings
from videolens.interventions.knockout import ROUTES
from videolens.interventions.layer_sets import WINDOWED, cut_layers

TASKS = ("action antonym", "action sequence", "moving direction", "object count", "scene transition")
_SHAPES = dict(
    zip(
        ROUTES,
        # centre and width in twelfths of the depth, and how far the probability falls there (percent)
        [
            (3, 2, 45),
            (5, 2, 60),
            (6, 3, 2),
            (8.5, 1.5, 70),
            (9, 2, 3),
            (8, 2, 15),
            (8.5, 1.5, 50),
            (8.5, 2, -10),
            (4, 2, 20),
            (6, 1.5, 25),
            (5, 2, 40),
        ],
        strict=True,
    )
)


def plausible_flow(
    model: str = "shapes",
    *,
    n_layers: int = 12,
    n: int = 8,
    from_video: float = 1.0,
    tasks: tuple[str, ...] = TASKS,
    samples: str = "correct",
    style: str = "centre",
    more_routes: tuple[str, ...] = (),
    seed: int = 0,
) -> FlowMap:
    """An invented map that looks as a real one may. `from_video`: scale of every route that starts at the video."""
    window = min(3, n_layers) if style in WINDOWED else None
    rng = np.random.default_rng(seed)
    rows = []
    for task in tasks:
        for question in range(n):
            p_base = rng.uniform(0.6, 0.99)
            for route in (*ROUTES, *more_routes):
                middle, width, fall = _SHAPES.get(route, (6, 2, -15))
                fall *= rng.uniform(0.3, 1.4) * (from_video if "video" in route or route == "cross-frame" else 1)
                for layer in cut_layers(style, window, n_layers):
                    shape = np.exp(-(((layer / n_layers * 12 - middle) / width) ** 2) / 2)
                    p_knockout = float(np.clip(p_base * (1 - fall * shape / 100 + rng.normal(0, 0.01)), 0, 1))
                    change = (p_knockout - p_base) / p_base * 100
                    name = f"{task} {question}"
                    right, still = samples != "wrong", p_knockout > 0.5
                    first = "A" if still else "B"
                    of_right = [p if right else 1 - p for p in (p_base, p_knockout)]
                    logits = [4 * p - 2 for p in of_right]
                    row = (name, task, route, layer, p_base, p_knockout, change, "A", first)
                    rows.append((*row, right, still == right, *of_right, *logits))
    table = pd.DataFrame(rows, columns=list(FlowRow._fields))
    table = table.astype({"correct": "boolean", "correct_knockout": "boolean"})
    settings = FlowSettings(
        model=model,
        n_layers=n_layers,
        window=window,
        style=style,
        samples=samples,
        n_asked=n * len(tasks),
        engine="exact",
        forwards=11.83,
        full_forwards=1.0 + len(ROUTES) * n_layers,
        seconds=40.2,
    )
    return FlowMap(table, settings)
