"""Attention maps: they are rows of the whole pattern, words are found where they stand, and a map can be written, read
and drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.asking import in_parts
from helpers.prompts import tiny_model, tiny_prompt
from helpers.report import letter_model, questions

import videolens as vl
from videolens import Knockout
from videolens.errors import SelectionError, VideolensError
from videolens.experiments.attention_map.experiment import AttentionMapExperiment
from videolens.experiments.attention_map.measures import on_frames, on_video, spread
from videolens.experiments.attention_map.patterns import read_rows
from videolens.experiments.attention_map.result import AttentionRow
from videolens.experiments.attention_map.words import rows_of
from videolens.experiments.common.experiment import Experiment

N_LAYERS, N_HEADS = 3, 4


@pytest.fixture(scope="module")
def asked() -> tuple[vl.HookedVideoTransformer, list[vl.Question]]:
    return letter_model(), questions()


@pytest.fixture(scope="module")
def found(asked) -> vl.AttentionMap:
    return vl.attention_map(*asked, ["true option", "left", "last"], progress=False)


def patterns(model, prompt, cut=()) -> torch.Tensor:
    """[layer head query key] of the whole prompt."""
    hooks = [hook for each in cut for hook in each.hooks(prompt)]
    with torch.no_grad(), model.hooks(fwd_hooks=hooks):
        _, cache = model.run_with_cache(prompt, names_filter=lambda name: name.endswith("hook_pattern"))
    return torch.stack([cache[f"blocks.{layer}.attn.hook_pattern"][0] for layer in range(N_LAYERS)]).double()


# -- the numbers


def test_a_map_is_the_mean_over_a_words_rows_of_the_whole_pattern(asked, found) -> None:
    model, several = asked
    cut = [Knockout.route("cross-frame", layers=range(N_LAYERS))]
    for question in several[:3]:
        prompt = model.prompt(question)
        for word in found.words:
            rows, video = rows_of(prompt, word, model.tokenizer), prompt.tokens["video"]
            for blocked, knockouts in ((False, []), (True, cut)):
                whole = patterns(model, prompt, knockouts)[:, :, rows].mean(2)[..., video]
                maps = found.maps(word, question=question.id, blocked=blocked)
                assert maps.shape == (N_LAYERS, N_HEADS, *prompt.tokens.grid)
                assert np.allclose(maps.reshape(N_LAYERS, N_HEADS, -1), whole.numpy(), atol=1e-6)
    assert not np.allclose(found.maps("last"), found.maps("last", blocked=True), atol=1e-4)


def test_a_rows_attention_sums_to_one_over_the_video_and_the_rest() -> None:
    model = tiny_model()
    prompt = tiny_prompt(model)
    places = [prompt.tokens[name] for name in ("stem", "last", "true option")]
    whole = read_rows(model, prompt, places, layers=range(N_LAYERS))
    assert torch.allclose(whole.sum(-1), torch.ones(N_LAYERS, 3, N_HEADS, dtype=torch.float64), atol=1e-6)
    video = prompt.tokens["video"]
    of_video = read_rows(model, prompt, places, keys=video, layers=[2, 0])
    assert torch.allclose(of_video, whole[[2, 0]][..., video], atol=1e-9)
    rest = torch.isin(torch.arange(prompt.shape[1]), video).logical_not()
    assert torch.allclose(of_video.sum(-1) + whole[[2, 0]][..., rest].sum(-1), torch.tensor(1.0).double(), atol=1e-6)


def test_what_is_cut_for_the_word_itself_is_exactly_zero() -> None:
    model = tiny_model()
    prompt = tiny_prompt(model)
    cut = [Knockout("frame 1", "stem", 1), Knockout("video", "last", 2)]
    found = vl.attention_map(model, prompt, ["stem", "last"], interventions=cut, progress=False)
    stem, last = (found.maps(word, blocked=True) for word in ("stem", "last"))
    assert (stem[1][:, 1] == 0).all() and (stem[1][:, [0, 2]] > 0).all() and (stem[[0, 2]] > 0).all()
    assert (last[2] == 0).all() and (last[:2] > 0).all() and (found.maps("last") > 0).all()
    assert np.array_equal(found.maps("last")[0], last[0]), "before the first cut nothing changes"
    assert found.settings.blocked == "frame 1 ↛ stem, layers 2; video ↛ last, layers 3"
    share = found.summary().query("task == 'all' and word == 'last' and layer == 2").iloc[0]
    assert share["share_blocked"] == 0 and share["change"] == -share["share"] < 0 and np.isnan(share["spread_blocked"])


def test_routes_by_name_are_knockouts_in_all_layers_or_in_some() -> None:
    model = tiny_model()
    prompt = tiny_prompt(model)
    by_name = vl.attention_map(
        model, prompt, "last", interventions=["cross-frame", "video -> stem"], blocked_layers=[1], progress=False
    )
    cut = [Knockout.route(route, layers=[1]) for route in ("cross-frame", "video -> stem")]
    by_hand = vl.attention_map(model, prompt, "last", interventions=cut, progress=False)
    assert by_name.table.equals(by_hand.table)
    default = vl.attention_map(model, prompt, "last", progress=False)
    assert default.settings.blocked == "cross-frame, all layers" and not default.table.equals(by_name.table)


def test_layers_and_heads_are_parts_of_the_whole(asked, found) -> None:
    model, several = asked
    part = vl.attention_map(model, several, "last", layers=[2], heads=[3, 1], progress=False)
    assert np.allclose(part.maps("last"), found.maps("last")[[2]][:, [1, 3]], atol=1e-7)
    mean = vl.attention_map(model, several, "last", heads="mean", progress=False)
    assert mean.table["head"].unique().tolist() == [-1]
    assert np.allclose(mean.maps("last")[:, 0], found.maps("last").mean(1), atol=1e-6)
    columns = ["share", "share_low", "spread", "change_high"]
    same = found.summary().query("word == 'last'")[columns].to_numpy()
    assert np.allclose(mean.summary()[columns], same, rtol=1e-4)


# -- words


class Pieces:
    """A tokenizer whose tokens are these pieces of text."""

    def __init__(self, *pieces: str) -> None:
        self.pieces = pieces

    def decode(self, ids: list[int], **_) -> str:
        return "".join(self.pieces[i] for i in ids)


def test_a_word_is_all_tokens_that_hold_a_character_of_it() -> None:
    prompt = tiny_prompt(tiny_model(), options=False)
    tokens = vl.TokenMap.from_spans(25, {"stem": range(18, 25)}, grid=prompt.tokens.grid, video=range(4, 16))
    ids = prompt.input_ids.clone()
    ids[0, 18:] = torch.arange(7)
    prompt, tokenizer = (
        replace(prompt, tokens=tokens, input_ids=ids),
        Pieces("Whi", "ch", " s", "ea", " se", "al", " sea?"),
    )

    def at(word: str, **how) -> list[int]:
        return rows_of(prompt, word, tokenizer, **how).tolist()

    assert at("which") == [18, 19] and at("SEAL") == [22, 23] and at("sea seal") == [20, 21, 22, 23] and at("?") == [24]
    assert at("sea") == [20, 21, 24], "all occurrences, but not the beginning of another word"
    assert at("sea", occurrence=0) == [20, 21] and at("sea", occurrence=-1) == [24]
    with pytest.raises(SelectionError, match="occurs 2 times: occurrence=2"):
        at("sea", occurrence=2)
    with pytest.raises(SelectionError, match=r"no word 'see'; its words: 'Which', 'sea', 'seal'. Selections"):
        at("see")
    assert at("last") == [24] and at("stem | last") == list(range(18, 25)) and at("frame 1") == list(range(8, 12))
    with pytest.raises(SelectionError, match="no word 'last'"):
        at("word last")
    with pytest.raises(SelectionError, match="without a tokenizer"):
        rows_of(prompt, "sea", None)


def test_words_of_real_prompts(asked) -> None:
    model, several = asked
    prompt = model.prompt(several[0])  # which way does the red ball move ? (A) left (B) right (C) up (D) down
    texts = prompt.tokens.texts
    for word, option in (("left", "A"), ("right", "B"), ("up", "C")):
        [row] = rows_of(prompt, word, model.tokenizer).tolist()
        assert texts[row] == word and row in prompt.tokens[f"option {option}"].tolist()
    assert [texts[row] for row in rows_of(prompt, "red ball", model.tokenizer).tolist()] == ["red", "ball"]
    with pytest.raises(SelectionError, match="no word 'best'"):
        rows_of(prompt, "best", model.tokenizer)  # of the instruction, not of the question


def test_a_question_without_the_word_is_recorded(asked, found) -> None:
    model, several = asked
    mixed = vl.attention_map(model, several, ["red", "last"], progress=False)
    assert mixed.n == 6 and len(mixed.video_share("red")) == 3 and len(mixed.video_share("last")) == 6
    [left_out] = mixed.skipped().to_dict("records")
    assert left_out == {
        "task": "moving", "word": "red", "reason": "the question has no word 'red'", "questions": 3
    }  # fmt: skip
    with pytest.raises(
        SelectionError, match=r"no question has 'rod': the question has no word 'rod'; its words: 'which'"
    ):
        vl.attention_map(model, several, ["last", "rod"], progress=False)
    with pytest.raises(SelectionError, match="other questions only"):
        mixed.maps("red", question="q1")


# -- measures


def test_measures_on_maps_solved_by_hand() -> None:
    maps = np.zeros((3, 2, 2, 1, 2))
    maps[0, 0, 0, 0, 0], maps[0, 1, 1, 0, 1] = 0.8, 0.2  # two heads, one token each
    maps[1] = 0.05  # even
    assert np.allclose(on_video(maps), [0.5, 0.2, 0])
    assert np.allclose(on_frames(maps), [[0.4, 0.1], [0.1, 0.1], [0, 0]])
    expected = np.exp(-(0.8 * np.log(0.8) + 0.2 * np.log(0.2)))
    assert np.allclose(spread(maps), [expected, 4, np.nan], equal_nan=True)


def test_the_summary_says_means_and_intervals_over_questions(found) -> None:
    table = found.summary()
    assert len(table) == 2 * len(found.words) * N_LAYERS and set(table["task"]) == {"all", "moving"}
    share = found.video_share("left")
    row = table.query("task == 'all' and word == 'left' and layer == 1").iloc[0]
    assert row["n"] == len(share) == 6 and row["share"] == pytest.approx(share[:, 1].mean())
    assert share[:, 1].min() <= row["share_low"] < row["share"] < row["share_high"] <= share[:, 1].max()
    frames = found.by_frame("left")
    assert np.allclose(frames.groupby("layer")["share"].sum(), share.mean(0)) and (frames["n"] == 6).all()


# -- the result


def test_every_row_is_there_in_order(found) -> None:
    table = found.to_dataframe()
    assert tuple(table.columns) == AttentionRow._fields and len(table) == 6 * 3 * N_LAYERS * N_HEADS * 12
    with pytest.raises(VideolensError, match="some are missing"):
        replace(found, table=table.drop(index=7).reset_index(drop=True))
    with pytest.raises(VideolensError, match="share of 1"):
        replace(found, table=table.assign(attention=table["attention"] + 0.2))
    with pytest.raises(VideolensError, match="twice"):
        replace(found, table=table.replace({"question": {"q1": "q0"}}))
    with pytest.raises(VideolensError, match="columns"):
        replace(found, table=table.drop(columns="head"))


def test_saved_and_read_it_is_the_same(found, tmp_path: Path) -> None:
    again = vl.AttentionMap.load(found.save(tmp_path / "map"))
    assert again.table.equals(found.table) and again.clips.equals(found.clips) and again.settings == found.settings
    with pytest.raises(VideolensError, match="overwrite=True"):
        found.save(tmp_path / "map")
    assert found.settings.n_asked == 6 and found.settings.versions["videolens"] == vl.__version__
    assert "6 of 6 questions" in repr(found)


def test_parts_of_the_questions_put_together_are_the_whole(asked, found) -> None:
    model, several = asked
    experiment = AttentionMapExperiment(model, words=["true option", "left", "last"])
    assert isinstance(experiment, Experiment)
    for _ in range(2):  # nothing is kept between questions
        parts = in_parts(experiment, several)
        assert parts.table.equals(found.table) and parts.n == found.n
        assert parts.clips["question"].nunique() == 6, "the first four of each part"
    assert found.clips["question"].unique().tolist() == ["q0", "q1", "q2", "q3"]


def test_what_is_missing_in_all_parts_is_said_with_the_words_that_are_there(asked) -> None:
    model, several = asked
    mixed = in_parts(AttentionMapExperiment(model, words=["red", "last"]), several)
    assert mixed.skipped()["reason"].tolist() == ["the question has no word 'red'"]
    with pytest.raises(SelectionError, match=r"no question has 'rod': .*; its words: 'which'.*'red', 'ball'"):
        in_parts(AttentionMapExperiment(model, words=["rod"]), several)
    with pytest.raises(VideolensError, match=r"none of the 6 questions is left with samples='wrong': .*not known"):
        unknown = [replace(each, answer=None, reversed_answer=None) for each in several]
        in_parts(AttentionMapExperiment(model, words=["red"], samples="wrong"), unknown)


def test_interventions_may_be_plain_data_and_hook_functions(asked) -> None:
    model, several = asked
    data = {"route": "cross-frame", "layers": [0, 1, 2]}
    by_data = vl.attention_map(model, several[:1], "last", interventions=data, progress=False)
    hooks = Knockout.route("cross-frame", layers=range(N_LAYERS)).hooks(model.prompt(several[0]))
    by_hooks = vl.attention_map(model, several[:1], "last", interventions=list(hooks), progress=False)
    by_name = vl.attention_map(model, several[:1], "last", interventions="cross-frame", progress=False)
    assert by_data.table.equals(by_name.table) and by_hooks.table.equals(by_name.table)
    assert (by_data.settings.blocked, by_hooks.settings.blocked) == ("cross-frame, all layers", "hook functions")


def test_samples_are_chosen_by_the_models_answer(asked) -> None:
    model, several = asked
    kept = {}
    for samples in ("correct", "wrong"):
        try:
            kept[samples] = vl.attention_map(model, several, "last", samples=samples, progress=False).questions
        except VideolensError as error:
            assert "answered" in str(error)
            kept[samples] = []
    assert sorted(kept["correct"] + kept["wrong"]) == [f"q{i}" for i in range(6)]
    rightly = [
        question.id
        for question in several
        if int(model(prompt := model.prompt(question))[0, -1].argmax()) == prompt.answer_token
    ]
    assert kept["correct"] == rightly


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"words": []}, "name words of the question"),
        ({"words": ["last", "last"]}, "twice"),
        ({"interventions": "cros-frame"}, "cross-frame"),
        ({"interventions": []}, "give at least one"),
        ({"interventions": Knockout("video", "last", 7)}, "layer 7 is outside the model"),
        ({"layers": 3}, "layer 3 is outside"),
        ({"heads": []}, "empty"),
        ({"heads": "max"}, "choice of heads"),
        ({"samples": "right"}, "choice of samples"),
    ],
)
def test_what_cannot_be_asked(asked, how, match) -> None:
    with pytest.raises(VideolensError, match=match):
        AttentionMapExperiment(asked[0], **how)


# -- figures


def test_the_figure_shows_both_runs_over_the_frames(found) -> None:
    figure = found.figure(word="left", question="q2", layers=[0, 2])
    panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    assert len(panels) == 3 * (1 + 2 * 2), "frames, then two rows a layer"
    labels = [axes.get_ylabel() for axes in panels if axes.get_ylabel()]
    assert labels == ["frames", "layer 1\nunblocked", "layer 1\nblocked", "layer 3\nunblocked", "layer 3\nblocked"]
    maps = found.maps("left", question="q2", blocked=True)[2].mean(0)
    drawn = panels[-1].images
    assert len(drawn) == 2, "the frame, and the map over it"
    assert np.allclose(drawn[1].get_array(), np.log10(maps[2] + 5e-5))
    scales = {(each.norm.vmin, each.norm.vmax) for axes in panels[3:] for each in axes.images[1:]}
    assert len(scales) == 1, "one colour scale"
    figure.canvas.draw()


def test_figures_of_heads_means_and_shares(asked, found) -> None:
    largest = found.figure(word="last", question="mean", heads="max", scale="linear", layers=1)
    panels = [axes for axes in largest.axes if axes.get_label() != "<colorbar>"]
    assert len(panels) == 6 and np.allclose(panels[0].images[0].get_array(), found.maps("last")[1].max(0)[0])
    one = found.figure(heads=2, question="q1")
    assert "head 2" in one.get_supxlabel() and "Question q1, one of 6" in one.get_supxlabel()
    shares = found.figure("share")
    assert [axes.get_title(loc="left") for axes in shares.axes] == [f"{word}, n = 6" for word in found.words]
    assert np.allclose(shares.axes[1].lines[0].get_ydata(), 100 * found.video_share("left").mean(0))
    assert len(shares.axes[1].collections) == 2, "a band each"
    for how, match in (
        ({"word": "lest"}, "unknown word in this attention map 'lest'; did you mean 'left'"),
        ({"question": "q9"}, "unknown question"),
        ({"layers": 9}, "unknown layer"),
        ({"heads": 4}, "unknown head"),
        ({"scale": "ln"}, "unknown scale"),
        ({"kind": "maps"}, "unknown figure of an attention map 'maps'"),
        ({"kind": "share", "word": "left"}, "unknown option of the figure 'share' 'word'"),
        ({"words": "left"}, "did you mean 'word'"),
    ):
        with pytest.raises(VideolensError, match=match):
            found.figure(**how)
    mean = vl.attention_map(asked[0], asked[1][:1], "last", heads="mean", pictures=0, progress=False)
    assert len(mean.clips) == 0 and len(mean.figure().axes) == 3 * 2 * len(mean.settings.layers[:2]) + 1
    with pytest.raises(SelectionError, match="holds the mean over heads only"):
        mean.figure(heads="max")


def test_one_id_in_two_tasks_is_not_averaged_in_silence(asked) -> None:
    model, several = asked
    twins = [replace(several[0], task="one"), replace(several[2], id=several[0].id, task="two")]
    both = vl.attention_map(model, twins, ["last"], progress=False)
    with pytest.raises(SelectionError, match=r"'q0' is in several tasks, \['one', 'two'\]: say task="):
        both.maps("last", question="q0")
    alone = vl.attention_map(model, twins[1:], ["last"], progress=False)
    assert np.array_equal(both.maps("last", question="q0", task="two"), alone.maps("last"))
    assert both.figure(question="q0", task="two") is not None
