"""How much pathways have in common."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from videolens.errors import VideolensError
from videolens.interventions.cut_routes import CutRoutes


def pathway_overlap(pathways: Mapping[str, CutRoutes]) -> pd.DataFrame:
    """Jaccard index of what is open in each two pathways: (route, layer) pairs open in both, over those open in any.

    1 are equal pathways; of two independent ones that leave a third of all pairs open it is about a fifth.

    Args:
        pathways: by name, of one depth and of the same routes; of single heads, a pair is open if it is in any head.

    Returns:
        One row and one column per pathway. `attrs["shared"]` are the (route, 0-based layer) that are open in all,
        `attrs["any"]` those that are open in some.

    Raises:
        VideolensError: fewer than two pathways, or some that cannot be compared.
    """
    if len(pathways) < 2:
        raise VideolensError(f"{len(pathways)} pathways have nothing in common: give two or more, {{name: pathway}}")
    kinds = {(one.n_layers, tuple(sorted(one.open_layers))) for one in pathways.values()}
    if len(kinds) > 1:
        raise VideolensError(f"pathways of different depth or of different routes cannot be compared: {sorted(kinds)}")
    units = {
        name: {(route, layer) for route, layers in one.open_layers.items() for layer in layers}
        for name, one in pathways.items()
    }
    rows = [[_jaccard(one, other) for other in units.values()] for one in units.values()]
    found = pd.DataFrame(rows, index=list(units), columns=list(units))
    found.attrs["shared"] = sorted(set.intersection(*units.values()))
    found.attrs["any"] = sorted(set.union(*units.values()))
    return found


def _jaccard(one: set[tuple[str, int]], other: set[tuple[str, int]]) -> float:
    return len(one & other) / len(one | other) if one | other else 1.0
