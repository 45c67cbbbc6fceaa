"""Numbers that sum up what a word looks at in a video: how much, on which frames, how widely spread."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from videolens.experiments.common.statistics import bootstrap_curve

Maps = Float[np.ndarray, "layer head frame row column"]


def on_video(maps: Maps) -> Float[np.ndarray, " layer"]:
    """Share of the attention that falls on the video; mean over heads."""
    return maps.sum((2, 3, 4)).mean(1)


def on_frames(maps: Maps) -> Float[np.ndarray, "layer frame"]:
    """Share of the attention that falls on each frame; mean over heads."""
    return maps.sum((3, 4)).mean(1)


def spread(maps: Maps) -> Float[np.ndarray, " layer"]:
    """Over how many video tokens the attention is spread.

    1. Mean over heads; the part that falls on the video, as shares of that part.
    2. The exponential of their entropy: 1 if all of it falls on one token, the number of video tokens if it is even.
       NaN where none of it falls on the video.
    """
    # 1.
    seen = maps.mean(1).reshape(len(maps), -1)
    total = seen.sum(1, keepdims=True)
    share = np.divide(seen, total, out=np.full_like(seen, np.nan), where=total > 0)
    # 2. nothing looked at has no part in the entropy
    logs = np.log(share, out=np.zeros_like(share), where=share > 0)
    return np.exp(-(share * logs).sum(1))


def with_intervals(
    measured: Mapping[str, Float[np.ndarray, "question layer"]], seed: int
) -> dict[str, Float[np.ndarray, " layer"]]:
    """The mean over questions of each measure, and beside it `_low` and `_high`, its 95 % bootstrap interval."""
    columns: dict[str, Float[np.ndarray, " layer"]] = {}
    for name, values in measured.items():
        mean, low, high = bootstrap_curve(values, seed=seed)
        columns |= {name: mean, f"{name}_low": low, f"{name}_high": high}
    return columns
