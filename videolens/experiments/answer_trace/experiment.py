"""Watching the answer form: the probability of every option at the last token, layer by layer.

Map the Flow, section "Generation probability" (figure 9).
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from videolens.engine.foreseeing import Foreseen, Machine
from videolens.engine.full import full_logits
from videolens.engine.stages import stage_interventions
from videolens.errors import SelectionError
from videolens.experiments.answer_trace.result import AnswerTrace, TraceRow, TraceSettings
from videolens.experiments.common.asking import ask_all, why_left_out
from videolens.experiments.common.conditions import CLEAN, conditions_of
from videolens.experiments.common.experiment import Asked, Experiment, Gathered, Skip, Tick, check_samples
from videolens.experiments.common.provenance import made_with
from videolens.experiments.common.readout import FINAL_NORM, NO_NORM, listeners, read_logits
from videolens.experiments.common.words import token_text
from videolens.interventions.protocol import described
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt
from videolens.question import Question

Samples = Literal["correct", "wrong", "all"]


def answer_trace(
    model: HookedVideoTransformer,
    questions: Question | Prompt | Iterable[Question | Prompt],
    *,
    norm: bool = True,
    interventions: Mapping[str, Any] | None = None,
    samples: Samples = "correct",
    seed: int = 0,
    progress: bool = True,
) -> AnswerTrace:
    """Read every option's probability off the last token's hidden state after every layer.

    1. Run the model with nothing changed. Its answer is the token it ranks first; keep the question if `samples` says
       so, otherwise record why not.
    2. What is followed: every option's first token; of an open-ended question, that of the answer and of each
       alternative. If the model's answer is none of them, it is followed as well.
    3. Hidden state after each layer → final norm → unembedding → softmax over the vocabulary: the probability of each
       of these tokens, and the word that is ranked first. After the last layer, these are the model's own.
    4. The same under every intervention.

    Layers count from 0: layer l is the hidden state that leaves the l-th block. The embedding that enters layer 0 is
    not among them.

    Args:
        model: the model.
        questions: questions, or prompts made from them or by hand; a batch of prompts counts as several.
        norm: False leaves the final norm out, as was published for LLaVA and InternVL; the last layer's probabilities
            are then not the model's.
        interventions: by a name of your own, what to trace beside the clean model: a Knockout, Patch or Pathway, a list
            of them that hold at once, or plain data, {"route": "video -> question", "layers": [2, 3]}.
        samples: "correct": questions that the clean model answers rightly; "wrong": the others; "all": every question,
            whether or not its answer is known.
        seed: of the bootstrap that the result's intervals come from.
        progress: show a bar if it takes longer than two seconds.

    Raises:
        VideolensError: no questions, none left after choosing `samples`, an intervention on layers or heads that the
            model does not have, or that no question has.
        SelectionError: plain data that names no route.
    """
    experiment = AnswerTraceExperiment(model, norm=norm, interventions=interventions, samples=samples, seed=seed)
    return ask_all(experiment, questions, progress=progress)


@dataclass
class AnswerTraceExperiment(Experiment[AnswerTrace]):
    """Steps 1 to 4 of `answer_trace`, the same for every question. The arguments are those of `answer_trace`.

    Raises:
        SelectionError: plain data that names no route.
        VideolensError: a choice of samples that does not exist, an intervention on layers that the model lacks.
    """

    name: ClassVar[str] = "answer_trace"
    row = TraceRow
    dtypes: ClassVar[dict[str, str]] = {"correct": "boolean"}

    model: HookedVideoTransformer
    _: KW_ONLY
    norm: bool = True
    interventions: Mapping[str, Any] | None = None
    samples: Samples = "correct"
    seed: int = 0

    def __post_init__(self) -> None:
        check_samples(self.samples)
        self.lens = FINAL_NORM if self.norm else NO_NORM
        self.conditions = conditions_of(self.model, self.interventions or {})

    def ask(self, prompt: Prompt, name: str, task: str, tick: Tick) -> Asked:
        """Rows of the table for one question, and what was left out of it."""
        prompt.single("an evaluation")
        share = 1 / (1 + len(self.conditions))
        # 1. unblocked
        traced, said = self._trace(prompt, ())
        tick(share)
        correct = None if prompt.answer_token is None else said == prompt.answer_token
        if reason := why_left_out(self.samples, correct):
            return Asked(skipped=[Skip(name, task, None, reason)])
        # 2. what is followed
        followed = _followed(self.model, prompt, said)
        if isinstance(followed, str):
            return Asked(skipped=[Skip(name, task, None, followed)])
        # 3. every layer
        rows = self._rows(traced, followed, (name, task, CLEAN), correct)
        skipped = []
        # 4. under every intervention
        for condition, acting in self.conditions.items():
            try:
                traced, _ = self._trace(prompt, acting)
            except SelectionError as error:
                skipped.append(Skip(name, task, condition, str(error)))
            else:
                rows += self._rows(traced, followed, (name, task, condition), correct)
            tick(share)
        return Asked(rows, skipped)

    def foresee(self, prompt: Prompt, machine: Machine) -> Foreseen:
        """A forward with nothing changed, and one under each intervention."""
        return Foreseen.plain(1 + len(self.conditions))

    def result(self, gathered: Gathered) -> AnswerTrace:
        """The trace of all questions."""
        hint = ". samples='all' keeps every question whose options can be told apart"
        gathered.check_left(self.samples, hint=hint)
        if missing := sorted(set(self.conditions) - set(gathered.table["condition"])):
            reasons = "; ".join(sorted({skip.reason for skip in gathered.skipped if skip.route in missing}))
            raise SelectionError(f"no question has what the interventions {missing} act on: {reasons}")
        settings = TraceSettings(
            **made_with(self.model, gathered),
            n_layers=self.model.cfg.n_layers,
            lens=self.lens,
            samples=self.samples,
            seed=self.seed,
            interventions={
                name: "; ".join(described(each, self.model.cfg.n_layers) for each in acting)
                for name, acting in self.conditions.items()
            },
        )
        return AnswerTrace(gathered.table, settings)

    @torch.no_grad()
    def _trace(self, prompt: Prompt, acting: Sequence[Any]) -> tuple[Float[Tensor, "layer d_vocab"], int]:
        """(probabilities at the last token after every layer, the token that the model ranks first at its end)."""
        staged = stage_interventions(self.model, prompt, acting)
        last = prompt.tokens["last"].to(self.model.frontend.device)
        kept: dict[int, Tensor] = {}

        def keep(layer: int, value: Float[Tensor, "1 pos d_model"]) -> None:
            kept[layer] = value[0, last[0]].clone()

        layers = range(self.model.cfg.n_layers)
        hooks = [each for one in staged for each in one.hooks] + listeners(layers, keep, to=last.device)
        said = int(self.model.chosen(full_logits(self.model, prompt, hooks)))
        states = torch.stack([kept[layer] for layer in layers])
        return read_logits(self.model, states, self.lens).softmax(-1).cpu(), said

    def _rows(
        self,
        probabilities: Float[Tensor, "layer d_vocab"],
        followed: Mapping[str, tuple[str, int]],
        where: tuple[str, str, str],
        correct: bool | None,
    ) -> list[TraceRow]:
        best = probabilities.max(dim=-1)
        tops = [token_text(self.model, token) for token in best.indices.tolist()]
        return [
            TraceRow(
                *where,
                option=option,
                kind=kind,
                token=token_text(self.model, token),
                layer=layer,
                probability=float(probabilities[layer, token]),
                top=tops[layer],
                top_probability=float(best.values[layer]),
                correct=correct,
            )
            for option, (kind, token) in followed.items()
            for layer in range(len(probabilities))
        ]


def _followed(model: HookedVideoTransformer, prompt: Prompt, said: int) -> dict[str, tuple[str, int]] | str:
    """Option → (kind, token): step 2. A string says why the question cannot be traced."""
    tokens, right = prompt.option_tokens, prompt.answer_token
    choices = () if prompt.question is None else prompt.question.choices
    in_words = prompt.question is not None and prompt.question.style == "open-ended" and len(choices) == len(tokens)
    if not tokens and right is not None:
        tokens = (right,)
    if right is not None and list(tokens).count(right) > 1:
        return "the right answer begins with the same token as a wrong one: their probabilities cannot be told apart"
    names = list(choices) if in_words else list(string.ascii_uppercase[: len(tokens)])
    if not prompt.option_tokens:
        names = [token_text(model, token) for token in tokens]
    found: dict[str, tuple[str, int]] = {}
    by_token: dict[int, str] = {}
    for name, token in zip(names, tokens, strict=True):
        if token in by_token:  # two wrong ones that begin alike are one
            continue
        by_token[token] = name
        found[name] = ("unknown" if right is None else "true" if token == right else "false", token)
    if said not in by_token:
        found[f"says {token_text(model, said)!r}"] = ("model's answer", said)
    return found
