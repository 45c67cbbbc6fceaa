"""What is asked: how undecided the model is, as the entropy of its choice among a question's options."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from torch.special import entr

from videolens.engine import last_logits
from videolens.experiments.common.asking import ask_all
from videolens.experiments.common.experiment import Asked, Cost, Experiment, Gathered, Skip, Tick
from videolens.experiments.common.provenance import Made, made_with
from videolens.experiments.common.words import token_text
from videolens.experiments.toy.result import Toy, ToyRow
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.prompt import Prompt


def measure_toy(model: HookedVideoTransformer, questions: Any, *, seed: int = 0, progress: bool = True) -> Toy:
    """Measure how undecided a model is: the entropy of its options' probabilities, scaled to sum to 1, in bits.

    Args:
        model: the model.
        questions: one or several, or prompts made from them. Those without options are left out.
        seed: of the bootstrap that intervals come from.
        progress: show a bar if it takes longer than two seconds.

    Raises:
        VideolensError: no questions, or none with options.
    """
    return ask_all(ToyExperiment(model, seed=seed), questions, progress=progress)


@dataclass
class ToyExperiment(Experiment[Toy]):
    """What `measure_toy` does, whose arguments it has. It keeps nothing from one question to the next."""

    name: ClassVar[str] = "toy"
    row = ToyRow
    model: HookedVideoTransformer
    _: KW_ONLY
    seed: int = 0

    def ask(self, prompt: Prompt, name: str, task: str, tick: Tick) -> Asked:
        """The row of one question, or why it is left out."""
        if not prompt.option_tokens:
            return Asked(skipped=[Skip(name, task, None, "the question has no options")])
        p = last_logits(self.model, prompt)[list(prompt.option_tokens)].softmax(-1)
        choice = token_text(self.model, prompt.option_tokens[int(p.argmax())])
        return Asked([ToyRow(name, task, choice, float(entr(p).sum()) / math.log(2))], cost=Cost(1.0, 1.0))

    def result(self, gathered: Gathered) -> Toy:
        """The result, from the rows of all questions."""
        gathered.check_left()
        return Toy(gathered.table, Made(**made_with(self.model, gathered), seed=self.seed))
