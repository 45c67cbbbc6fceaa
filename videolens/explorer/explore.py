"""`explore`: run one question, and make the page of it."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videolens.drawing.view import write_page
from videolens.errors import PromptError, VideolensError, check_whole
from videolens.experiments.common.provenance import made_with
from videolens.experiments.flow.result import FlowMap
from videolens.experiments.patch_map.result import PatchMap
from videolens.explorer.page import page, plain
from videolens.explorer.pane import Asked, make_pane
from videolens.interventions.knockout import ROUTES
from videolens.interventions.protocol import as_interventions, described
from videolens.model.checkpoints.files import short_name
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt
from videolens.question import Question

MOST_BYTES = 10 * 2**20
"""A page may be as large as this."""
ROOM = 6 * 2**20
"""Bytes for attention, in base64, of all panes: words and frames take the rest."""


@dataclass(frozen=True, eq=False)
class Explorer:
    """A page about one question. In a notebook it shows itself.

    Attributes:
        title: of the page.
        html: the whole page, which fetches nothing.
        left_out: of every pane, positions whose attention there was no room for.
    """

    title: str
    html: str
    left_out: tuple[tuple[int, ...], ...] = ()

    def save_html(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the page into a file.

        Raises:
            VideolensError: the file is there already, and `overwrite` is False; or the page is larger than 10 MB.
        """
        return write_page(path, self.html, MOST_BYTES, overwrite=overwrite)

    def __repr__(self) -> str:
        out = max((len(each) for each in self.left_out), default=0)
        without = f", attention of {out} tokens left out" if out else ""
        return f"Explorer({self.title!r}, {len(self.html) / 2**20:.1f} MB{without}; .save_html(path) writes the page)"

    def _repr_html_(self) -> str:
        page, title = html.escape(self.html), html.escape(self.title)
        return f'<iframe srcdoc="{page}" title="{title}" style="width:100%;height:900px;border:0"></iframe>'


def explore(
    model: HookedVideoTransformer,
    question: Question | Prompt,
    *,
    beside: Any = None,
    routes: Sequence[str] = ROUTES,
    window: int | None = None,
    rows: Sequence[str] | None = None,
    words: bool = True,
    flow: FlowMap | None = None,
    patches: PatchMap | None = None,
    max_memory: int | None = None,
) -> Explorer:
    """A page on which one question can be looked into: the clip, the prompt's tokens, the flow map, and what every
    token looks at and reads as.

    1. The map: every route cut in every window of layers, as `trace_flow` does.
    2. Attention, per layer and head, of every token, or of `rows`; in 8 bits, so that a weight is right to 1/255. If
       there is no room for all, the last token and the question come first.
    3. Words: what every token reads as after every layer (logit lens with the final norm).
    4. The page, which needs no network. On it layers count from 1, as in the paper.

    >>> vl.explore(model, question).save_html("explorer.html")  # doctest: +SKIP
    >>> vl.explore(model, question, beside="video -> last")  # blocked beside unblocked  # doctest: +SKIP
    >>> vl.explore(tuned, question, beside=base)  # doctest: +SKIP

    Args:
        model: the model.
        question: a question, or a single prompt.
        beside: what is shown beside it: another model, asked the same; or interventions, in any form that
            `as_interventions` reads, that hold on the other side. None: nothing.
        routes: of the map; those that the prompt does not have are named on the page.
        window: layers cut together; None: as `trace_flow`.
        rows: selections whose attention is kept, such as `["last", "true option", "frame 3"]`; None: every token.
        words: whether to read every token through the lens.
        flow: a map of several questions with the same model and window: its means and intervals stand beside the cells.
        patches: a patch map that holds this question: effects stand beside the tokens that were patched.
        max_memory: bytes that the engine may use besides the model; None: half of what is free.

    Raises:
        PromptError: a batch of several prompts; a prompt of one model that another one is asked beside.
        SelectionError: a route or a selection that the prompt does not have.
        VideolensError: a window or a flow map that does not fit; no interventions; a patch map without this question.
    """
    prompt = model.prompt(question) if isinstance(question, Question) else question
    prompt.single("an explorer")
    if isinstance(rows, str):
        raise VideolensError(f"rows is one string, {rows!r}: give a list of selections")
    if max_memory is not None:
        check_whole("max_memory", max_memory, least=1)
    sides = 1 if beside is None else 2
    asked = Asked(
        routes=tuple(routes), window=window, rows=rows, words=words, max_bytes=ROOM // sides, max_memory=max_memory
    )
    name = short_name(str(model.cfg.model_name or "model"))
    first = make_pane(model, prompt, asked, name=name)
    follow, made = first.answers[first.followed].text, [first]
    if isinstance(beside, HookedVideoTransformer):
        other = short_name(str(beside.cfg.model_name or "model"))
        made.append(make_pane(beside, _asked_of(beside, prompt), asked, name=other, follow=follow))
    elif beside is not None:
        under = as_interventions(beside, model.cfg, called="beside")
        what = "; ".join(described(each, model.cfg.n_layers) for each in under)
        made.append(make_pane(model, prompt, asked, name=f"{name}, {what}", under=under, follow=follow))
    panes = [plain(first, flow, patches), *(plain(each, None, None) for each in made[1:])]
    stem = prompt.question.stem if prompt.question is not None else "a prompt"
    found = made_with(model)
    about = f"{found['model']}, {found['dtype']}, videolens {found['versions']['videolens']}"
    left_out = tuple(each.attending.left_out for each in made)
    return Explorer(stem, page(stem, about, panes), left_out)


def _asked_of(model: HookedVideoTransformer, prompt: Prompt) -> Prompt:
    """The same question as another model's prompt."""
    if prompt.question is None:
        raise PromptError(
            "another model beside needs a question, and this prompt was made without one: give a Question"
        )
    return model.prompt(prompt.question)
