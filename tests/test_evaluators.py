"""A text about a clip, as evaluation tools give it, is asked as our own questions are, with interventions attached.

lmms-eval itself asks in tests/test_lmms_eval.py.
"""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.templates import TEMPLATES

import videolens as vl
from videolens.datasets.shapes import write_shapes
from videolens.errors import VideolensError
from videolens.evaluators.answering import Answering
from videolens.interventions.route_pathway import pathway_from, read_pathway
from videolens.model.generation import follow

TASK = "moving direction"
ASKED = {"begin": "Best option:(", "instruction": "Only give the best option."}
OPEN = {"n_layers": 12, "cross_frame": [2, 3], "video_to_question": [4, 5], "question_to_last": [7, 8]}
SAVED = Path(__file__).parent / "data" / "saved"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six questions in TVBench's layout, with their clips as files."""
    return write_shapes(tmp_path_factory.mktemp("clips"), n=6, tasks=[TASK])


@pytest.fixture(scope="module")
def questions(clips: Path) -> list[vl.Question]:
    return vl.load_dataset(clips, task=TASK)


@pytest.fixture(scope="module")
def texts(clips: Path) -> list[str]:
    """The same questions in the words of the task of lmms-eval in docs/templates."""
    said = runpy.run_path(str(TEMPLATES / "lmms_eval" / "utils.py"))["doc_to_text"]
    return [said(doc) for doc in json.loads((clips / "json" / "moving_direction.json").read_text())]


@pytest.fixture(scope="module")
def paths(clips: Path) -> list[str]:
    listed = json.loads((clips / "json" / "moving_direction.json").read_text())
    return [str(clips / "video" / "moving_direction" / doc["video"]) for doc in listed]


@pytest.fixture
def pathway(tmp_path: Path) -> Path:
    (tmp_path / "pathway.yaml").write_text(json.dumps(OPEN))
    return tmp_path / "pathway.yaml"


def asking(**given: Any) -> Answering:
    return Answering({"pretrained": "shapes"} | ASKED | given)


def test_a_text_is_the_prompt_of_the_question_that_it_says(
    questions: list[vl.Question], texts: list[str], paths: list[str]
) -> None:
    one = asking()
    for question, text, path in zip(questions, texts, paths, strict=True):
        ours, theirs = one.model.prompt(question), one.prompt(text, [path])
        assert torch.equal(ours.input_ids, theirs.input_ids) and torch.equal(ours.residual, theirs.residual)
        for part in ("part P", "part V", "part Q", "part A", "video", "last"):
            assert torch.equal(ours.tokens[part], theirs.tokens[part]), part
    # without naming the instruction, it is part of what is asked
    whole = Answering({"pretrained": "shapes", "begin": ASKED["begin"]}).prompt(texts[0], paths[0])
    assert torch.equal(whole.input_ids, one.prompt(texts[0], paths[0]).input_ids)
    assert len(whole.tokens["part Q"]) > len(one.prompt(texts[0], paths[0]).tokens["part Q"])


def test_only_the_words_around_a_message_are_the_templates(paths: list[str]) -> None:
    prompt = Answering({"pretrained": "shapes"}).prompt("What moves?", paths[0])
    assert prompt.text is not None and prompt.text.endswith("USER: What moves? ASSISTANT:")
    braces = Answering({"pretrained": "shapes", "begin": "{stem}"}).prompt("a {stem} b", paths[0])
    assert braces.text is not None and braces.text.endswith("USER: a {stem} b ASSISTANT:{stem}")


def test_answers_are_those_of_measure_accuracy_and_of_evaluate_pathway(
    questions: list[vl.Question], texts: list[str], paths: list[str], pathway: Path
) -> None:
    full, cut, fast = asking(), asking(pathway=str(pathway)), asking(pathway=str(pathway), compiled=True)

    def letters(one: Answering) -> list[str]:
        how = {"max_new_tokens": 1, "do_sample": False, "temperature": 0, "until": ["\n\n"]}
        return [one.write(text, [path], how) for text, path in zip(texts, paths, strict=True)]

    assert letters(full) == vl.measure_accuracy(full.model, questions).table["choice"].tolist()
    along = vl.evaluate_pathway(full.model, questions, OPEN, random=[]).table
    chosen = along[along["condition"] == "pathway"]["choice"].tolist()
    assert letters(cut) == letters(fast) == chosen
    assert chosen != letters(full), "this pathway is too small for the answers to stay"


