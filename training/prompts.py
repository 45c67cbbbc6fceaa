"""The benchmark's questions as text: what stands before the answer, and the answer. Kept equal to the package's template by a test."""

from __future__ import annotations

from collections.abc import Sequence

from videolens.datasets.shapes_tasks import Ask

PREFIX = "Watch the video and answer the question.\n USER: <video>"
"""Shared by all questions about one clip."""


def multiple_choice(ask: Ask, options: Sequence[str]) -> tuple[str, str]:
    """Text after the video up to the answer, and the letter."""
    listed = " ".join(f"({chr(65 + i)}) {option}" for i, option in enumerate(options))
    text = f"\n USER: Question: {ask.stem} Options: {listed} \nOnly give the best option. ASSISTANT:Best option:("
    return text, chr(65 + list(options).index(ask.answer))


def open_ended(ask: Ask) -> tuple[str, str]:
    """Text after the video up to the answer, and the answer in words."""
    return f"\n USER: Question: {ask.stem} ASSISTANT: {ask.completion}", " " + ask.answer
