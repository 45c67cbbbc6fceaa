"""Patch maps as figures: layers × what was patched, with the clips' frames beneath; or effects laid over the frames.

Layers are numbered from 1 here, as in the other figures, and lie as information flows: the first layer at the bottom,
above what enters it. Frames and heads keep their names, which count from 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from videolens.drawing.style import INK, MUTED, layer_ticks, under
from videolens.errors import SelectionError, VideolensError, near
from videolens.experiments.common.thumbnails import pixels_of
from videolens.experiments.common.words import number
from videolens.experiments.patch_map.result import PatchMap
from videolens.interventions.numbering import whole_numbers

_CMAP = "RdBu_r"
_CELL, _MOST_NUMBERS, _LEAST_SHOWN = 0.62, 16, 0.05
_METRIC = {"logit difference": "logit difference", "probability": "probability of the clean answer", "kl": "KL"}
Pictures = dict[str, list[UInt8[np.ndarray, "height width 3"]]]


def draw(
    patched: PatchMap, metric: str | None = None, *, pair: str | None = None, layers: Iterable[int] | int | None = None
) -> Figure:
    """The figure of a patch map: of one pair with its frames, or the mean over several pairs.

    Args:
        patched: what to draw.
        metric: "logit difference", "probability" or "kl"; None: the map's own.
        pair: which of several; None: the mean over all.
        layers: 0-based layers to show; None: all. Of a map over patches, up to six, evenly spaced.

    Raises:
        SelectionError: no such pair, or a layer that was not patched.
        VideolensError: an unknown metric, or one in which the two unpatched runs do not differ.
    """
    metric = metric or patched.settings.metric
    effects = patched.effects(metric, pair=pair)
    shown = _layers(patched, layers)
    effects = effects[[patched.settings.layers.index(layer) for layer in shown]]
    pictures = _pictures(patched, pair)
    limit = max(0.2, np.ceil(10 * float(np.abs(effects).max()) - 0.05) / 10)
    if patched.settings.over == "patch":
        figure = _over_frames(patched, effects, shown, pictures, limit)
    else:
        figure = _heat_map(patched, effects, shown, pictures, limit, metric=metric, pair=pair)
    # colours as they are, not as a panel lets a frame shine through
    colours = ScalarMappable(Normalize(-limit, limit), _CMAP)
    bar = figure.colorbar(colours, ax=figure.axes, fraction=0.03, pad=0.015, aspect=30)
    bar.set_ticks(
        [tick for tick in (-1, -0.5, 0, 0.5, 1) if abs(tick) <= limit] if limit >= 0.5 else [-limit, 0, limit]
    )
    bar.ax.yaxis.set_major_formatter(lambda value, _: number(100 * value, sign="") + " %")
    bar.set_label(f"effect on the {_METRIC[metric]}", fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=8, colors=MUTED, labelcolor=INK)
    bar.outline.set_visible(False)
    under(figure, _title(patched), _note(patched, metric, pair))
    return figure


def _heat_map(
    patched: PatchMap,
    effects: Float[np.ndarray, "layer unit"],
    shown: list[int],
    pictures: Pictures,
    limit: float,
    *,
    metric: str,
    pair: str | None,
) -> Figure:
    """Layers × units; beneath the columns of frames, the frames."""
    rows, columns = effects.shape
    of_frames = [int(m[1]) if (m := re.fullmatch(r"frame (\d+)", label)) else None for label in patched.labels]
    strips = {name: frames for name, frames in pictures.items() if any(frame is not None for frame in of_frames)}
    cell = _CELL if columns <= 20 else max(0.09, 12 / columns)
    width, height = cell * columns + 2.2, 0.26 * rows
    tall = [cell * frames[0].shape[0] / frames[0].shape[1] for frames in strips.values()]
    figure = Figure(figsize=(max(width, 6.2), height + sum(tall) + 1.7), dpi=150, layout="constrained")
    axes, *below = figure.subplots(1 + len(strips), 1, sharex=True, height_ratios=[height, *tall], squeeze=False)[:, 0]
    extent = (-0.5, columns - 0.5, -0.5, rows - 0.5)
    axes.imshow(effects, cmap=_CMAP, vmin=-limit, vmax=limit, aspect="auto", origin="lower", extent=extent)
    _layer_axis(axes, shown)
    _unit_axis((axes, *below)[-1], patched)
    if columns <= _MOST_NUMBERS:
        least = max(_LEAST_SHOWN, 0.05 * limit, np.nan_to_num(patched.noise_floor(metric, pair=pair)))
        _cells(axes, effects, least, limit)
    for strip, (name, frames) in zip(below, strips.items(), strict=True):
        _strip(strip, name, frames, of_frames)
    for each in (axes, *below):
        each.tick_params(length=0, labelsize=8, labelcolor=INK)
        each.spines[:].set_visible(False)
    for each in (axes, *below)[:-1]:
        each.xaxis.set_tick_params(labelbottom=False)
    return figure


def _strip(axes: Axes, name: str, frames: list[UInt8[np.ndarray, "h w 3"]], of_frames: list[int | None]) -> None:
    """One clip's frames, each beneath its column."""
    for column, frame in enumerate(of_frames):
        if frame is not None and frame < len(frames):
            axes.imshow(frames[frame], extent=(column - 0.47, column + 0.47, 0.02, 0.98), aspect="auto", zorder=2)
    axes.set_xlim(-0.5, len(of_frames) - 0.5)
    axes.set_ylim(0, 1)
    axes.set_yticks([0.5], [name])


