"""The logit lens: exact in the micro model, two routes to every word, keywords counted, pictures drawn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.micro import BALL_RED, BLANK, RED, SEEKER, micro_model, micro_prompt
from helpers.models import tiny_inputs
from helpers.prompts import tiny_model, tiny_prompt

import videolens as vl
from videolens.errors import SelectionError, VideolensError
from videolens.experiments.common import readout
from videolens.experiments.common.asking import tabulated
from videolens.experiments.common.experiment import Frame
from videolens.experiments.logit_lens.experiment import LogitLensExperiment
from videolens.experiments.logit_lens.keywords import ACTION_SEQUENCE, KEYWORD_SETS, SHAPES, first_subword
from videolens.experiments.logit_lens.result import LensRow, LensSettings


@pytest.fixture(scope="module")
def questions() -> list[vl.Question]:
    return [q for task in ("moving direction", "object count") for q in vl.load_dataset("shapes", task=task, n=2)]


@pytest.fixture(scope="module")
def lens(shapes: vl.HookedVideoTransformer, questions: list[vl.Question]) -> vl.LogitLens:
    return vl.logit_lens(shapes, questions, keywords="shapes", top=2, progress=False)


def invented(words: list[list[str]], *, n_layers: int = 32, questions: int = 1, grid: int = 1) -> vl.LogitLens:
    """A lens with one frame of grid × grid tokens and the given words, token by token, in every layer."""
    rows = [
        (f"q{q}", "t", layer, 0, i // grid, i % grid, 1, 7, word, 0.5)
        for q in range(questions)
        for layer in range(n_layers)
        for i, word in enumerate(words[layer])
    ]
    known = {"groups": {"g": ["bag"]}, "subwords": {"bag": "bag", "cup": "cup"}}
    settings = LensSettings(model="invented", n_layers=n_layers, **known)
    table, clips = pd.DataFrame(rows, columns=list(LensRow._fields)), pd.DataFrame([], columns=list(Frame._fields))
    return vl.LogitLens(table, clips, settings)


def test_the_micro_models_seeker_reads_as_the_colour_it_took() -> None:
    model = micro_model()
    prompt = micro_prompt(model, (BALL_RED, BLANK), (BLANK, SEEKER))
    table = vl.logit_lens(model, prompt, top=1, progress=False).to_dataframe()
    assert tuple(table.columns) == LensRow._fields and len(table) == 3 * 4
    seeker = table[(table["frame"] == 1) & (table["column"] == 1)]
    # the colour lies in the residual's dimension 10 from layer 1 on: layer 0 writes where the question looks for it
    taken = seeker["probability"].to_numpy()
    with torch.no_grad():
        _, cache = model.run_with_cache(prompt)
    for layer in range(3):
        state = model.ln_final(cache["resid_post", layer][0, 3])
        assert taken[layer] == pytest.approx(float(model.unembed(state).softmax(-1).max()), abs=1e-6)
    assert list(table["layer"].unique()) == [0, 1, 2]


@pytest.mark.parametrize("name", ["final norm", "published"])
def test_every_word_is_that_of_the_cache(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    prompt = tiny_prompt(model)
    sizes = []
    whole = readout.read_logits

    def watched(model, residual, lens):  # type: ignore[no-untyped-def]
        sizes.append(len(residual) * model.cfg.d_vocab)
        return whole(model, residual, lens)

    monkeypatch.setattr(readout, "read_logits", watched)
    monkeypatch.setattr(readout, "_LOGITS_AT_ONCE", 5 * model.cfg.d_vocab)
    made = vl.logit_lens(model, prompt, lens=name, top=3, progress=False)
    assert max(sizes) == 5 * model.cfg.d_vocab and len(sizes) == 3 * 3, "12 tokens in chunks of 5, for 3 layers"
    with torch.no_grad():
        _, cache = model.run_with_cache(prompt)
    video = prompt.tokens["video"]
    for layer in range(3):
        state = cache["resid_post", layer][0, video]
        logits = state @ model.W_E.t() if name == "published" else model.unembed(model.ln_final(state))
        expected = logits.softmax(-1).topk(3)
        rows = made.table[made.table["layer"] == layer]
        assert rows["token"].tolist() == expected.indices.flatten().tolist()
        assert rows["probability"].to_numpy() == pytest.approx(expected.values.flatten().numpy(), abs=1e-5)
        places = list(zip(rows["frame"], rows["row"], rows["column"], strict=True))[::3]
        assert places == [(f, r, c) for f in range(3) for r in range(2) for c in range(2)]
    assert ("published" in made.settings.lens) == (name == "published")


def test_the_words_of_a_video_do_not_depend_on_what_is_asked_after_it(shapes, questions) -> None:  # type: ignore[no-untyped-def]
    tables = [
        vl.logit_lens(shapes, each, top=1, progress=False).table for each in (questions[0], questions[0].open_ended())
    ]
    assert tables[0]["token"].equals(tables[1]["token"])


def test_bins_do_not_overlap_and_shares_are_of_the_keywords_own_finds() -> None:
    # a bag in layers 0 … 9 and 31, a cup never
    words = [["bag" if layer < 10 or layer == 31 else "the", "the"] for layer in range(32)]
    table = invented(words, questions=3).keywords(["bag", "cup"])
    bag, cup = table[table["keyword"] == "bag"], table[table["keyword"] == "cup"]
    assert list(zip(bag["first_layer"], bag["last_layer"], strict=True)) == [
        *((first, first + 4) for first in range(0, 30, 5)),
        (30, 31),
    ]
    assert list(bag["count"]) == [15, 15, 0, 0, 0, 0, 3] and set(bag["total"]) == {33} and set(bag["n"]) == {3}
    assert list(bag["cells"]) == [30] * 6 + [12] and bag["rate"].iloc[-1] == pytest.approx(3 / 12)
    assert bag["share"].to_numpy() == pytest.approx(np.array([15, 15, 0, 0, 0, 0, 3]) / 33)
    assert bag["share_low"].iloc[0] == pytest.approx(15 / 33), "three questions that are alike: no spread"
    assert cup["share"].isna().all() and set(cup["count"]) == {0}
    assert len(invented(words).keywords(["bag"], bins=16)) == 2
    with pytest.raises(VideolensError, match="bin of 40 layers"):
        invented(words).keywords(["bag"], bins=40)


def test_the_interval_is_over_questions() -> None:
    early = invented([["bag"]] * 10 + [["the"]] * 22).table
    late = invented([["the"]] * 22 + [["bag"]] * 10).table.assign(question="other")
    mixed = invented([["bag"]] * 32)
    lens = vl.LogitLens(pd.concat([early, late]), mixed.clips, mixed.settings)
    first = lens.keywords(["bag"], bins=16).iloc[0]
    assert (first["share"], first["share_low"], first["share_high"]) == pytest.approx((0.5, 0.0, 1.0))


def test_a_keyword_is_its_first_sub_word(shapes: vl.HookedVideoTransformer) -> None:
    tokenizer, d_vocab = shapes.tokenizer, shapes.cfg.d_vocab
    found = {word: first_subword(tokenizer, d_vocab, word) for group in SHAPES.values() for word in group}
    assert all(word == piece for word, piece in found.items()), "each is one token of the bundled vocabulary"
    assert first_subword(tokenizer, d_vocab, "grasshopper") == "grass"
    assert first_subword(tokenizer, d_vocab, "A") == "A"
    for word, said in (("gren", "did you mean 'green'"), ("blanket", "'blanket'"), ("é", "bytes")):
        with pytest.raises(VideolensError, match=said):
            first_subword(tokenizer, d_vocab, word)
    assert first_subword(None, 6, "4") == "4"
    with pytest.raises(VideolensError, match="no token id"):
        first_subword(None, 6, "6")


def test_keywords_are_checked_before_anything_runs(shapes: vl.HookedVideoTransformer) -> None:
    with pytest.raises(VideolensError, match=r"unknown keyword 'bag'.*vocabulary"):
        vl.logit_lens(shapes, [], keywords="action sequence")
    with pytest.raises(VideolensError, match="set of keywords"):
        vl.logit_lens(shapes, [], keywords="shape")
    with pytest.raises(VideolensError, match="each once"):
        vl.logit_lens(shapes, [], keywords=["red", "red"])
    with pytest.raises(VideolensError, match="unknown lens 'norm'"):
        vl.logit_lens(shapes, [], lens="norm")
    with pytest.raises(VideolensError, match="top is 0"):
        vl.logit_lens(shapes, [], top=0)
    assert len(ACTION_SEQUENCE["spatial"]) == 19 and len(ACTION_SEQUENCE["temporal"]) == 13
    assert set(KEYWORD_SETS) == {"action sequence", "shapes"}


def test_keywords_of_the_bundled_model(lens: vl.LogitLens) -> None:
    table = lens.keywords()
    assert len(table) == 28 * 6 and set(table["cells"]) == {4 * 2 * 128} and set(table["n"]) == {4}
    first = lens.table[lens.table["rank"] == 1]
    reds = table.loc[table["keyword"] == "red", "count"].tolist()
    assert reds == [int(((first["word"] == "red") & (first["layer"] // 2 == i)).sum()) for i in range(6)]
    assert sum(reds) > 0 and table["share"].dropna().between(0, 1).all()
    one = lens.keywords(["red"], task="object count")
    assert set(one["n"]) == {2}
    with pytest.raises(SelectionError, match="task in this logit lens"):
        lens.keywords(["red"], task="object counts")


def test_words_of_one_question(lens: vl.LogitLens, questions: list[vl.Question]) -> None:
    words = lens.words(questions[1].id, 4)
    assert len(words) == 128 and list(words.columns) == ["frame", "row", "column", "token", "word", "probability"]
    second = lens.words(questions[1].id, 4, rank=2)
    assert (second["probability"] <= words["probability"]).all() and (second["token"] != words["token"]).all()
    for wrong in ({"question": "none"}, {"layer": 12}, {"rank": 3}, {"task": "none"}):
        with pytest.raises(SelectionError, match="in this logit lens"):
            lens.words(**({"question": questions[1].id, "layer": 4} | wrong))  # type: ignore[arg-type]


def test_samples_and_prompts_without_a_video() -> None:
    model = tiny_model()
    prompts = [tiny_prompt(model, seed=seed, answer=None) for seed in range(2)]
    with pytest.raises(VideolensError, match=r"none of the 2 questions.*right answer is not known"):
        vl.logit_lens(model, prompts, samples="correct", progress=False)
    bare = model.prompt_from_ids(tiny_inputs(seed=0)[0][:, :4], None)
    made = vl.logit_lens(model, [prompts[0], bare], progress=False)
    assert made.skipped().to_dict("records") == [{"task": "", "reason": "the prompt has no video", "questions": 1}]


def test_parts_put_together_are_the_whole(shapes, questions, lens) -> None:  # type: ignore[no-untyped-def]
    experiment = LogitLensExperiment(shapes, top=2)
    rows = [
        tabulated(experiment, experiment.ask(shapes.prompt(each), each.id, each.task, lambda share: None).rows)
        for each in questions
    ]
    pd.testing.assert_frame_equal(pd.concat(rows, ignore_index=True), lens.table)
    bare = vl.logit_lens(shapes, questions, top=2, frames=False, progress=False)
    assert len(bare.clips) == 0 and set(lens.clips["question"]) == {each.id for each in questions}
    pd.testing.assert_frame_equal(bare.table, lens.table)


def test_saved_and_read_again(lens: vl.LogitLens, shapes: vl.HookedVideoTransformer, tmp_path) -> None:  # type: ignore[no-untyped-def]
    lens.save(tmp_path / "lens")
    again = vl.LogitLens.load(tmp_path / "lens")
    pd.testing.assert_frame_equal(again.table, lens.table)
    pd.testing.assert_frame_equal(again.clips, lens.clips)
    assert again.settings == lens.settings
    pd.testing.assert_frame_equal(again.keywords(), lens.keywords())
    with pytest.raises(VideolensError, match=r"tokenizer=model\.tokenizer"):
        again.keywords(["the"])
    pd.testing.assert_frame_equal(
        vl.LogitLens.load(tmp_path / "lens", tokenizer=shapes.tokenizer).keywords(["the"]), lens.keywords(["the"])
    )
    with pytest.raises(VideolensError, match="overwrite=True"):
        lens.save(tmp_path / "lens")


def test_a_lens_that_contradicts_itself_is_refused(lens: vl.LogitLens) -> None:
    for table, said in (
        (lens.table.iloc[1:], "ranks 1"),
        (lens.table[lens.table["layer"] > 0], "layers 0"),
        (lens.table.iloc[2:], "all video tokens"),
        (pd.concat([lens.table, lens.table]), "twice"),
        (lens.table.assign(probability=np.float32(1.5)), "outside 0"),
        (lens.table.iloc[:0], "has no row"),
    ):
        with pytest.raises(VideolensError, match=said):
            vl.LogitLens(table, lens.clips, lens.settings)


def said_by(figure) -> list[str]:  # type: ignore[no-untyped-def]
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


def test_the_keyword_figure_counts_layers_from_one(lens: vl.LogitLens) -> None:
    figure = lens.figure(words=["red", "night", "Options"])
    heat, lines = figure.axes
    table = lens.keywords(["red", "night", "Options"])
    shares = table["share"].to_numpy().reshape(3, 6)
    assert np.allclose(np.ma.filled(heat.images[0].get_array(), np.nan), shares, equal_nan=True)
    assert [label.get_text() for label in heat.get_xticklabels()] == ["1–2", "3–4", "5–6", "7–8", "9–10", "11–12"]
    assert [label.get_text() for label in heat.get_yticklabels()] == ["red", "night", "Options"]
    texts = " ".join(said_by(figure))
    assert "n = 4" in texts and "95 %" in texts and "final norm" in texts and lines.get_title("right") == "n = 4"


def test_words_are_drawn_on_their_patches(lens: vl.LogitLens, questions: list[vl.Question]) -> None:
    figure = lens.figure("frames", question=questions[2].id, layer=3, frames=[0, 5], highlight="shapes")
    words = lens.words(questions[2].id, 3)
    panels = [axes for axes in figure.axes if axes.get_title().startswith("frame")]
    assert [axes.get_title() for axes in panels] == ["frame 0", "frame 5"]
    for axes, frame in zip(panels, (0, 5), strict=True):
        assert len(axes.images) == 1, "the frame itself"
        drawn = {tuple(map(int, text.get_position())): text.get_text() for text in axes.texts}
        mine = words[words["frame"] == frame]
        assert drawn == dict(zip(zip(mine["column"], mine["row"], strict=True), mine["word"], strict=True))
    assert "after layer 4" in " ".join(said_by(figure)), "layers count from 1 in figures"
    for wrong in ({"frames": [8]}, {"layer": 12}, {"question": "none"}):
        with pytest.raises(SelectionError):
            lens.figure("frames", **({"layer": 0} | wrong))
    with pytest.raises(SelectionError, match="figure of a logit lens"):
        lens.figure("frame", layer=0)


def test_a_large_grid_stays_readable_and_any_vocabulary_can_be_drawn(
    recwarn: pytest.WarningsRecorder, tmp_path
) -> None:  # type: ignore[no-untyped-def]
    words = ["bag", "refrigerator", "人", "$x_1$", "Unterscheidungsmerkmal", "<0x0A>"] * 24
    figure = invented([words], n_layers=1, grid=12).figure("frames", layer=0, highlight=["bag"])
    figure.savefig(tmp_path / "frames.png")
    assert not [each for each in recwarn if "Glyph" in str(each.message)]
    texts = figure.axes[0].texts
    assert len(texts) == 144 and min(text.get_fontsize() for text in texts) >= 4
    cell = figure.axes[0].get_window_extent().width / 12
    assert max(text.get_window_extent().width for text in texts) <= 1.02 * cell, "no word leaves its patch"
    assert {"bag", "□", "$x_1$"} <= {text.get_text() for text in texts}
    assert any(text.get_text().endswith("…") for text in texts)


def test_the_published_lens_says_so(shapes: vl.HookedVideoTransformer, questions: list[vl.Question]) -> None:
    made = vl.logit_lens(shapes, questions[:1], lens="published", top=1, progress=False)
    assert made.settings.lens == "input embedding, no norm (published)" and "published" in repr(made)
    assert "published" in " ".join(said_by(made.figure("frames", layer=0)))
    assert str(RED) not in made.table["word"].head(1).item()
