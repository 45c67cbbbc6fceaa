"""One function for each kind of object: its HTML in a notebook."""

from __future__ import annotations

import io
from base64 import b64encode
from functools import singledispatch
from typing import Any

from markupsafe import Markup

from videolens.displays.masks import NAMES, pictures
from videolens.drawing.html import render
from videolens.engine.planning import Plan
from videolens.errors import VideolensError
from videolens.experiments.common.result import Result
from videolens.explorer.packing import runs_of
from videolens.interventions.cut_routes import CutRoutes
from videolens.interventions.knockout import Knockout
from videolens.prompt.batched_tokens import TokenMaps
from videolens.prompt.prompt import Prompt
from videolens.prompt.selections import ROLES
from videolens.prompt.tokens import TokenMap
from videolens.question import Question
from videolens.video.video import Video

MOST_FRAMES = 8
_MOST_RUNS = 24  # lines of a token map


@singledispatch
def html_of(value: Any) -> str | None:
    """HTML of an object; None if it has no picture, and a notebook then shows its `repr`."""
    return None


@html_of.register
def _video(video: Video) -> str:
    """A filmstrip with times."""
    return _page("video", strip=_strip(video), about=repr(video))


@html_of.register
def _question(question: Question) -> str:
    """The filmstrip, the question, its options with the right one ticked."""
    return _page("question", strip=_strip(question.video), question=question, about=_task(question))


@html_of.register
def _prompt(prompt: Prompt) -> str:
    """The text coloured by role, the video as one piece; of a batch of several, the first."""
    first = next(iter(prompt))
    return _page("prompt", pieces=_pieces(first), roles=_roles(first.tokens), about=repr(prompt))


@html_of.register
def _tokens(tokens: TokenMap) -> str:
    """Which positions are what."""
    one = tokens.maps[0] if isinstance(tokens, TokenMaps) else tokens
    runs = sorted(((run, role) for role in ROLES for run in runs_of(one[role])), key=lambda each: each[0])
    rows = [(role, f"{a}" if a == b else f"{a}–{b}", b - a + 1) for (a, b), role in runs]
    return _page("tokens", rows=rows[:_MOST_RUNS], more=max(0, len(rows) - _MOST_RUNS), about=repr(tokens))


@html_of.register(Knockout)
@html_of.register(CutRoutes)
def _cut(intervention: Any) -> str | None:
    """Small masks on a made-up prompt: open, cut, and what is later."""
    try:
        found = pictures(intervention)
    except VideolensError:
        return None  # of a selection that only a real prompt has: its repr says it all
    return _page(
        "masks", masks=[(layers, mask.tolist()) for layers, mask in found], names=NAMES, about=repr(intervention)
    )


@html_of.register
def _plan(plan: Plan) -> str:
    """What it will cost, beside the published way."""
    rows = [
        ("interventions", f"{plan.interventions}"),
        ("tokens of the prompt", f"{plan.n_pos}"),
        ("cost", f"{plan.forwards:.1f} forwards"),
        ("the published way", f"{plan.full_forwards} forwards"),
        ("memory besides the model", f"{plan.peak_bytes / 2**20:.0f} MiB"),
        ("walks through the layers", f"{plan.rounds}"),
    ]
    return _page("plan", rows=rows, about="")


@html_of.register
def _result(result: Result) -> str:
    """Its figure, and what was asked; where it has no figure without being told more, its table's head."""
    drawn, table = "", ""
    try:
        figure = result.figure()
    except VideolensError:
        table = Markup(result.to_dataframe().head(8).to_html(border=0, index=False))
    else:
        written = io.BytesIO()
        figure.savefig(written, format="png", dpi=90)
        drawn = f"data:image/png;base64,{b64encode(written.getvalue()).decode()}"
    return _page("result", figure=drawn, table=table, about=repr(result))


def _page(template: str, **values: Any) -> str:
    return str(render(__file__, f"{template}.html", **values))


def _strip(video: Video) -> list[tuple[Any, str]]:
    """(frame, when) of some frames, spread over all."""
    frames, times = video.frames, video.seconds
    n = len(frames)
    some = range(n) if n <= MOST_FRAMES else [round(i * (n - 1) / (MOST_FRAMES - 1)) for i in range(MOST_FRAMES)]
    return [(frames[i], f"{float(times[i]):.2f} s") for i in some]


def _task(question: Question) -> str:
    return " · ".join(part for part in (question.task, question.id) if part)


def _pieces(prompt: Prompt) -> list[tuple[str, str]]:
    """(role, text) of neighbours that have the same role; of the video, what it is made of."""
    tokens, texts = prompt.tokens, prompt.tokens.texts
    frames, rows, columns = tokens.grid
    found: list[tuple[str, str]] = []
    for at, role in enumerate(tokens.roles):
        if role in ("video", "newline", "separator"):
            if not found or found[-1][0] != "video":
                found.append(("video", f"video: {frames} frames × {rows} × {columns}"))
            continue
        text = _readable(texts[at]) if texts is not None else f" {int(prompt.input_ids[0, at])}"
        if found and found[-1][0] == role:
            found[-1] = (role, found[-1][1] + text)
        else:
            found.append((role, text))
    return found


def _readable(piece: str) -> str:
    """A tokenizer's piece with the blanks and line ends that its marks stand for."""
    return piece.replace("▁", " ").replace("Ġ", " ").replace("Ċ", "\n")


def _roles(tokens: TokenMap) -> list[str]:
    there = set(tokens.roles)
    return [role for role in ROLES if role in there]