def test_interventions_come_from_a_file(tmp_path: Path, texts: list[str], paths: list[str]) -> None:
    plain = [{"route": "video -> question", "layers": list(range(12))}, "cross-frame"]
    (tmp_path / "cuts.json").write_text(json.dumps(plain))
    one = asking(interventions=str(tmp_path / "cuts.json"))
    cuts = [vl.Knockout.route(route, layers=range(12)) for route in ("video -> question", "cross-frame")]
    prompt = one.prompt(texts[0], paths[0])
    expected = one.model.generate(prompt, 3, cuts).text
    assert one.write(texts[0], paths[0], {"max_new_tokens": 3}) == expected
    assert one.write(texts[0], paths[0], {"max_new_tokens": 3}) != one.model.generate(prompt, 3).text


def test_settings_of_a_generation(texts: list[str], paths: list[str]) -> None:
    one = asking()
    whole = one.write(texts[0], paths[0], {"max_new_tokens": 6, "num_beams": 1, "top_p": None})
    assert whole == one.model.generate(one.prompt(texts[0], paths[0]), 6).text
    ended = one.write(texts[0], paths[0], {"max_gen_toks": 6, "until": [whole[1:], ""]})
    assert ended == whole[: whole.index(whole[1:])]
    torch.manual_seed(1)
    drawn = [one.write(texts[0], paths[0], {"max_new_tokens": 8, "temperature": 50.0}) for _ in range(3)]
    assert len(set(drawn)) > 1, "at such a temperature nothing is written twice"
    assert whole == one.write(texts[0], paths[0], {"max_new_tokens": 6, "temperature": 0.0, "do_sample": True})
    with pytest.raises(VideolensError, match=r"num_beams = 4: there is no beam search"):
        one.write(texts[0], paths[0], {"num_beams": 4})
    with pytest.raises(VideolensError, match="temperature"):
        one.write(texts[0], paths[0], {"temperature": -1.0})
    # as many as the context holds where a task says nothing
    assert isinstance(one.write(texts[0], paths[0], {}), str)


def test_the_loss_is_that_of_the_grown_prompt(texts: list[str], paths: list[str], pathway: Path) -> None:
    """Against one plain forward of all that there is: the answer's tokens are part of part A either way."""
    for one in (asking(), asking(pathway=str(pathway))):
        prompt = one.prompt(texts[0], paths[0])
        longer = one.prompt(texts[0], paths[0], "B ) left")
        n = prompt.shape[1]
        ids = longer.input_ids[0, n:]
        assert len(ids) >= 2
        hooks = [pair for each in one._acting for pair in each.hooks(longer)]
        logits = one.model.run_with_hooks(longer, fwd_hooks=hooks)[0, n - 1 : -1].float()
        likely = one.model.possible(logits).log_softmax(-1).gather(-1, ids[:, None])[:, 0]
        loss, greedy = one.loss(texts[0], paths[0], "B ) left")
        assert loss == pytest.approx(-float(likely.mean()), abs=1e-4)
        assert greedy == bool((one.model.possible(logits).argmax(-1) == ids).all())
    found = [asking().loss(texts[0], paths[0], letter) for letter in "ABCD"]
    assert sum(greedy for _, greedy in found) == 1 and min(found)[1], "the greedy answer is the likeliest"


def test_follow_gives_what_greedy_decoding_writes(texts: list[str], paths: list[str]) -> None:
    one = asking()
    prompt = one.prompt(texts[0], paths[0])
    tokens = one.model.generate(prompt, 4, stop_at_eos=False).tokens[0].tolist()
    likely, greedy = follow(one.model, prompt, tokens)
    assert greedy and likely.shape == (4,) and bool((likely <= 0).all())
    assert not follow(one.model, prompt, [tokens[0] + 1])[1]


