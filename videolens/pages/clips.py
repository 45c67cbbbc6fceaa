"""The parts of a report that show data: clips with their answers, accuracy, attention, and how it was all made."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from videolens.drawing.html import embed, escape, frame_image, paragraph, table
from videolens.drawing.style import PALETTE
from videolens.experiments.accuracy.result import Accuracy
from videolens.experiments.common.statistics import Interval
from videolens.experiments.flow.result import FlowMap
from videolens.experiments.segment_attention.result import SegmentAttention
from videolens.experiments.segment_attention.view import attention_view
from videolens.question import Question

__all__ = ["Asked", "accuracy_section", "attention_section", "clip_card", "settings_section"]

KINDS = ("tuned", "base")
"""Colours of the page: the first model's and the second's."""


@dataclass(frozen=True)
class Asked:
    """A question and what models make of it.

    Attributes:
        question: with its video.
        shares: per model, the probability of every option's letter at the last position.
        said: per model, the text it writes, for a question without options.
    """

    question: Question
    shares: Mapping[str, Sequence[float]]
    said: Mapping[str, str]


def clip_card(asked: Asked) -> str:
    """Frames with their times, the question, its options, and every model's probabilities and answer."""
    question, video = asked.question, asked.question.video
    frames = "".join(
        f"<li>{frame_image(frame, alt=f'frame {i}')}<span>frame {i} · {second:.2f} s</span></li>"
        for i, (frame, second) in enumerate(zip(video.frames, video.seconds.tolist(), strict=True))
    )
    answers = _options(asked) if asked.shares else _said(asked)
    return (
        f'<div class="clip"><p class="task">{escape(question.task or "own clip")}</p><ul class="strip">{frames}</ul>'
        f'<p class="asked">{escape(question.stem)}</p>{answers}</div>'
    )


def _options(asked: Asked) -> str:
    question = asked.question
    chosen = {model: max(range(len(shares)), key=shares.__getitem__) for model, shares in asked.shares.items()}
    kinds = dict(zip(asked.shares, KINDS, strict=False))
    head = "".join(f"<th>{escape(model)}</th>" for model in asked.shares)
    rows = ""
    for i, option in enumerate(question.choices):
        right = option == question.answer
        name = f"({string.ascii_uppercase[i]}) {escape(option)}{' ✓' if right else ''}"
        cells = ""
        for model, shares in asked.shares.items():
            bar = f'<span class="bar"><i style="width:{100 * shares[i]:.1f}%"></i></span>'
            mark = " chosen" if chosen[model] == i else ""
            cells += f'<td class="{kinds[model]}{mark}">{bar}{_percent(shares[i])}{" ◂" if mark else ""}</td>'
        rows += f'<tr><td class="{"right" if right else ""}">{name}</td>{cells}</tr>'
    return f'<table class="options"><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table>'


def _said(asked: Asked) -> str:
    return "".join(
        paragraph(f"<b>{escape(model)}</b> writes: {escape(text) or '(nothing)'}") for model, text in asked.said.items()
    )


def clips_intro(asked: Sequence[Asked]) -> str:
    """How to read the cards."""
    models = list(dict.fromkeys(model for each in asked for model in (*each.shares, *each.said)))
    frames = {len(each.question.video) for each in asked}
    count = f"{min(frames)}" if len(frames) == 1 else f"{min(frames)} to {max(frames)}"
    which = "One clip per task" if len(asked) > 1 else "The clip"
    shown = f"{which}, as {' and '.join(map(escape, models))} see{'s' if len(models) == 1 else ''} it: {count} frames."
    if not any(each.shares for each in asked):
        return paragraph(shown)
    right = "✓ is the right answer, " if any(each.question.answer is not None for each in asked) else ""
    return paragraph(
        f"{shown} {right}◂ the option a model ranks first; bars are the probability of the option's letter as the next "
        "token."
    )