def _over_frames(
    patched: PatchMap, effects: Float[np.ndarray, "layer unit"], shown: list[int], pictures: Pictures, limit: float
) -> Figure:
    """Frames × layers of panels, each a frame with its patches' effects over it."""
    n_frames, n_rows, n_columns = (int(patched.runs[name].iloc[0]) for name in ("frames", "rows", "columns"))
    grid = np.full((len(shown), n_frames, n_rows, n_columns), np.nan)
    for column, unit in enumerate(patched.units):
        frame, row, place = (int(number) for number in re.findall(r"\d+", unit))
        grid[:, frame, row, place] = effects[:, column]
    which = "clean" if patched.direction == "denoise" else "corrupted"
    frames = pictures.get(which)
    side, shape = 0.85, n_rows / n_columns if frames is None else frames[0].shape[0] / frames[0].shape[1]
    size = (side * n_frames + 2.0, side * shape * len(shown) + 1.1)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    panels = figure.subplots(len(shown), n_frames, squeeze=False)
    extent = (-0.5, n_columns - 0.5, n_rows - 0.5, -0.5)
    for row, layer in enumerate(shown[::-1]):
        for column in range(n_frames):
            axes, values = panels[row, column], grid[len(shown) - 1 - row, column]
            if frames is not None:
                faint = np.repeat(frames[column].mean(axis=2, keepdims=True), 3, axis=2) * 0.45 + 140
                axes.imshow(faint.astype(np.uint8), extent=extent, aspect="auto")
            alpha = np.nan_to_num(np.clip(np.abs(values) / limit, 0, 1)) * 0.85 if frames is not None else 1.0
            axes.imshow(values, cmap=_CMAP, vmin=-limit, vmax=limit, alpha=alpha, extent=extent, aspect="auto")
            axes.set_box_aspect(shape)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            if row == len(shown) - 1:
                axes.set_xlabel(f"frame {column}", fontsize=8, color=INK)
        panels[row, 0].set_ylabel(f"layer {layer + 1}", fontsize=8, color=INK)
    return figure


def _layer_axis(axes: Axes, shown: list[int]) -> None:
    if shown == list(range(shown[0], shown[-1] + 1)) and shown[0] == 0:
        ticks = layer_ticks(len(shown))
    else:
        ticks = [layer + 1 for layer in shown]
    axes.set_yticks([shown.index(tick - 1) for tick in ticks], [str(tick) for tick in ticks])
    axes.set_ylabel("layer (from 1)", fontsize=8, color=INK)


