"""Tracing long answers: cut routes into a word of the answer, and see how far its probability falls.

Map the Flow, appendix D ("Open-ended, many tokens").
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar

from videolens.engine import base, check_engine, sweep
from videolens.errors import check_flag, check_whole
from videolens.experiments.common.asking import ask_all
from videolens.experiments.common.experiment import Asked, Cost, Experiment, Gathered, Skip, Tick
from videolens.experiments.common.provenance import made_with
from videolens.experiments.common.words import token_text
from videolens.experiments.flow.changes import changes_of, noise_of
from videolens.experiments.flow.plan import route_knockouts
from videolens.experiments.generation.anchors import VERBS, Anchor, anchors_in, check_anchors, described
from videolens.experiments.generation.result import (
    ROUTES,
    AnswerRow,
    GenerationRow,
    GenerationSettings,
    GenerationTrace,
    at_anchor,
)
from videolens.interventions.layer_sets import window_of
from videolens.interventions.rerounded import HALF
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt
from videolens.question import Question


def trace_generation(
    model: HookedVideoTransformer,
    questions: Question | Prompt | Iterable[Question | Prompt],
    *,
    anchors: Any = VERBS,
    n_anchors: int = 3,
    max_new_tokens: int = 64,
    window: int | None = None,
    seed: int = 0,
    engine: str = "exact",
    max_memory: int | None = None,
    verify: bool = False,
    progress: bool = True,
) -> GenerationTrace:
    """Cut five routes into words of the model's own answer, in a window of layers around each layer.

    1. The model answers in words, greedily. A question with options is asked without them (`Question.open_ended`); a
       prompt is taken as it is.
    2. Anchors are found in the answer; answers with fewer than `n_anchors` are left out, and the result says so.
    3. For each of the first `n_anchors`: the prompt and the answer up to just before the anchor are one sequence.
       "last" is its last token, at which the anchor is predicted; "response" are the answer's tokens before that one.
    4. Each of the routes video → question, video → response, video → last, question → last and response → last is
       blocked in the window centred at each layer; of response → last the token just before the last stays open. The
       change is (p_knockout − p_base) / p_base × 100, p the probability of the anchor's first token.
    5. In bfloat16 and float16 the noise of rounding, as `trace_flow` measures it.

    A route that an anchor does not have (from the response, where nothing or one token stands before the last) is
    skipped there, and the result records it.

    Args:
        model: the model.
        questions: questions, or prompts made from them or by hand; a batch of prompts counts as several.
        anchors: "verbs": forms of common verbs, by a list that is no tagger (`videolens.experiments.generation.verbs`);
            a list of words; a list of places of the answer's tokens, from 0; or a function that takes the answer's
            words and gives the places of those that are anchors, from 0.
        n_anchors: how many anchors of an answer are followed, and how many it must have; the paper's 3.
        max_new_tokens: of an answer, at most.
        window: layers blocked together; None: the odd number nearest 9/32 of the layers.
        seed: of the bootstrap that intervals come from.
        engine: "exact": only what a knockout can change is computed; "full": one forward of the whole sequence per
            anchor, route and window. The results are the same to rounding.
        max_memory: bytes that the exact engine may use besides the model; None: half of what is free.
        verify: run a sample of the knockouts in full as well, and compare.
        progress: show a bar if it takes longer than two seconds.

    Raises:
        SelectionError: anchors that cannot be found in answers of this model.
        VideolensError: no questions, none whose answer has enough anchors, a window that does not fit the model, too
            little memory for one window, or (with `verify`) results that differ from plain forwards.
    """
    experiment = GenerationExperiment(
        model,
        anchors=anchors,
        n_anchors=n_anchors,
        max_new_tokens=max_new_tokens,
        window=window,
        seed=seed,
        engine=engine,
        max_memory=max_memory,
        verify=verify,
    )
    return ask_all(experiment, questions, progress=progress)


@dataclass
class GenerationExperiment(Experiment[GenerationTrace]):
    """Steps 1 to 5 of `trace_generation`, the same for every question. The arguments are those of `trace_generation`.

    Raises:
        SelectionError: anchors that cannot be found in answers of this model.
        VideolensError: a window that does not fit the model, a number that is none.
    """

    name: ClassVar[str] = "generation"
    row = GenerationRow
    also: ClassVar[dict[str, Any]] = {"answers": AnswerRow}

    model: HookedVideoTransformer
    _: KW_ONLY
    anchors: Any = VERBS
    n_anchors: int = 3
    max_new_tokens: int = 64
    window: int | None = None
    seed: int = 0
    engine: str = "exact"
    max_memory: int | None = None
    verify: bool = False

    def __post_init__(self) -> None:
        check_anchors(self.anchors, self.model)
        check_whole("n_anchors", self.n_anchors, least=1)
        check_whole("max_new_tokens", self.max_new_tokens, least=1)
        check_engine(self.engine)
        check_flag("verify", self.verify)
        self.window = window_of("centre", self.window, self.model.cfg.n_layers)

    def prompts(self, item: Any) -> Iterator[Prompt]:
        """The prompt of a question without its options, or the single prompts of a batch."""
        yield from super().prompts(item.open_ended() if isinstance(item, Question) else item)

    def ask(self, prompt: Prompt, name: str, task: str, tick: Tick) -> Asked:
        """Rows of the table for one question, and what was left out of it."""
        # 1. the answer
        tokens, text = self._answer(prompt.single("an answer"))
        # 2. its anchors
        found = anchors_in(tokens, self.anchors, self.model)
        answer = [AnswerRow(name, task, text, len(tokens), len(found))]
        if len(found) < self.n_anchors:
            reason = f"its answer has {len(found)} of {self.n_anchors} anchors"
            return Asked(skipped=[Skip(name, task, None, reason)], also={"answers": answer})
        # 3. each of them
        each = []
        for number, anchor in enumerate(found[: self.n_anchors]):
            longer = self.model.prompt_with_answer(prompt, tokens[: anchor.place])
            each.append(self._at(longer, (name, task, number), anchor, tokens[anchor.place], tick))
        rows = [row for one in each for row in one.rows]
        skipped = [skip for one in each for skip in one.skipped]
        return Asked(rows, skipped, _summed([one.cost for one in each if one.cost is not None]), {"answers": answer})

    def _answer(self, prompt: Prompt) -> tuple[list[int], str]:
        """Ids of the greedy answer, without the one that ends it, and its text."""
        written = self.model.generate(prompt, self.max_new_tokens, do_sample=False)
        tokens, ends = written.tokens[0].tolist(), set(self.model.eos_tokens)
        stop = next((i for i, token in enumerate(tokens) if token in ends), len(tokens))
        return tokens[:stop], written.texts[0]

    def _at(self, prompt: Prompt, who: tuple[str, str, int], anchor: Anchor, token: int, tick: Tick) -> Asked:
        """Steps 4 and 5: rows of one anchor. The prompt ends just before it."""
        name, task, number = who
        n_layers, skipped = self.model.cfg.n_layers, []
        knockouts, kept = [], []
        for route in ROUTES:
            cut = _as_cut(route, anchor.place)
            cuts, _, missing = ([], [], {"": _NOTHING}) if cut is None else self._knockouts(prompt, cut)
            skipped += [Skip(name, task, at_anchor(route, number), reason) for reason in missing.values()]
            knockouts += cuts
            kept += [route] if cuts else []
        unblocked = base(self.model, prompt, engine=self.engine, max_memory=self.max_memory)
        how: dict[str, Any] = {"engine": self.engine, "max_memory": self.max_memory}
        part = 1 / self.n_anchors
        found = sweep(
            self.model,
            prompt,
            knockouts,
            verify=self.verify,
            tick=lambda share: tick(share * part),
            base=unblocked,
            **how,
        )
        p_base, p_knockout, change = changes_of(found, token)
        instead = [token_text(self.model, best) for best in found.logits.argmax(-1).tolist()]
        places = [(route, layer) for route in kept for layer in range(n_layers)]
        rows = [
            GenerationRow(
                *who,
                place=anchor.place,
                word=anchor.word,
                route=route,
                layer=layer,
                p_base=p_base,
                p_knockout=float(p_knockout[i]),
                change_percent=float(change[i]),
                answer_knockout=instead[i],
            )
            for i, (route, layer) in enumerate(places)
        ]
        cost = Cost.of(found, before=1.0)
        if self.model.cfg.dtype in HALF and rows:
            noise, more = noise_of(
                self.model, prompt, knockouts, change.tolist(), token, of_route=n_layers, unblocked=unblocked, **how
            )
            cost = replace(cost, forwards=cost.forwards + more, noise=noise)
        return Asked(rows, skipped, cost)

    def _knockouts(self, prompt: Prompt, route: str) -> tuple[list[Any], list[str], dict[str, str]]:
        return route_knockouts(prompt, [route], self.window, self.model.cfg.n_layers)

    def result(self, gathered: Gathered) -> GenerationTrace:
        """The trace of all answers that have enough anchors."""
        gathered.check_left(
            hint=". Ask for fewer (n_anchors=), say which words are meant (anchors=), or let answers "
            "be longer (max_new_tokens=)"
        )
        settings = GenerationSettings(
            **made_with(self.model, gathered),
            seed=self.seed,
            n_layers=self.model.cfg.n_layers,
            window=int(self.window or 0),
            anchors=described(self.anchors),
            n_anchors=self.n_anchors,
            max_new_tokens=self.max_new_tokens,
            engine=self.engine,
        )
        return GenerationTrace(gathered.table, gathered.also["answers"], settings)


_NOTHING = "no token of the answer stands before the last that could be cut"


def _as_cut(route: str, place: int) -> str | None:
    """A route between the prompt's own selections, for an anchor before which `place` tokens of the answer stand; None
    where there is nothing to cut."""
    if route == "video -> response":
        return f"video -> response 0-{place - 2}" if place > 1 else None
    if route == "response -> last":
        return f"response 0-{place - 3} -> last" if place > 2 else None
    return route


def _summed(costs: Sequence[Cost]) -> Cost:
    """The cost of an answer: that of its anchors, and a forward in which it was written."""
    verified = [cost.verified for cost in costs if cost.verified is not None]
    noise = [cost.noise for cost in costs if cost.noise is not None]
    return Cost(
        1.0 + sum(cost.forwards for cost in costs),
        1.0 + sum(cost.full_forwards for cost in costs),
        max(verified, default=None),
        max(noise, default=None),
    )
