"""Bars: on a terminal, in a notebook, and as a few plain lines where output goes into a file."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

EVERY_S = 10.0
"""Seconds between two lines where there is no terminal, at least."""


def progress_bar(
    desc: str,
    *,
    total: int | None,
    unit: str = "questions",
    digits: int = 1,
    delay: float | int = 0,
    leave: bool = False,
    shown: bool = True,
) -> Any:
    """Something with `n`, `update(more)`, `set_description_str(desc, refresh=…)`, for a `with` block.

    On a terminal and in a notebook with widgets it is tqdm's bar. Elsewhere (a file, a pipe, a notebook without
    widgets) it is `Lines`: nothing for work of less than `EVERY_S`, then a line every `EVERY_S`.

    Args:
        desc: what is being done.
        total: how much there is to do; None: not known.
        unit: what is counted, in the plural.
        digits: after the point of how much is done.
        delay: seconds before a bar shows.
        leave: a bar stays when it is done.
        shown: False: nothing is ever written.
    """
    if not shown:
        return Lines(desc, total=total, unit=unit, digits=digits, stream=None)
    notebook = _in_notebook()
    if not (_has_widgets() if notebook else _is_terminal(sys.stderr)):
        # a notebook shows standard error in red
        stream = sys.stdout if notebook else sys.stderr
        return Lines(desc, total=total, unit=unit, digits=digits, stream=stream)
    from tqdm.auto import tqdm

    form = f"{{desc}}: {{percentage:3.0f}}%|{{bar}}| {{n:.{digits}f}}/{{total}} {unit} [{{elapsed}}<{{remaining}}]"
    form = form if total else f"{{desc}}: {{n:.{digits}f}} {unit} [{{elapsed}}]"
    return tqdm(desc=desc, total=total, bar_format=form, delay=delay, leave=leave)


class Lines:
    """Progress as plain lines, at most one every `EVERY_S`. `stream` None: silent."""

    def __init__(
        self,
        desc: str,
        *,
        total: int | None,
        unit: str,
        digits: int,
        stream: Any,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.n: float | int = 0
        self.desc, self.total = desc, total
        self._unit, self._digits, self._stream, self._clock = unit, digits, stream, clock
        self._began = self._said = clock()

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def set_description_str(self, desc: str, refresh: bool = True) -> None:
        """What is being done from now on."""
        self.desc = desc

    def update(self, more: float | int = 1) -> None:
        """So much more is done; it is said if nothing was said for long enough."""
        self.n += more
        now = self._clock()
        if self._stream is not None and now - self._said >= EVERY_S:
            self._said = now
            self._stream.write(f"{self._line(now - self._began)}\n")
            self._stream.flush()

    def _line(self, seconds: float | int) -> str:
        done = f"{self.n:.{self._digits}f}"
        if not self.total:
            return f"{self.desc}: {done} {self._unit}, {_spelled(seconds)}"
        share = min(self.n / self.total, 1.0)
        left = f", about {_spelled(seconds / share - seconds)} left" if share else ""
        return f"{self.desc}: {done} of {self.total} {self._unit} ({100 * share:.0f} %), {_spelled(seconds)}{left}"


def _spelled(seconds: float | int) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # none, or closed
        return False


def _in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return "ipykernel" in sys.modules and getattr(shell, "kernel", None) is not None


def hush_tqdm() -> None:
    """In a notebook without widgets tqdm says so, in red, when anything imports it first: import it before, unheard.

    Our bars need no widgets there, and whoever imports transformers did not ask for any.
    """
    if _in_notebook() and "tqdm.auto" not in sys.modules:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import tqdm.auto  # noqa: F401


def _has_widgets() -> bool:
    from tqdm import notebook

    return getattr(notebook, "IProgress", None) is not None