def _unit_axis(axes: Axes, patched: PatchMap) -> None:
    """Labels of the columns: all of them where they fit; of a long prompt's tokens the text, and where frames begin."""
    labels, over = [label.lstrip("▁Ġ") or label for label in patched.labels], patched.settings.over
    ticks = list(range(len(labels)))
    if over == "token" and len(labels) > 40:
        first = [
            m is not None and m[2] == m[3] == "0" for m in (re.fullmatch(r"f(\d+) r(\d+) c(\d+)", x) for x in labels)
        ]
        video = [re.fullmatch(r"f\d+ r\d+ c\d+", label) is not None for label in labels]
        ticks = [i for i in ticks if first[i] or not video[i]]
        labels = [f"frame {labels[i][1:].split()[0]}" if video[i] else labels[i] for i in ticks]
    upright = len(labels) > 8 or max(map(len, labels)) > 9
    axes.set_xticks(ticks, labels, rotation=90 if upright else 0, fontsize=8 if len(ticks) <= 40 else 5)
    axes.set_xlabel({"head": "head (from 0)"}.get(over, ""), fontsize=8, color=INK)


def _cells(axes: Axes, effects: Float[np.ndarray, "layer unit"], least: float, limit: float) -> None:
    """The number, in percent, in every cell that is more than noise."""
    for row, column in np.argwhere(np.abs(effects) >= least):
        value = effects[row, column]
        color = "white" if abs(value) > 0.6 * limit else INK
        axes.text(column, row, number(100 * value, sign=""), ha="center", va="center", fontsize=6.5, color=color)


def _layers(patched: PatchMap, layers: Iterable[int] | int | None) -> list[int]:
    known = list(patched.settings.layers)
    if layers is None:
        few = patched.settings.over == "patch" and len(known) > 6
        return [known[i] for i in np.linspace(0, len(known) - 1, 6).round().astype(int)] if few else known
    chosen = whole_numbers("layer", layers)
    if not chosen:
        raise VideolensError("layers is empty: name at least one, or leave it out for all of them")
    for layer in chosen:
        if layer not in known:
            raise SelectionError(near(str(layer), map(str, known), kind="layer in this patch map"))
    return list(chosen)


def _pictures(patched: PatchMap, pair: str | None) -> Pictures:
    """Frames of the clips, if it is one pair that is drawn and its frames are known."""
    if pair is None and patched.n > 1:
        return {}
    clips = patched.clips[patched.clips["pair"] == (pair or patched.pairs[0])]
    pictures = {
        which: [pixels_of(png) for png in clips.loc[clips["clip"] == which, "png"]] for which in ("clean", "corrupted")
    }
    return {which: frames for which, frames in pictures.items() if frames}


def _title(patched: PatchMap) -> str:
    base, source = ("corrupted", "clean") if patched.direction == "denoise" else ("clean", "corrupted")
    return f"{patched.site} of the {source} run, copied into the {base} run"


def _note(patched: PatchMap, metric: str, pair: str | None) -> str:
    runs = patched.runs if pair is None else patched.runs[patched.runs["pair"] == pair]
    base, source = ("corrupted", "clean") if patched.direction == "denoise" else ("clean", "corrupted")
    parts = [f"{patched.settings.model.rstrip('/').split('/')[-1] or 'model'}, n = {len(runs)}"]
    parts[0] += " pairs (mean)." if len(runs) > 1 else f" pair ({runs['pair'].iloc[0]})."
    parts.append(f"0 %: the {base} run as it is, 100 %: as the {source} run.")
    if metric != "kl":
        column = {"logit difference": "logit_diff", "probability": "probability"}[metric]
        name = "Logit difference"
        if metric == "probability":
            name = "Probability"
        elif runs["clean_answer"].nunique() == runs["other_answer"].nunique() == 1:
            name += f" of {runs['clean_answer'].iloc[0]!r} over {runs['other_answer'].iloc[0]!r}"
        values = [f"{which} {_number(runs[f'{column}_{which}'].mean())}" for which in ("clean", "corrupted")]
        parts.append(f"{name}: {', '.join(values)}.")
    else:
        parts.append(f"KL from the {source} run: {base} {_number(runs['kl'].mean())} nats, {source} 0.")
    if patched.settings.positions is not None:
        parts.append(f"Only positions {patched.settings.positions!r}.")
    floor = patched.noise_floor(metric, pair=pair)
    if np.isnan(floor):
        parts.append(f"How much of it is rounding in {patched.settings.dtype} was not measured.")
    elif floor:
        parts.append(f"What rounding in {patched.settings.dtype} alone makes: ± {number(100 * floor, sign='')} %.")
    return " ".join([*parts, "Layers count from 1, frames and heads from 0."])


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")
