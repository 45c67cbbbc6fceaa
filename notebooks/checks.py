"""Checks of the notebooks' exercises: each says what is wrong with an answer, and nothing of the solution."""

from __future__ import annotations

from typing import Any

import torch

import videolens as vl


def _todo(answer: Any) -> bool:
    if answer is None:
        print("Not answered yet: put your answer in the place of None, and run the cell again.")
    return answer is None


def route(answer: str | None, model: vl.HookedVideoTransformer, question: vl.Question) -> None:
    """Tour 1: a route that, cut in all layers, takes the answer away, and is none of those used above."""
    if _todo(answer):
        return
    assert answer not in ("cross-frame", "video -> question"), f"{answer!r} was cut above: find another one"
    prompt = model.prompt(question)
    cut = vl.Knockout.route(answer, layers=range(model.cfg.n_layers))
    before = model(prompt)[0, -1].softmax(-1)[prompt.answer_token]
    after = model.run_with_hooks(prompt, fwd_hooks=cut.hooks(prompt))[0, -1].softmax(-1)[prompt.answer_token]
    assert after < 0.5 * before, (
        f"with {answer!r} cut the right answer still has {float(after):.2f} of {float(before):.2f}"
    )
    print(f"Right: {float(before):.2f} → {float(after):.2f}")


def positions(answer: Any, model: vl.HookedVideoTransformer, question: vl.Question) -> None:
    """Tour 2: the positions of the video's last frame."""
    if _todo(answer):
        return
    tokens = model.prompt(question).tokens
    wanted = tokens[f"frame {tokens.grid[0] - 1}"]
    found = torch.as_tensor(answer)
    assert found.shape == wanted.shape, f"that is {tuple(found.shape)}, and a frame has {len(wanted)} tokens"
    assert torch.equal(found, wanted), (
        f"it begins at {int(found[0])}: frames count from 0, and there are {tokens.grid[0]}"
    )
    print("Right.")


def pathway(answer: vl.Pathway | None, model: vl.HookedVideoTransformer, questions: list[vl.Question]) -> None:
    """Tour 3: a pathway along which all answers stay, with fewer than half of all pairs of layer and route open."""
    if _todo(answer):
        return
    n = answer.n_layers
    assert n == model.cfg.n_layers, f"it is for {n} layers, and the model has {model.cfg.n_layers}"
    n_open = len(answer.cross_frame) + len(answer.video_to_question) + len(answer.question_to_last)
    assert n_open < 1.5 * n, f"{n_open} of {3 * n} pairs of layer and route are open: close some more"
    lost = []
    for question in questions:
        prompt = model.prompt(question)
        logits = model.run_with_hooks(prompt, fwd_hooks=answer.hooks(prompt))[0, -1]
        if int(logits.argmax()) != prompt.answer_token:
            lost.append(question.id)
    assert not lost, f"along it {len(lost)} of {len(questions)} answers are lost: {lost}"
    print(f"Right: {n_open} of {3 * n} are open, and all {len(questions)} answers stay")