def test_a_pathway_is_read_from_files_of_every_kind(tmp_path: Path) -> None:
    (tmp_path / "routes.json").write_text(json.dumps({"n_layers": 12, "closed": {"part V -> part Q": [3]}}))
    assert read_pathway(tmp_path / "routes.json").to_dict()["closed"] == {"part V -> part Q": [3]}
    (tmp_path / "preset.yaml").write_text("preset: LLaVA-NeXT-7B-Video-FT\n")
    assert read_pathway(tmp_path / "preset.yaml") == vl.Pathway.published("LLaVA-NeXT-7B-Video-FT")
    made = json.loads((SAVED / "pathway" / "pathway.json").read_text())
    assert read_pathway(SAVED / "pathway" / "pathway.json") == pathway_from(made["pathway"])
    search = json.loads((SAVED / "search" / "search.json").read_text())
    chosen = read_pathway(SAVED / "search" / "search.json")
    assert chosen == pathway_from(search["pathways"][search["chosen"]]) and len(search["pathways"]) > 1
    stress = json.loads((SAVED / "stress" / "stress.json").read_text())
    assert read_pathway(SAVED / "stress" / "stress.json") == pathway_from(stress["pathways"]["pathway"])


def test_bad_arguments_are_one_clear_error(tmp_path: Path) -> None:
    shallow = tmp_path / "shallow.yaml"
    shallow.write_text("{n_layers: 4, cross_frame: [1]}")
    several = tmp_path / "several.json"
    several.write_text(json.dumps({"pathways": {"a": OPEN, "b": OPEN}}))
    other = tmp_path / "other.yaml"
    other.write_text("- {route: cross-frame}")
    deep = tmp_path / "deep.yaml"
    deep.write_text("{route: cross-frame, layers: [12]}")
    for given, message in (
        ({"pretrained": None}, "pretrained"),
        ({"pathwya": "x"}, "unknown argument 'pathwya'; did you mean 'pathway'"),
        ({"n_frames": "eight"}, "n_frames: it takes a whole number, got 'eight'"),
        ({"n_frames": 0}, "n_frames = 0"),
        ({"pathway": "nowhere.yaml"}, "nowhere.yaml cannot be read"),
        ({"pathway": str(shallow)}, "is for 4 layers, the model has 12"),
        ({"pathway": str(several)}, "holds 2 pathways (a, b) and does not say which is chosen"),
        ({"pathway": str(other)}, "holds a list, expected a pathway"),
        ({"interventions": str(other)}, "as plain data an intervention has a route, layers"),
        ({"interventions": str(deep)}, "12"),
        ({"compiled": True}, "compiled=True needs something that is left out"),
        ({"template": "vicunia"}, "did you mean 'vicuna'"),
        ({"pretrained": "shape"}, "unknown model 'shape'"),
    ):
        with pytest.raises(VideolensError) as raised:
            Answering({"pretrained": "shapes"} | given)
        assert message in str(raised.value), given
    with pytest.raises(VideolensError, match="the argument 'pretrained' is missing"):
        Answering({})


def test_bad_requests_are_one_clear_error(texts: list[str], paths: list[str], tmp_path: Path) -> None:
    one = asking()
    for text, visuals, message in (
        (texts[0], [], "it comes with no video"),
        (texts[0], None, "it comes with no video"),
        (texts[0], paths[:2], "it comes with 2 of str"),
        (texts[0], [torch.zeros(3)], r"it comes with something else \(Tensor\)"),
        (texts[0], [str(tmp_path / "nowhere.mp4")], "nowhere.mp4"),
        ("What moves?", paths[:1], "the text ends with 'What moves\\?', not with a question and the instruction"),
        (ASKED["instruction"], paths[:1], "not with a question and the instruction"),
    ):
        with pytest.raises(VideolensError, match=message):
            one.write(text, visuals, {})
    with pytest.raises(VideolensError, match="has no words"):
        one.loss(texts[0], paths[0], "  ")
