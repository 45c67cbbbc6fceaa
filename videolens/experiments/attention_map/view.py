"""What chosen tokens look at, head by head, token by token: the whole prompt coloured by attention, by circuitsvis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from videolens.drawing.view import View, component
from videolens.experiments.attention_map.patterns import read_rows
from videolens.experiments.attention_map.words import check_words, rows_of
from videolens.interventions.numbering import chosen_numbers
from videolens.interventions.protocol import as_interventions
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt
from videolens.question import Question

_CELL, _GAP = "\u00a0\u00a0", "│"
_WIDEST = 64  # cells of the video in a line

_STYLE = """<style>
.tokens { margin: 0 0 28px; overflow-x: auto; } .tokens h4 { margin: 6px 0; font-size: 15px; }
.tokens > div > div { padding-bottom: 4px !important; font-size: 13px; }
.tokens .colored-tokens { padding: 6px 0 !important;
  font: 12px/1.5 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.tokens .colored-tokens table { font-size: 10px; line-height: 1; border-spacing: 4px 0; }
.tokens div:has(> label[for="Negative Bound"]) { display: none; } .tokens input { width: 80px; }
.tokens label[for="Positive Bound"] { color: #666; }
</style>"""

Shown = tuple[str, int | None]  # what is written, and the position it stands for


def token_view(
    model: HookedVideoTransformer,
    asked: Question | Prompt,
    words: str | Sequence[str] = "last",
    *,
    layers: Iterable[int] | int,
    heads: Iterable[int] | int | None = None,
    interventions: Any = (),
    occurrence: int | None = None,
    title: str | None = None,
) -> View:
    """The prompt's tokens, coloured by the attention that some of them pay; a button for every head.

    1. Read the patterns of the words' rows only, so that it works at any length.
    2. Text as it stands in the prompt; the video's tokens as its frames side by side, a cell for each.

    >>> token_view(model, question, ["last", "left"], layers=8).save_html("tokens.html")  # doctest: +SKIP

    Args:
        model: the model.
        asked: a question or a single prompt.
        words: whose attention: selections or words of the question, as in `videolens.attention_map`; the mean over a
            word's tokens.
        layers: 0-based; one picture for each layer and word.
        heads: 0-based; None: all. The mean over these comes first.
        interventions: what is blocked meanwhile: one or several, in any form that `as_interventions` reads.
        occurrence: of a word that occurs several times: 0 is the first, −1 the last; None: the mean over all.
        title: of the page; None: says what is shown.

    Raises:
        PromptError: a batch of several prompts.
        SelectionError: the prompt has no such word; the message lists those it has.
        VideolensError: layers or heads that the model does not have.
    """
    prompt = model.prompt(asked) if isinstance(asked, Question) else asked.single("a view of tokens")
    names, cfg = check_words(words), model.cfg
    at = chosen_numbers("layer", layers, cfg.n_layers)
    chosen = chosen_numbers("head", heads, cfg.n_heads)
    # 1.
    rows = [rows_of(prompt, name, model.tokenizer, occurrence=occurrence) for name in names]
    several = as_interventions(interventions, cfg, optional=True)
    hooks = [hook for each in several for hook in each.hooks(prompt)]
    seen = read_rows(model, prompt, rows, layers=at, fwd_hooks=hooks)[:, :, list(chosen)]
    # 2.
    shown, video = list(_layout(prompt, model.tokenizer)), prompt.tokens["video"]
    body = (
        "<p>Each box is a token; its colour is the attention that a word pays to it. The video’s tokens lie as its "
        "frames, side by side. Hover over a head to see it, click to keep it; hover over a token for the numbers. "
        "Colour is full at the positive bound, at first the most that the heads together pay to one video token; "
        f"change it to see more or less. Layers and heads count from 1, frames from 0. {escape(str(cfg.model_name))}. "
        "Drawn by circuitsvis.</p>"
    )
    for i, layer in enumerate(at):
        for j, name in enumerate(names):
            values = torch.cat([seen[i, j].mean(0, keepdim=True), seen[i, j]])
            head = f"Layer {layer + 1}: what {escape(repr(name))} looks at" + (
                ", under interventions" if several else ""
            )
            picture = component("ColoredTokensMulti", _properties(shown, values, video, chosen), salt=f"{layer} {name}")
            body += f'<div class="tokens"><h4>{head}</h4>{picture}</div>'
    return View(title or f"What {', '.join(map(repr, names))} look at, head by head", _STYLE + body)


def _properties(
    shown: Sequence[Shown], values: Float64[Tensor, "shown_head key"], video: Tensor, heads: Sequence[int]
) -> dict[str, Any]:
    """Of `ColoredTokensMulti`: mean over heads, then every head."""
    full = float(values[0, video].max()) if len(video) else float(values[0].max())
    columns = [[float(f"{value:.3g}") for value in column] for column in values.T.tolist()]
    nothing = [0] * len(values)
    return {
        "tokens": [text for text, _ in shown],
        "values": [nothing if position is None else columns[position] for _, position in shown],
        "labels": ["mean", *(f"H{head + 1}" for head in heads)],
        "positiveBounds": [float(f"{max(full, 1e-6):.3g}")] * len(values),
        "negativeBounds": [-1] * len(values),
    }


def _layout(prompt: Prompt, tokenizer: Any) -> Iterator[Shown]:
    """The prompt as it is shown: text, the video's frames side by side, what stands between frames, text."""
    tokens = prompt.tokens
    video = tokens["video"]
    texts = _texts(prompt, tokenizer)
    if not len(video):
        yield from ((text, i) for i, text in enumerate(texts))
        return
    first, last = int(video[0]), int(video[-1])
    yield from ((texts[i], i) for i in range(first))
    yield "\n", None
    yield from _sheet(video.reshape(tokens.grid).tolist())
    own = set(video.tolist())
    if between := [i for i in range(first, last) if i not in own]:
        yield "between frames:\u00a0", None
        yield from ((texts[i], i) for i in between)
        yield "\n", None
    yield from ((texts[i], i) for i in range(last + 1, tokens.n_pos))


def _sheet(frames: list[list[list[int]]]) -> Iterator[Shown]:
    """Frames side by side, as many as fit into a line."""
    columns = len(frames[0][0])
    lines = -(-len(frames) // max(1, _WIDEST // columns))
    beside = -(-len(frames) // lines)
    for start in range(0, len(frames), beside):
        some = frames[start : start + beside]
        for row in range(len(some[0])):
            for frame in some:
                yield from ((_CELL, position) for position in frame[row])
                yield (_GAP if frame is not some[-1] else f"{_GAP}\n"), None
        names = f"frames {start} to {start + len(some) - 1}" if len(some) > 1 else f"frame {start}"
        yield f"{names}\n", None


def _texts(prompt: Prompt, tokenizer: Any) -> list[str]:
    """Every token as it can be read. circuitsvis writes tokens as HTML, so what would be a tag is shown otherwise."""
    labels = prompt.tokens.labels()
    if tokenizer is not None and prompt.tokens.texts is not None:
        known = prompt.input_ids[0].tolist()
        words = {i: tokenizer.decode([i], skip_special_tokens=False) for i in set(known)}
        # decoding a token by itself loses the space before it
        labels = [
            f"\u00a0{words[i].lstrip()}" if text[:1] in ("▁", "Ġ") else words[i]
            for i, text in zip(known, prompt.tokens.texts, strict=True)
        ]
    table = str.maketrans({"<": "‹", ">": "›", "&": "＆", "\n": "↵"})
    return [label.translate(table) or "·" for label in labels]
