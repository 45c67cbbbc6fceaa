"""The course: exercises' solutions pass their checks and wrong answers do not; what a notebook prints is compared."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from run_notebooks import alike, differences

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
sys.path.insert(0, str(NOTEBOOKS))

import checks  # noqa: E402

import videolens as vl  # noqa: E402


def cells(name: str) -> list[dict[str, Any]]:
    return json.loads((NOTEBOOKS / name).read_text())["cells"]


@pytest.fixture(scope="module")
def tour() -> dict[str, Any]:
    """What the tour's names are when its exercises begin, as far as they need them."""
    model = vl.HookedVideoTransformer.from_pretrained("shapes")
    questions = vl.load_dataset("shapes", split="test", task="moving direction", n=5)
    prompt = model.prompt(questions[0])
    return {
        "vl": vl,
        "checks": checks,
        "model": model,
        "questions": questions,
        "question": questions[0],
        "prompt": prompt,
    }


def test_the_tours_solutions_pass_their_checks(tour, capsys) -> None:
    text = "\n".join("".join(cell["source"]) for cell in cells("00_tour_in_ten_minutes.ipynb"))
    solutions = re.findall(r"<summary>Solution</summary>\s+```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(solutions) == 3
    for solution in solutions:
        exec(solution, dict(tour))
    assert capsys.readouterr().out.count("Right") == 3


def test_wrong_answers_are_told_what_is_wrong(tour) -> None:
    model, question, questions = tour["model"], tour["question"], tour["questions"]
    with pytest.raises(AssertionError, match="was cut above"):
        checks.route("cross-frame", model, question)
    with pytest.raises(AssertionError, match="still has"):
        checks.route("last -> last", model, question)
    with pytest.raises(AssertionError, match="a frame has 16 tokens"):
        checks.positions(tour["prompt"].tokens["video"], model, question)
    with pytest.raises(AssertionError, match="frames count from 0"):
        checks.positions(tour["prompt"].tokens["frame 0"], model, question)
    every = range(12)
    with pytest.raises(AssertionError, match="close some more"):
        checks.pathway(vl.Pathway.closed(n_layers=12, cross_frame=every, video_to_question=every), model, questions)
    with pytest.raises(AssertionError, match="answers are lost"):
        checks.pathway(vl.Pathway.closed(n_layers=12), model, questions)


def test_an_exercise_that_is_not_done_yet_is_no_error(tour, capsys) -> None:
    checks.route(None, tour["model"], tour["question"])
    checks.positions(None, tour["model"], tour["question"])
    checks.pathway(None, tour["model"], tour["questions"])
    assert capsys.readouterr().out.count("Not answered yet") == 3


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("p 0.981", "p 0.985", True),
        ("p 0.98", "p 0.88", False),
        ("p −0.98", "p 0.98", False),
        ("12 of 100", "12 of 101", True),
        ("left 0.5", "right 0.5", False),
        ("a\n", "a\nb\n", False),
    ],
)
def test_printed_numbers_are_compared_within_a_tolerance(old: str, new: str, same: bool) -> None:
    assert alike(old, new) is same


def test_a_notebook_that_prints_something_else_is_found() -> None:
    def made(text: str | None) -> dict[str, Any]:
        outputs = [] if text is None else [{"output_type": "stream", "name": "stdout", "text": text}]
        return {"cells": [{"cell_type": "code", "outputs": outputs}]}

    assert differences(made("p 0.5"), made("p 0.5")) == []
    [wrong] = differences(made("p 0.5"), made("p 0.9"))
    assert "p 0.9" in wrong and "p 0.5" in wrong
    assert differences(made(None), made("p 0.9")) == [], "committed without outputs: nothing to compare with"
