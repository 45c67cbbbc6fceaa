"""The model `videolens` of lmms-eval (0.7): `lmms-eval --model videolens --model_args pretrained=…,pathway=FILE …`.

Every task of lmms-eval that shows one video can so be measured along a pathway, under knockouts, or compiled.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
from lmms_eval.api.instance import GenerationResult
from lmms_eval.api.model import lmms

from videolens.errors import PromptError, VideolensError
from videolens.evaluators.answering import Answering, naming
from videolens.progress import progress_bar

T = TypeVar("T")


class LmmsEvalModel(lmms):
    """Answers lmms-eval's requests, one after the other.

    Args:
        batch_size: 1.
        max_batch_size: not used: it is for batches of automatic size.
        given: the fields of `Settings` (`videolens.evaluators.answering`), from `--model_args` and `--device`.

    Raises:
        VideolensError: another batch size, and what `Answering` raises.
    """

    is_simple = True

    def __init__(self, batch_size: int | str = 1, max_batch_size: Any = None, **given: Any) -> None:
        super().__init__()
        if str(batch_size) != "1":
            raise VideolensError(
                f"batch_size = {batch_size!r}: questions are asked one after the other; leave --batch_size out"
            )
        if int(os.environ.get("WORLD_SIZE", 1)) > 1 and torch.cuda.is_available():
            given.setdefault("device", f"cuda:{os.environ.get('LOCAL_RANK', 0)}")
        self.answering = Answering(given)

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self.answering.model.frontend.device

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """What is written for every request. Arguments: text, settings, visuals of a document, which document."""

        def answer(text: str, how: Any, to_visual: Callable[[Any], Any], doc: Any) -> str:
            return self.answering.write(text, to_visual(doc), how)

        return self._each(requests, answer)

    def loglikelihood(self, requests: Sequence[Any]) -> list[Any]:
        """The loss of every request's continuation, and whether it is the greedy one. Arguments: text, continuation (or
        a function of the document), visuals, which document."""

        def answer(text: str, words: Any, to_visual: Callable[[Any], Any], doc: Any) -> Any:
            found = self.answering.loss(text, to_visual(doc), str(words(doc) if callable(words) else words))
            # 0.7.3 makes text of a bare pair, which its tasks cannot read; what this class holds it leaves as it is
            return GenerationResult(found)

        return self._each(requests, answer)

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Refused.

        Raises:
            PromptError: always.
        """
        raise PromptError("a task of several rounds: a model of videolens answers one text about one video")

    def _each(self, requests: Iterable[Any], answer: Callable[[str, Any, Callable[[Any], Any], Any], T]) -> list[T]:
        """Answers in the order of the requests; one that cannot be asked ends the evaluation, by name."""
        found, given = [], [request.args for request in requests]
        with progress_bar("lmms-eval", total=len(given), digits=0, shown=self.rank == 0) as bar:
            for arguments in given:
                if len(arguments) != 6:
                    raise PromptError(
                        f"a request of lmms-eval has {len(arguments)} arguments, not six (text, settings, visuals, "
                        "document, task, split): without a document there is no video"
                    )
                text, how, to_visual, number, task, split = arguments
                with naming(f"task {task}, document {number}"):
                    if not callable(to_visual):
                        raise PromptError("it comes with no video: the task has no doc_to_visual")
                    found.append(answer(text, how, to_visual, self.task_dict[task][split][number]))
                bar.update(1)
        return found
