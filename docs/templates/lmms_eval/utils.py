"""What lmms-eval asks about a document of the procedural benchmark, in the words that the bundled models know."""

from __future__ import annotations

import string
from typing import Any

INSTRUCTION = "Only give the best option."


def doc_to_visual(doc: dict[str, Any]) -> list[str]:
    """The path of its clip."""
    return [f"out/shapes/video/moving_direction/{doc['video']}"]


def doc_to_text(doc: dict[str, Any]) -> str:
    """Question, options and instruction, as the template "shapes" has them."""
    options = " ".join(f"({string.ascii_uppercase[i]}) {option}" for i, option in enumerate(doc["candidates"]))
    return f"Question: {doc['question']} Options: {options} \n{INSTRUCTION}"


def doc_to_target(doc: dict[str, Any]) -> str:
    """The letter of the right option."""
    return string.ascii_uppercase[doc["candidates"].index(doc["answer"])]


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """1 if the letter that was written is the right one."""
    return {"accuracy": float(results[0].strip() == doc_to_target(doc))}
