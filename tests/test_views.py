"""circuitsvis views: kept and removed edges are what the masks say, tokens carry their attention, and pages need no
network and stay light."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.models import tiny_inputs, tiny_llava_next_video
from helpers.prompts import tiny_model, tiny_prompt
from helpers.report import letter_model, questions

import videolens as vl
from videolens import Knockout
from videolens.errors import SelectionError, VideolensError
from videolens.experiments.attention_map.view import _layout
from videolens.experiments.pathway.edges import SegmentEdges, segment_edges
from videolens.interventions.pathway import Pathway
from videolens.views import View, pruning_view, script, token_view

N_LAYERS, N_HEADS = 3, 4


@pytest.fixture(scope="module")
def model() -> vl.HookedVideoTransformer:
    return tiny_model()


@pytest.fixture(scope="module")
def prompt(model) -> vl.Prompt:
    return tiny_prompt(model)


@pytest.fixture(scope="module")
def large() -> tuple[vl.HookedVideoTransformer, vl.Prompt]:
    """8 frames of 12 × 12 tokens, 32 layers of 32 heads: as many numbers as a 7B gives."""
    heads = dict(num_attention_heads=32, num_key_value_heads=32, hidden_size=64)
    text = dict(num_hidden_layers=32, max_position_embeddings=2048, **heads)
    module = tiny_llava_next_video(text=text, vision={"image_size": 96})
    made = vl.HookedVideoTransformer.from_hugging_face(module)
    ids, _, pixels = tiny_inputs(frames=8, side=96)
    spans = {"stem": range(1158, 1160), "option A": range(1160, 1162), "option B": range(1162, 1164)}
    return made, made.prompt_from_ids(ids, pixels, spans)


def calls(html: str) -> list[tuple[str, str, dict[str, Any]]]:
    """(element, component, properties) of every call of circuitsvis; every element is there."""
    found = re.findall(r'<script>CircuitsVis\.render\("([\w-]+)", CircuitsVis\.(\w+), (\{.*?\})\)</script>', html)
    assert all(html.count(f'id="{name}"') == 1 for name, _, _ in found)
    return [(name, kind, json.loads(properties)) for name, kind, properties in found]


def check_page(view: View, path: Path) -> None:
    page = view.save_html(path).read_text()
    assert len(page.encode()) <= 5 * 2**20
    assert page.count(script()[:300]) == 1, "the script is there once"
    own = page.replace(script(), "")
    assert not re.search(r"(src|href)=|https?:|url\(|@import", own), "nothing is fetched"


# -- edges


def test_edges_are_those_that_the_pathway_allows(model, prompt) -> None:
    for pathway in (
        Pathway.closed(n_layers=N_LAYERS, cross_frame=[0], video_to_question=[0, 1], question_to_last=[1]),
        Pathway.published(n_layers=N_LAYERS, cross_frame=[1], video_to_question=[1], question_to_last=[2]),
    ):
        found = segment_edges(model, prompt, pathway)
        assert found.kept.sum() == pathway.edges(prompt)
        assert found.causal.sum() == 25 * 26 // 2
        for name, positions in prompt.tokens.segments():
            for other, sources in prompt.tokens.segments():
                i, j = found.segments.index(name), found.segments.index(other)
                for layer in range(N_LAYERS):
                    allowed = pathway.allowed(prompt, layer)
                    assert found.kept[layer, i, j] == allowed[positions][:, sources].sum()


def test_edges_of_several_knockouts_and_of_single_heads(model, prompt) -> None:
    cut = [Knockout("frame 0", "stem", [1]), Knockout("frame 0 | frame 1", "last", [1, 2], heads=[3])]
    found = segment_edges(model, prompt, cut)
    table = found.to_dataframe().set_index(["layer", "target", "source"]).sort_index()
    assert (table.loc[0, "share_kept"] == 1).all() and table.loc[(1, "stem", "frame 0"), "kept"] == 0
    assert table.loc[(2, "stem", "frame 0"), "share_kept"] == 1
    assert table.loc[(2, "last", "frame 1"), "kept"] == pytest.approx(4 * 3 / 4), "open in three of four heads"
    removed = float((found.causal - found.kept).sum())
    assert removed == cut[0].edges(prompt) + cut[1].edges(prompt) / 4
    assert ("frame 0", "stem") not in table.loc[0].index, "no causal pair, no row"
    whole = segment_edges(model, prompt, [])
    assert torch.equal(whole.kept, whole.causal.double().expand(N_LAYERS, -1, -1))


def test_edges_that_contradict_themselves(model, prompt) -> None:
    found = segment_edges(model, prompt, Knockout("video", "last", 0))
    with pytest.raises(VideolensError, match="more edges are kept"):
        replace(found, kept=found.kept + 1)
    with pytest.raises(VideolensError, match="edges between 2 segments"):
        replace(found, segments=("a", "b"))
    with pytest.raises(VideolensError, match="cuts no attention edges"):
        run = vl.SourceRun.record(model, prompt, "resid_pre")
        segment_edges(model, prompt, vl.Patch("resid_pre", 1, "last", source=run))
    with pytest.raises(VideolensError, match="is for 4 layers, the model has 3"):
        pruning_view(model, prompt, Pathway.closed(n_layers=4))
    assert isinstance(found, SegmentEdges)


def test_kept_and_removed_stand_side_by_side_a_head_for_every_layer(model, prompt, tmp_path: Path) -> None:
    pathway = Pathway.closed(n_layers=N_LAYERS, cross_frame=[0], video_to_question=[0, 1], question_to_last=[1])
    view, edges = pruning_view(model, prompt, pathway), segment_edges(model, prompt, pathway)
    (_, kind, kept), (_, other, removed) = calls(view.body)
    assert kind == other == "AttentionHeads" and view.body.index("Kept") < view.body.index("Removed")
    assert kept["attentionHeadNames"] == ["L1", "L2", "L3"] and kept["tokens"] == list(edges.segments)
    for layer in range(N_LAYERS):
        for i in range(len(edges.segments)):
            for j in range(len(edges.segments)):
                values = kept["attention"][layer][i][j], removed["attention"][layer][i][j]
                if edges.causal[i, j] == 0:
                    assert values == (-1, -1)
                else:
                    assert values == pytest.approx((share := float(edges.share_kept[layer, i, j]), 1 - share), abs=1e-4)
    share = f"{100 * pathway.edges(prompt) / (3 * 325):.1f} %"
    assert f"{pathway.edges(prompt):,} of 975" in view.body and share in view.body
    check_page(view, tmp_path / "pruned.html")


# -- tokens


def test_every_token_stands_there_once_with_its_attention(tmp_path: Path) -> None:
    model, question = letter_model(), questions()[0]
    prompt = model.prompt(question)
    shown = list(_layout(prompt, model.tokenizer))
    assert sorted(at for _, at in shown if at is not None) == list(range(prompt.shape[1]))
    view = token_view(model, question, ["last", "left"], layers=[0, 2])
    found = calls(view.body)
    assert [kind for _, kind, _ in found] == ["ColoredTokensMulti"] * 4
    assert re.findall(r"<h4>(.*?)</h4>", view.body)[:2] == [
        "Layer 1: what &#x27;last&#x27; looks at",
        "Layer 1: what &#x27;left&#x27; looks at",
    ]
    properties = found[2][2]  # layer 2, last
    assert properties["labels"] == ["mean", "H1", "H2", "H3", "H4"] and properties["tokens"] == [
        text for text, _ in shown
    ]
    with torch.no_grad():
        _, cache = model.run_with_cache(prompt, names_filter="blocks.2.attn.hook_pattern")
    pattern = cache["blocks.2.attn.hook_pattern"][0, :, -1].double()
    for (_, at), values in zip(shown, properties["values"], strict=True):
        expected = [0.0] * 5 if at is None else [float(pattern[:, at].mean()), *pattern[:, at].tolist()]
        assert values == pytest.approx(expected, rel=1e-2, abs=1e-6)
    assert "<s>" not in properties["tokens"] and properties["tokens"][0] == "‹s›", "tokens are written as HTML"
    check_page(view, tmp_path / "tokens.html")


def test_heads_interventions_and_words_can_be_chosen(model, prompt) -> None:
    cut = Knockout("video", "last", 1)
    view = token_view(model, prompt, layers=1, heads=[3, 1], interventions=cut)
    [(_, _, properties)] = calls(view.body)
    assert properties["labels"] == ["mean", "H2", "H4"] and "under interventions" in view.body
    of_video = [
        values
        for (_, at), values in zip(_layout(prompt, None), properties["values"], strict=True)
        if at in range(4, 16)
    ]
    assert len(of_video) == 12 and all(values == [0, 0, 0] for values in of_video)
    for how, match in (
        ({"layers": 3}, "layer 3 is outside"),
        ({"layers": []}, "layers are empty"),
        ({"layers": 0, "heads": 4}, "head 4 is outside"),
    ):
        with pytest.raises(VideolensError, match=match):
            token_view(model, prompt, **how)
    with pytest.raises(SelectionError, match="without a tokenizer"):
        token_view(model, prompt, "left", layers=0)


# -- pages


def test_pages_of_a_7b_stay_light(large, tmp_path: Path, monkeypatch) -> None:
    model, prompt = large
    assert prompt.tokens.grid == (8, 12, 12) and model.cfg.n_layers == model.cfg.n_heads == 32
    pathway = Pathway.published("LLaVA-NeXT-7B-Video-FT")
    check_page(pruning_view(model, prompt, pathway), tmp_path / "pruned.html")
    view = token_view(model, prompt, ["last", "stem", "option B"], layers=[1, 4])
    check_page(view, tmp_path / "tokens.html")
    monkeypatch.setattr("videolens.drawing.view.MOST_BYTES", 2**21)
    with pytest.raises(VideolensError, match=r"would be \d+\.\d MB: show fewer"):
        view.save_html(tmp_path / "more.html")
    assert not (tmp_path / "more.html").exists()


def test_a_file_is_not_overwritten_unasked(model, prompt, tmp_path: Path) -> None:
    view = pruning_view(model, prompt, Knockout("video", "last", 0), title="A & B")
    path = view.save_html(tmp_path / "new" / "view.html")
    assert "<title>A &amp; B</title>" in path.read_text()
    with pytest.raises(VideolensError, match="overwrite=True"):
        view.save_html(path)
    assert view.save_html(path, overwrite=True) == path
    assert view._repr_html_() == script() + view.body and "View('A & B'" in repr(view)
