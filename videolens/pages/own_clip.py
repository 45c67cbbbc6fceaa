"""A flow map of one question about one's own clip, as files and a page."""

from __future__ import annotations

import datetime
import string
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from markupsafe import Markup

from videolens.drawing.html import paragraph
from videolens.drawing.page import Key, Section, page
from videolens.engine import Plan, last_logits
from videolens.errors import SelectionError, VideolensError
from videolens.experiments.common.scoring import option_probabilities
from videolens.experiments.flow.cost import cost_words
from videolens.experiments.flow.experiment import trace_flow
from videolens.experiments.flow.figure import kinds_of
from videolens.experiments.flow.plan import check_routes, plan_flow
from videolens.experiments.flow.result import FlowMap
from videolens.experiments.flow.section import section as flow_section
from videolens.experiments.segment_attention.experiment import measure_attention
from videolens.experiments.segment_attention.result import SegmentAttention
from videolens.experiments.segment_attention.section import section as attention_section
from videolens.interventions.knockout import ROUTES, Knockout
from videolens.interventions.layer_sets import STYLES
from videolens.model.checkpoints.files import short_name
from videolens.model.loading import load
from videolens.model.transformer import HookedVideoTransformer
from videolens.pages.clips import AnsweredClip, clips_section, settings_section
from videolens.pages.doubts import doubts, doubts_section
from videolens.pages.saving import describe, save_figure
from videolens.prompt.prompt import Prompt
from videolens.question import Question

PAGE = "report.html"


@dataclass(frozen=True, eq=False)
class OwnClip:
    """A flow map of one question, and what the model answers.

    Attributes:
        page: the path of the page.
        flow: the map.
        answer: an option with its letter; without options, the first token of what the model writes.
        probability: of that answer's first token.
        correct: whether it is right; None if that is not known.
        doubts: why the answer may be none, in whole sentences; empty: nothing is doubtful.
    """

    page: Path
    flow: FlowMap
    answer: str
    probability: float
    correct: bool | None
    doubts: tuple[str, ...] = ()


