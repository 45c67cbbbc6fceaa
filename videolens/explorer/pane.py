"""A pane: one prompt under one model, perhaps with interventions, and all that its side of the page can show."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from videolens.engine.full import full_logits
from videolens.experiments.common.thumbnails import thumbnails
from videolens.explorer.attending import Attending, default_rows, read_attending
from videolens.explorer.cells import Cells, measure_cells
from videolens.explorer.reading import Words, read_words
from videolens.interventions.protocol import Acting
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt

LONGEST = 336  # pixels of a frame's longer side: what most towers see


@dataclass(frozen=True)
class Answer:
    """An answer that the page shows: its words, its token, and whether it is right (None: that is not known)."""

    text: str
    token: int
    right: bool | None


@dataclass(frozen=True, eq=False)
class Pane:
    """One side of the page.

    Attributes:
        name: what stands above it.
        prompt: the prompt.
        texts: position → text, of every position that is no video token.
        frames: a picture of every frame of the grid, PNG; empty where the prompt came without its video.
        answers: that are shown.
        followed: which of them is followed.
        cells: the map.
        attending: rows of attention.
        words: what the tokens read as.
        n_layers, n_heads: of the model.
    """

    name: str
    prompt: Prompt
    texts: dict[int, str]
    frames: tuple[bytes, ...]
    answers: tuple[Answer, ...]
    followed: int
    cells: Cells
    attending: Attending
    words: Words | None
    n_layers: int
    n_heads: int


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What every pane is made with, as `explore` takes it."""

    routes: Sequence[str]
    window: int | None
    rows: Sequence[str] | None
    words: bool
    max_bytes: int
    max_memory: int | None


def make_pane(
    model: HookedVideoTransformer,
    prompt: Prompt,
    asked: Asked,
    *,
    name: str,
    under: Sequence[Acting] = (),
    follow: str | None = None,
) -> Pane:
    """Run everything that a pane shows.

    1. The answers; which is followed: the one that `follow` names if it is there, else what the model answers.
    2. The map: every route cut in every window, while `under` holds.
    3. Attention of the rows, and words of every token.

    Raises:
        SelectionError: a route, or a selection in `rows`, that the prompt does not have.
        VideolensError: as `trace_flow`.
    """
    hooks = [hook for each in under for hook in each.hooks(prompt)]
    answers, followed = _answers(model, prompt, full_logits(model, prompt, hooks), follow)
    cells = measure_cells(
        model,
        prompt,
        [answer.token for answer in answers],
        followed,
        routes=asked.routes,
        window=asked.window,
        under=under,
        max_memory=asked.max_memory,
    )
    wanted = default_rows(prompt)
    if asked.rows is not None:
        chosen = [at for name in asked.rows for at in prompt.tokens[name].tolist()]
        wanted = [prompt.tokens.n_pos - 1, *chosen]
    attending = read_attending(model, prompt, wanted, fwd_hooks=hooks, max_bytes=asked.max_bytes)
    words = read_words(model, prompt, fwd_hooks=hooks) if asked.words else None
    pictures = tuple(png for _, png in thumbnails(prompt, model.pixel_settings, longest=LONGEST))
    cfg = model.cfg
    return Pane(
        name,
        prompt,
        _texts(model, prompt),
        pictures,
        answers,
        followed,
        cells,
        attending,
        words,
        cfg.n_layers,
        cfg.n_heads,
    )


def _answers(
    model: HookedVideoTransformer, prompt: Prompt, logits: Float[Tensor, " d_vocab"], follow: str | None
) -> tuple[tuple[Answer, ...], int]:
    """Step 1: the options with their letters; without options the five likeliest tokens. And the one that is followed:
    what the model answers, unless another one is named that is among them."""
    question, right, best = prompt.question, prompt.answer_token, int(model.chosen(logits))
    if prompt.option_tokens:
        named = question.options if question is not None and question.options else [""] * len(prompt.option_tokens)
        tokens = list(prompt.option_tokens)
        texts = [f"{letter} {text}".strip() for letter, text in zip(string.ascii_uppercase, named, strict=False)]
    else:
        tokens = logits.topk(min(5, len(logits))).indices.tolist()
        texts = [_text(model, token) for token in tokens]
    if best not in tokens:
        tokens, texts = [*tokens, best], [*texts, f"{_text(model, best)} (no option)"]
    answers = tuple(
        Answer(text, token, None if right is None else token == right)
        for token, text in zip(tokens, texts, strict=True)
    )
    return answers, texts.index(follow) if follow in texts else tokens.index(best)


def _texts(model: HookedVideoTransformer, prompt: Prompt) -> dict[int, str]:
    """Every position that is no video token, as text."""
    video = set(prompt.tokens["video"].tolist())
    ids = prompt.input_ids[0].tolist()
    return {at: _text(model, ids[at]) for at in range(len(ids)) if at not in video}


def _text(model: HookedVideoTransformer, token: int) -> str:
    return str(token) if model.tokenizer is None else model.shown(token)
