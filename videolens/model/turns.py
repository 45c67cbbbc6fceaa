"""Which threads run a model now. Hook functions belong to a model, not to a thread: they act on all of its runs."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from videolens.errors import ModelError
from videolens.model.decoder.rows import is_listened_to
from videolens.model.finite import names_the_layer

P = ParamSpec("P")
R = TypeVar("R")


class Turns:
    """Runs with nothing changed may go side by side; a run under hook functions, or another setting, goes alone.

    Nobody waits: who comes second is refused at once, so that no thread gets numbers of another's run. A copy of a
    model has turns of its own.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: Counter[int] = Counter()  # by thread
        self._alone: Counter[int] = Counter()

    def __reduce__(self) -> tuple[Any, ...]:
        return Turns, ()

    @contextmanager
    def taken(self, model: Any, *, alone: bool) -> Iterator[None]:
        """Run the model inside the block; within one that goes alone, the same thread may begin others.

        Raises:
            ModelError: another thread runs it, and one of the two must go alone.
        """
        me = threading.get_ident()
        mine = self._alone if alone else self._running
        with self._lock:
            others = [(table, thread) for table in (self._alone, self._running) for thread in table if thread != me]
            if others and (alone or self._alone.keys() - {me} or any(map(is_listened_to, model.hook_dict.values()))):
                raise ModelError(
                    "another thread is running this model, and one of the two runs is under hook functions or a "
                    "setting of its own, which would act on both: run them one after the other, or give each thread a "
                    "model of its own (copy.deepcopy(model))"
                )
            mine[me] += 1
        try:
            yield
        finally:
            with self._lock:
                mine[me] -= 1
                if not mine[me]:
                    del mine[me]


def a_run(*, alone: bool = False) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A function (model, …) that runs the model: it takes its turn, and names the layer of broken numbers."""

    def decorate(run: Callable[P, R]) -> Callable[P, R]:
        named = names_the_layer(run)

        @wraps(run)
        def taking_turns(*args: P.args, **kwargs: P.kwargs) -> R:
            model: Any = args[0] if args else kwargs["model"]
            with model.turns.taken(model, alone=alone):
                return named(*args, **kwargs)

        return taking_turns

    return decorate