def plan_own_clip(
    model_name: str,
    question: Question,
    *,
    routes: Sequence[str] = ROUTES,
    window: int | None = None,
    style: str = "centre",
    device: str = "cpu",
    dtype: str | None = None,
    max_memory: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Plan:
    """What `map_own_clip` will cost with the same arguments. Nothing is written, and only the question is asked.

    Raises:
        VideolensError: as the model and the question raise, or too little memory for one window.
    """
    model = load(model_name, device=device, dtype=dtype, say=say)
    return plan_flow(model, _ask(model, question)[1], routes, window, style=style, max_memory=max_memory)


def map_own_clip(
    model_name: str,
    question: Question,
    out: str | Path,
    *,
    routes: Sequence[str] = ROUTES,
    window: int | None = None,
    style: str = "centre",
    device: str = "cpu",
    dtype: str | None = None,
    engine: Literal["exact", "full"] = "exact",
    max_memory: int | None = None,
    verify: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda text: None,
    progress: bool = True,
) -> OwnClip:
    """Ask one question, trace every route it has, and write table, figures and a page.

    1. Ask. Without a known answer the option that the model ranks first takes its place, so that "true option" has a
       meaning: the model's own.
    2. Say what it will cost, and trace every route that the prompt has (an open-ended question has none into options),
       whether the answer is right or not: what is followed is the token that the model ranks first.
    3. Write `flow.csv`, `flow.parquet`, `flow.json`, figures (PNG) and `report.html`.

    Raises:
        VideolensError: the directory holds a flow map and `overwrite` is False, or as the model and the question raise.
    """
    began, out = time.monotonic(), Path(out)
    if (out / "flow.parquet").exists() and not overwrite:
        raise VideolensError(
            f"{out} already holds a flow map: choose another directory with --out, or pass --overwrite"
        )
    say(f"loading {model_name}")
    model = load(model_name, device=device, dtype=dtype, say=say)
    name = short_name(model_name)
    # 1. ask
    known = question.answer is not None
    question, prompt, answer, probability = _ask(model, question)
    # 2. trace
    check_routes(model, routes, window, style)
    routes = [route for route in routes if _has(prompt, route)]
    say(f"{name} answers {answer}; tracing {len(routes)} routes through {model.cfg.n_layers} layers")
    if engine == "exact":
        say(str(plan_flow(model, prompt, routes, window, style=style, max_memory=max_memory)))
    how: dict[str, Any] = {"engine": engine, "max_memory": max_memory, "verify": verify, "progress": progress}
    flow = trace_flow(model, [prompt], routes=routes, window=window, style=style, samples="all", **how)
    if not known and question.options:
        flow = replace(flow, settings=replace(flow.settings, own_choice=True))
    attention = measure_attention(model, [prompt], name=name, progress=progress)
    # 3. write
    _save(out, flow, attention, overwrite=overwrite)
    settings = {f"model {name}": describe(model_name, model), **_settings(question, flow, known=known)}
    now = datetime.datetime.now().astimezone()
    settings["made"] = f"{now:%Y-%m-%d %H:%M %Z} in {time.monotonic() - began:.0f} s"
    shares = {name: tuple(option_probabilities(model, prompt).tolist())} if question.options else {}
    shown = question if known else replace(question, answer=None)
    clip = AnsweredClip(shown, shares, {} if shares else {name: _written(model, prompt)})
    correct = bool(flow.table["correct"].iloc[0]) if known else None
    doubtful = tuple(doubts(model, model_name, question, prompt))
    found = OwnClip(out / PAGE, flow, answer, probability, correct, doubtful)
    found.page.write_text(_page(found, clip, attention, settings), encoding="utf-8")
    return found


def _save(out: Path, flow: FlowMap, attention: SegmentAttention, *, overwrite: bool) -> None:
    """Tables and figures."""
    flow.save(out, overwrite=overwrite)
    flow.to_dataframe().to_csv(out / "flow.csv", index=False)
    for kind in kinds_of(flow):
        save_figure(flow.figure(kind), out / f"flow-{kind.replace(' ', '-')}.png")
    save_figure(attention.figure(), out / "attention.png")


def _settings(question: Question, flow: FlowMap, *, known: bool) -> dict[str, str]:
    """How the map was made. `known`: whether the right answer was given."""
    video, made, answer = question.video, flow.settings, flow.table["answer"].iloc[0]
    seconds = ", ".join(f"{second:.2f}" for second in video.seconds.tolist())
    choice = "" if known else "; no answer was given, so “true option” is the model's own choice"
    cost = f"{cost_words(flow)}; tracing took {made.seconds or 0.0:.1f} s"
    if made.verified is not None:
        cost += (
            "; a sample was run in full as well: no logit differs by more than "
            f"{made.verified:.1g} of their standard deviation"
        )
    return {
        "video": f"{video.path}, {len(video)} of {video.n_source_frames} frames, at {seconds} s",
        "cut": f"{STYLES[made.style]}: {made.cut_words}",
        "followed": f"the token that the uncut model ranks first at the last position, {answer!r}{choice}",
        "cost": cost,
    }


def _page(found: OwnClip, clip: AnsweredClip, attention: SegmentAttention, settings: Mapping[str, str]) -> str:
    """The page about one clip."""
    flow = found.flow
    lead = Markup(
        "<b>{}</b> answers <b>{}</b>. Attention is cut, one route and one window of layers at a time, to see which "
        "paths from the video to that answer matter."
    )
    return page(
        title="Where information flows in one answer",
        kicker="videolens · one clip",
        lead=lead.format(attention.model, found.answer),
        keys=[
            Key(f"{100 * found.probability:.0f} %", f"probability of its answer, {found.answer}", "tuned"),
            Key(f"{len(flow.table):,}", f"knockouts: {len(flow.routes)} routes × {flow.settings.n_layers} windows"),
        ],
        sections=[
            Section("clip", "Clip", "What it is asked", doubts_section(found.doubts) + clips_section([clip])),
            Section("flow", "Flow", "Where it flows", paragraph(_ONE) + flow_section(flow, table=False)),
            Section("attention", "Attention", "Who looks at whom", attention_section(attention)),
            Section(
                "settings", "Settings", "How this was made", settings_section(settings, [flow], flow.settings.versions)
            ),
        ],
        footer="Layers are counted from 1 on this page, and from 0 in the code and in the tables beside it.",
    )


_ONE = (
    "This is one question: there is no spread over questions here, and so no interval. It shows what this answer "
    "rests on, not how the model works in general."
)


def _ask(model: HookedVideoTransformer, question: Question) -> tuple[Question, Prompt, str, float]:
    """Step 1: the question with an answer, its prompt, the model's answer in words, and its probability."""
    prompt = model.prompt(question)
    if not question.options:
        first = last_logits(model, prompt).softmax(-1)
        said = int(model.chosen(first))
        return question, prompt, model.shown(said).strip() or "(nothing)", float(first[said])
    shares = option_probabilities(model, prompt)
    chosen = int(shares.argmax())
    if question.answer is None:
        question = replace(question, answer=question.options[chosen])
        prompt = model.prompt(question)
    return question, prompt, f"({string.ascii_uppercase[chosen]}) {question.choices[chosen]}", float(shares[chosen])


def _written(model: HookedVideoTransformer, prompt: Prompt) -> str:
    """What the model writes when it may go on: its answer's first token is the one that is followed."""
    return model.generate(prompt, max_new_tokens=min(12, model.cfg.n_ctx - prompt.shape[1])).text.strip()


def _has(prompt: Prompt, route: str) -> bool:
    try:
        Knockout.route(route, layers=(0,)).hooks(prompt)
    except SelectionError:
        return False
    return True
