"""Loading without the bars of transformers, which fill logs: files that lie here are read in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_bars() -> Iterator[None]:
    """Inside the block transformers shows no bars; afterwards it does what it did before."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging

    shown, of_downloads = logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # this switches those of downloads on, too
        (enable_progress_bars if of_downloads else disable_progress_bars)()
