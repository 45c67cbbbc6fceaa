"""The explorer's page: everything that a pane holds as plain data, and the page's own script and style around it."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from videolens.drawing.html import render
from videolens.errors import VideolensError
from videolens.experiments.common.thumbnails import pixels_of
from videolens.experiments.flow.measures import measure_named
from videolens.experiments.flow.result import FlowMap
from videolens.experiments.patch_map.result import PatchMap
from videolens.explorer.cells import Cells
from videolens.explorer.packing import packed, runs_of
from videolens.explorer.pane import Pane
from videolens.explorer.reading import Words
from videolens.prompt.prompt import Prompt
from videolens.prompt.selections import ROLES

_SCRIPTS = ("data", "state", "frames", "tokens", "map", "details", "main")
_SMALL = 128  # pixels: drawn frames of the bundled clips keep every pixel, natural ones are photographs


def page(title: str, made: str, panes: Sequence[Mapping[str, Any]]) -> str:
    """The whole page: it fetches nothing."""
    # no tag of the data may end the script that holds it
    data = json.dumps({"title": title, "made": made, "panes": list(panes)}, separators=(",", ":"), allow_nan=False)
    data = data.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    folder = Path(__file__).parent / "static"
    script = "\n".join((folder / f"{name}.js").read_text(encoding="utf-8") for name in _SCRIPTS)
    style = (folder / "explorer.css").read_text(encoding="utf-8")
    values = {"title": title, "data": Markup(data), "script": Markup(script), "style": Markup(style)}
    return str(render(str(folder / "explorer.html"), "explorer.html", **values))


def plain(pane: Pane, flow: FlowMap | None, patches: PatchMap | None) -> dict[str, Any]:
    """A pane as plain data.

    Args:
        pane: the pane.
        flow: a map of several questions, whose means stand beside the cells.
        patches: a patch map that holds this question.

    Raises:
        VideolensError: the map is of other layers or another window than the pane's.
    """
    tokens = pane.prompt.tokens
    question = pane.prompt.question
    return {
        "name": pane.name,
        "stem": "" if question is None else question.stem,
        "n": tokens.n_pos,
        "grid": list(tokens.grid),
        "roles": _role_runs(tokens.roles),
        "texts": [[at, text] for at, text in pane.texts.items()],
        "last": int(tokens["last"][0]),
        "frames": [_picture(png) for png in pane.frames],
        "seconds": _seconds(pane.prompt),
        "answers": [{"text": answer.text, "right": answer.right} for answer in pane.answers],
        "followed": pane.followed,
        "map": _map(pane.cells) | {"mean": None if flow is None else _means(pane.cells, flow)},
        "attention": {
            "layers": pane.n_layers,
            "heads": pane.n_heads,
            "rows": [[at, row] for at, row in pane.attending.rows.items()],
        },
        "words": None if pane.words is None else _words(pane.words),
        "patches": None if patches is None else _patches(pane.prompt, patches),
    }


def _role_runs(roles: Sequence[str]) -> list[list[Any]]:
    """[role, first, last] of neighbours that have the same."""
    found = []
    for role in ROLES:
        found += [[role, *run] for run in runs_of(at for at, each in enumerate(roles) if each == role)]
    return sorted(found, key=lambda run: run[1])


def _picture(png: bytes) -> str:
    """A frame as the source of an image."""
    pixels = pixels_of(png)
    if max(pixels.shape[:2]) <= _SMALL:
        return f"data:image/png;base64,{base64.b64encode(png).decode()}"
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(written.getvalue()).decode()}"


def _seconds(prompt: Prompt) -> list[float | None]:
    """When every frame is shown; None where that is not known."""
    tokens = prompt.tokens
    firsts = [float(tokens.seconds[tokens[f"frame {i}"][0]]) for i in range(tokens.grid[0])]
    return [None if np.isnan(at) else round(at, 3) for at in firsts]


def _map(cells: Cells) -> dict[str, Any]:
    return {
        "routes": list(cells.routes),
        "layers": list(cells.layers),
        "cut": [list(layers) for layers in cells.layers.values()],
        "before": _numbers(cells.before.numpy()),
        "after": _numbers(cells.after.numpy()),
        "change": _numbers(cells.change.numpy()),
        "queries": list(cells.queries),
        "keys": list(cells.keys),
        "missing": cells.missing,
    }


def _numbers(values: np.ndarray) -> Any:
    """Nested lists, to six digits; None where a number is not defined."""
    return _plain(values.tolist())


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _means(cells: Cells, flow: FlowMap) -> dict[str, Any]:
    """Mean and interval of every cell that the map has too."""
    made = flow.settings
    if made.cuts != cells.layers:
        window = max(map(len, cells.layers.values()))
        raise VideolensError(
            f"the flow map cuts windows of {made.window} of {made.n_layers} layers (style {made.style!r}), "
            f"the explorer {window} of {len(cells.layers)}: make both with the same model and window"
        )
    curves = {route: flow.curve(route) for route in cells.routes if route in flow.routes}
    return {
        "model": made.model,
        "n": flow.n,
        "unit": measure_named("answer").unit,
        "curves": {
            route: {"mean": _numbers(curve.mean), "low": _numbers(curve.low), "high": _numbers(curve.high)}
            for route, curve in curves.items()
        },
    }


def _words(words: Words) -> dict[str, Any]:
    return {
        "texts": list(words.texts),
        "top": words.word.shape[-1],
        "word": packed(words.word.numpy().astype("<u4").tobytes()),
        "share": packed(words.share.numpy().tobytes()),
    }


def _patches(prompt: Prompt, patches: PatchMap) -> dict[str, Any]:
    """Effects of the units that are positions of this prompt."""
    question = prompt.question
    pair = None if question is None else question.id
    if pair not in patches.pairs:
        raise VideolensError(f"the patch map holds {patches.pairs!r:.200}, not this question, {pair!r}: patch it first")
    units = [unit for unit in patches.units if not unit.startswith("head ")]
    effects = patches.effects(pair=pair)
    at = [int(unit) if unit.isdecimal() else prompt.tokens[unit].tolist() for unit in units]
    return {
        "what": f"{patches.direction} {patches.site}",
        "layers": list(patches.settings.layers),
        "units": [runs_of([each] if isinstance(each, int) else each) for each in at],
        "labels": units,
        "effects": _numbers(effects[:, [patches.units.index(unit) for unit in units]]),
    }