def accuracy_section(result: Accuracy, temporal: Sequence[str], still: Sequence[str]) -> str:
    """Accuracy per task under every condition; still questions apart."""
    shown = [task for task in temporal if task in result.tasks]
    counts = sorted({int(n) for n in result.summary()["n"]})
    n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    body = embed(
        result.figure(tasks=shown),
        alt="Share of right choices per task and condition for each model, with intervals, beside chance",
        caption=f"<b>Does the answer need time?</b> n = {n} questions per task. A model that uses time is right "
        "with the clip <i>as is</i> and <i>reversed</i> (scored against the answer that is right backwards), loses "
        "with the frames <i>shuffled</i> (not always everything: some neighbours stay neighbours), and with "
        "<i>blank</i> frames has only chance left (dotted).",
    )
    pairs = [(model, condition) for model in result.models for condition in result.conditions]
    head = ["task", "chance", *(f"{escape(model)}<br><small>{condition}</small>" for model, condition in pairs)]
    rows = [[task, f"{100 * result.chance(task):.0f}", *_shares(result, task, pairs)] for task in shown]
    body += table(head, rows, note=escape(result.note()))
    seen = [task for task in still if task in result.tasks]
    if seen:
        body += "<h3>Questions that one frame answers</h3>" + table(
            ["task", "chance", *map(escape, result.models)],
            [
                [
                    task,
                    f"{100 * result.chance(task):.0f}",
                    *_shares(result, task, [(m, "as is") for m in result.models]),
                ]
                for task in seen
            ],
            note="The image-only base was trained on these. A base that sees well but cannot use time is what "
            "makes the comparison above one of time, and not of sight.",
        )
    return body


def _shares(result: Accuracy, task: str, pairs: Sequence[tuple[str, str]]) -> list[str]:
    found = (result.share(model, task, condition) for model, condition in pairs)
    return ["–" if share is None else _share(share) for share in found]


def _share(share: Interval) -> str:
    return f"{100 * share.value:.0f}<br><small>{100 * share.low:.0f} – {100 * share.high:.0f}</small>"


def attention_section(results: Sequence[SegmentAttention]) -> str:
    """The static figure of every model, and circuitsvis's view of every head."""
    body = paragraph(
        "What each part of the prompt attends to, unblocked. Attention is not evidence of use: the knockouts above "
        "are. It says where information can come from."
    )
    for result in results:
        body += embed(
            result.figure(),
            alt=f"Shares of attention of {result.model} by kind of source, layer by layer",
            caption=f"<b>{escape(result.model)}</b>, n = {result.n} prompts. Each panel is one kind of looking "
            "token; the height of a band is the share of its attention that goes there, averaged over heads and "
            "prompts.",
        )
    body += '<div class="screen"><h3>Every head</h3>' + paragraph(
        "Hover over a small map to see it large, click to keep it. Rows look (destination), columns are looked at "
        "(source); the colour is the share of attention (full from one half on), summed over the source's tokens, "
        "averaged over the destination's tokens and over prompts. Layers and heads are counted from 1, frames from "
        "0. <i>header</i> is “Question:” and “Options:”, <i>glue</i> what stands between video and question, "
        "<i>suffix</i> the instruction after the options. Drawn by circuitsvis."
    )
    for i, result in enumerate(results):
        color = PALETTE[i % len(PALETTE)]
        if i == 0:
            body += f"<p><b>{escape(result.model)}</b></p>" + attention_view(result, color=color)
        else:
            name = f"view-{i}"
            view = attention_view(result, color=color, open_when=name)
            body += f'<details id="{name}"><summary>{escape(result.model)}: every head</summary>{view}</details>'
    return body + "</div>"


def settings_section(settings: Mapping[str, str], flows: Sequence[FlowMap], versions: Mapping[str, str]) -> str:
    """Settings, versions, and what was left out and why."""
    rows = [[escape(key), escape(value)] for key, value in settings.items()]
    body = table(["setting", "value"], rows, numbers_from=2, kind="left")
    left_out = [
        [escape(flow.settings.model), escape(row.task), escape(row.route), escape(row.reason), str(row.questions)]
        for flow in flows
        for row in flow.skipped().itertuples()
    ]
    body += "<h3>Left out</h3>"
    if left_out:
        body += table(["model", "task", "route", "why", "questions"], left_out, numbers_from=4)
    else:
        body += paragraph("Nothing: every question was followed along every route.")
    body += "<h3>Versions</h3>" + paragraph(escape(", ".join(f"{name} {number}" for name, number in versions.items())))
    return body


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.005 else "0 %"
