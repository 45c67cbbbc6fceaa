"""Reading the video tokens: which words their hidden states stand for, layer by layer.

Map the Flow, section "Logit lens on video tokens" (figures 4 and 5).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cache, partial
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from videolens.engine.foreseeing import Foreseen, Machine
from videolens.engine.full import full_logits
from videolens.errors import VideolensError, near
from videolens.experiments.common.asking import ask_all, why_left_out
from videolens.experiments.common.experiment import Asked, Experiment, Frame, Gathered, Skip, Tick, check_samples
from videolens.experiments.common.provenance import made_with
from videolens.experiments.common.readout import FINAL_NORM, INPUT_EMBEDDING, listeners, top_words
from videolens.experiments.common.words import token_text
from videolens.experiments.logit_lens.keywords import grouped, subwords
from videolens.experiments.logit_lens.result import LensRow, LensSettings, LogitLens
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt
from videolens.question import Question

Samples = Literal["correct", "wrong", "all"]
Keywords = str | Sequence[str] | Mapping[str, Sequence[str]]

LENSES = {"final norm": FINAL_NORM, "published": INPUT_EMBEDDING}
"""By the name that `logit_lens` takes: what the model does after its last layer; and the published variant, the input
embedding without the norm. Where a model's embedding and unembedding are not tied, the latter means little."""


def logit_lens(
    model: HookedVideoTransformer,
    questions: Question | Prompt | Iterable[Question | Prompt],
    *,
    lens: str = "final norm",
    top: int = 3,
    keywords: Keywords | None = None,
    samples: Samples = "all",
    seed: int = 0,
    frames: bool = True,
    progress: bool = True,
) -> LogitLens:
    """The words that every video token ranks first after every layer.

    1. Run the model with nothing changed; keep the question if `samples` says so, otherwise record why not.
    2. After each layer, read the hidden state of every video token through the lens: the `top` likeliest words and
       their probabilities. Tokens go through the vocabulary a few at a time, and nothing else is kept.

    Layers count from 0: layer l is what leaves the l-th block. The projected video that enters layer 0 is not among
    them. A video token sees what stands before it, never the question after it: its words do not depend on what is
    asked, unless the question comes first.

    Args:
        model: the model.
        questions: questions, or prompts made from them or by hand; a batch of prompts counts as several.
        lens: "final norm": final norm, then unembedding; "published": the input embedding without the norm.
        top: how many words of every token; each adds a row per layer and video token.
        keywords: words to look for later, checked against the vocabulary before anything runs: a list, lists by group,
            or the name of a list, "shapes" or "action sequence". Others can be asked of the result too.
        samples: "all" questions, or those that the model answers "correct" or "wrong".
        seed: of the bootstrap that the result's intervals come from.
        frames: keep small pictures of the frames, to write the words on.
        progress: show a bar if it takes longer than two seconds.

    Raises:
        VideolensError: no questions, none left after choosing `samples`, an unknown lens, a keyword that is not in the
            vocabulary.
    """
    experiment = LogitLensExperiment(
        model, lens=lens, top=top, keywords=keywords, samples=samples, seed=seed, frames=frames
    )
    return ask_all(experiment, questions, progress=progress)


@dataclass
class LogitLensExperiment(Experiment[LogitLens]):
    """Steps 1 and 2 of `logit_lens`, the same for every question. The arguments are those of `logit_lens`.

    Raises:
        VideolensError: an unknown lens, a keyword that is not in the vocabulary, a choice of samples that does not
            exist, `top` outside the vocabulary.
    """

    name: ClassVar[str] = "logit_lens"
    row = LensRow
    also: ClassVar[dict[str, Any]] = {"clips": Frame}
    picture_size: ClassVar[int] = 144  # words are written on it
    dtypes: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("layer", "frame", "row", "column", "rank"), "int16"),
        "token": "int32",
        "probability": "float32",
    }

    model: HookedVideoTransformer
    _: KW_ONLY
    lens: str = "final norm"
    top: int = 3
    keywords: Keywords | None = None
    samples: Samples = "all"
    seed: int = 0
    frames: bool = True

    def __post_init__(self) -> None:
        check_samples(self.samples)
        if self.lens not in LENSES:
            raise VideolensError(near(self.lens, LENSES, kind="lens"))
        d_vocab = self.model.cfg.d_vocab
        if isinstance(self.top, bool) or not isinstance(self.top, int) or not 1 <= self.top <= d_vocab:
            raise VideolensError(f"top is {self.top!r}: ask for 1 … {d_vocab} words of every video token")
        self.lens_name = LENSES[self.lens]
        self.groups = {} if self.keywords is None else grouped(self.keywords)
        self.subwords = subwords(self.model.tokenizer, d_vocab, self.groups)
        self.pictures = sys.maxsize if self.frames else 0
        self._word = cache(partial(token_text, self.model))

    @torch.no_grad()
    def ask(self, prompt: Prompt, name: str, task: str, tick: Tick) -> Asked:
        """Rows of the table for one question, and what was left out of it."""
        prompt.single("an evaluation")
        n_layers, tokens = self.model.cfg.n_layers, prompt.tokens
        video = tokens["video"].to(self.model.frontend.device)
        if len(video) == 0:
            return Asked(skipped=[Skip(name, task, None, "the prompt has no video")])
        read: dict[int, tuple[Tensor, Tensor]] = {}

        # 2., while the model runs: no layer's hidden states are kept
        def keep(layer: int, value: Float[Tensor, "1 pos d_model"]) -> None:
            read[layer] = top_words(self.model, value[0, video], self.lens_name, self.top)
            tick(1 / n_layers)

        # 1.
        listening = listeners(range(n_layers), keep, to=video.device)
        said = int(self.model.chosen(full_logits(self.model, prompt, listening)))
        correct = None if prompt.answer_token is None else said == prompt.answer_token
        if reason := why_left_out(self.samples, correct):
            return Asked(skipped=[Skip(name, task, None, reason)])
        places = torch.stack([tokens.frame, tokens.row, tokens.column], dim=1)[tokens["video"]].tolist()
        rows: list[LensRow] = []
        for layer in range(n_layers):
            of_layer = zip(places, read[layer][0].tolist(), read[layer][1].tolist(), strict=True)
            rows += [
                LensRow(name, task, layer, frame, row, column, rank, token, self._word(token), probability)
                for (frame, row, column), ranked, probabilities in of_layer
                for rank, (token, probability) in enumerate(zip(ranked, probabilities, strict=True), start=1)
            ]
        return Asked(rows)

    def foresee(self, prompt: Prompt, machine: Machine) -> Foreseen:
        """One forward."""
        return Foreseen.plain(1)

    def result(self, gathered: Gathered) -> LogitLens:
        """The lens of all questions."""
        gathered.check_left(self.samples, hint=". samples='all' keeps every question with a video")
        settings = LensSettings(
            **made_with(self.model, gathered),
            n_layers=self.model.cfg.n_layers,
            lens=self.lens_name,
            top=self.top,
            samples=self.samples,
            seed=self.seed,
            groups={name: list(words) for name, words in self.groups.items()},
            subwords=self.subwords,
            d_vocab=self.model.cfg.d_vocab,
            tokenized=self.model.tokenizer is not None,
        )
        return LogitLens(gathered.table, gathered.also["clips"], settings, self.model.tokenizer)
