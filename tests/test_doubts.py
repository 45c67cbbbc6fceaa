"""An answer that may be none: a page about one's own clip says so, before anybody believes its curves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import videolens as vl
from videolens.datasets.shapes_tasks import TASKS
from videolens.datasets.shapes_words import foreign_words
from videolens.engine import last_logits
from videolens.experiments.flow.result import FlowMap
from videolens.pages.doubts import doubts, doubts_section
from videolens.pages.own_clip import map_own_clip


def found(model: vl.HookedVideoTransformer, question: vl.Question, name: str = "shapes") -> list[str]:
    return doubts(model, name, question, model.prompt(question))


def test_questions_of_the_benchmark_are_its_own() -> None:
    for task in TASKS:
        for question in vl.load_dataset("shapes", task=task, split="test", n=6):
            assert question.options is not None
            assert foreign_words(question.stem, question.options) == [], question.stem
    assert foreign_words("Which way does the YELLOW circle move?", ["left"]) == []
    assert foreign_words("What does the man do?", ["left", "He runs"]) == ["What does the man do?", "He runs"]


def test_what_the_bundled_model_knows_is_not_doubted(shapes: vl.HookedVideoTransformer) -> None:
    for question in vl.load_dataset("shapes", task="moving direction", split="test", n=5):
        assert found(shapes, question) == []


def test_a_foreign_question_is_doubted_only_of_a_bundled_model(shapes: vl.HookedVideoTransformer) -> None:
    video = vl.load_dataset("shapes", task="colour", n=1)[0].video
    question = vl.Question(video, "What does the man do next?", ["left", "opens the door"])
    said = " ".join(found(shapes, question))
    assert "never asked this: “What does the man do next?”, “opens the door”" in said
    assert "never asked" not in " ".join(found(shapes, question, name="/models/some-7b"))
    many = vl.Question(video, "What does the man do next?", ["sits down", "opens the door", "waits", "leaves"])
    assert "“opens the door” and 2 more. Its answer" in " ".join(found(shapes, many))


def test_no_option_first_and_a_low_probability(
    shapes: vl.HookedVideoTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = vl.load_dataset("shapes", task="moving direction", split="test", n=1)[0]
    prompt = shapes.prompt(question)
    other = next(i for i in range(shapes.cfg.d_vocab) if i not in prompt.option_tokens and len(shapes.shown(i)) > 1)

    def flat(normal: torch.Tensor, hook: object) -> torch.Tensor:
        return normal * 0.01

    with shapes.hooks(fwd_hooks=[("ln_final.hook_normalized", flat)]):
        said = found(shapes, question)
        assert any(text.startswith("The answer has a probability of 0.0") for text in said), said
    logits = last_logits(shapes, prompt) + 40 * torch.nn.functional.one_hot(torch.tensor(other), shapes.cfg.d_vocab)
    monkeypatch.setattr("videolens.pages.doubts.last_logits", lambda *asked: logits)
    said = found(shapes, question)
    assert f"No option is ranked first: the model would rather write {shapes.shown(other)!r}" in said[0]
    assert len(said) == 2 and "probability of" in said[1]


def test_the_page_and_the_figures_say_so(tmp_path: Path) -> None:
    clip = vl.load_dataset("shapes", task="colour", n=1)[0].video
    question = vl.Question(clip, "Is <b>this</b> a man?", ["yes", "no"])
    made = map_own_clip("shapes", question, tmp_path, routes=["video -> true option"], progress=False)
    page = made.page.read_text(encoding="utf-8")
    assert made.doubts and "Read this first" in page and "“Is &lt;b&gt;this&lt;/b&gt; a man?”" in page
    saved = FlowMap.load(tmp_path)
    assert saved.settings.own_choice
    for kind in ("into the true option", "heat map"):
        said = saved.figure(kind).get_supxlabel()
        assert "bootstrap" not in said and "chance alone" not in said, "of one question"
    assert "“true option” is the model's own choice" in saved.figure().get_supxlabel()


def test_nothing_doubtful_shows_nothing(tmp_path: Path) -> None:
    assert str(doubts_section([])).strip() == ""
    question = vl.load_dataset("shapes", task="moving direction", split="test", n=1)[0]
    made = map_own_clip("shapes", question, tmp_path, routes=["video -> true option"], progress=False)
    assert made.doubts == () and "Read this first" not in made.page.read_text(encoding="utf-8")
    assert "own choice" not in made.flow.figure().get_supxlabel()
