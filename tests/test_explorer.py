"""The explorer's data: its map is that of `trace_flow`, its attention that of `run_with_cache`, and text stays text."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.prompts import tiny_model, tiny_prompt
from hypothesis import given
from hypothesis import strategies as st

import videolens as vl
from videolens.errors import PromptError, SelectionError, VideolensError
from videolens.experiments.common.readout import FINAL_NORM, top_words
from videolens.explorer.attending import default_rows, read_attending
from videolens.explorer.packing import in_8_bits, pack_rows, runs_of, unpack_rows, unpacked

ROUTES = ("cross-frame", "video -> question", "video -> last", "question -> last")


@pytest.fixture(scope="module")
def model() -> vl.HookedVideoTransformer:
    return vl.HookedVideoTransformer.from_pretrained("shapes")


@pytest.fixture(scope="module")
def asked() -> list[vl.Question]:
    return vl.load_dataset("shapes", split="validation", task="moving direction", n=3)


@pytest.fixture(scope="module")
def shown(model, asked) -> dict[str, Any]:
    """A pane as the page holds it."""
    return data(vl.explore(model, asked[0], routes=ROUTES).html)["panes"][0]


def data(page: str) -> dict[str, Any]:
    """What the page's script reads."""
    [content] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, flags=re.DOTALL)
    return json.loads(content)


def test_the_map_is_that_of_trace_flow(model, asked, shown) -> None:
    flow = vl.trace_flow(model, asked[0], routes=ROUTES, samples="all", progress=False)
    table = flow.table.pivot(index="route", columns="layer", values="change_percent").loc[shown["map"]["routes"]]
    np.testing.assert_allclose(np.array(shown["map"]["change"]), table.to_numpy(), rtol=2e-5, atol=1e-4)
    assert shown["map"]["cut"] == [list(layers) for layers in flow.settings.cuts.values()]
    after = flow.table.pivot(index="route", columns="layer", values="p_knockout").loc[shown["map"]["routes"]]
    followed = np.array(shown["map"]["after"])[..., shown["followed"]]
    np.testing.assert_allclose(followed, after.to_numpy(), rtol=2e-5, atol=1e-6)


def test_means_and_intervals_are_those_of_the_flow_map(model, asked) -> None:
    flow = vl.trace_flow(model, asked, routes=ROUTES[1:], samples="all", progress=False)
    mean = data(vl.explore(model, asked[0], routes=ROUTES, flow=flow, words=False).html)["panes"][0]["map"]["mean"]
    assert mean["n"] == 3 and sorted(mean["curves"]) == sorted(ROUTES[1:])
    curve = flow.curve("video -> last")
    for name in ("mean", "low", "high"):
        np.testing.assert_allclose(mean["curves"]["video -> last"][name], getattr(curve, name), rtol=1e-5)


def test_a_flow_map_of_another_window_is_refused(model, asked) -> None:
    flow = vl.trace_flow(model, asked[0], routes=["video -> last"], window=5, samples="all", progress=False)
    with pytest.raises(VideolensError, match=r"windows of 5 of 12 layers .* the explorer 3 of 12"):
        vl.explore(model, asked[0], flow=flow)


def test_attention_is_that_of_run_with_cache(model, asked, shown) -> None:
    prompt = model.prompt(asked[0])
    _, cache = model.run_with_cache(prompt)
    rows = dict(map(tuple, shown["attention"]["rows"]))
    assert sorted(rows) == list(range(prompt.shape[1]))
    for at in (0, 20, 140, prompt.shape[1] - 1):
        found = unpack_rows(rows[at], model.cfg.n_layers, model.cfg.n_heads)
        for layer in range(model.cfg.n_layers):
            pattern = cache["pattern", layer][0, :, at, : at + 1].numpy()
            assert np.abs(found[layer] - pattern).max() <= 1 / 255


def test_words_are_those_of_the_lens(model, asked, shown) -> None:
    prompt = model.prompt(asked[0])
    _, cache = model.run_with_cache(prompt)
    words = shown["words"]
    index = np.frombuffer(unpacked(words["word"]), "<u4").reshape(model.cfg.n_layers, -1, words["top"])
    share = np.frombuffer(unpacked(words["share"]), np.uint8).reshape(index.shape)
    tokens, probabilities = top_words(model, cache["resid_post", 7][0], FINAL_NORM, words["top"])
    assert [words["texts"][i] for i in index[7, :, 0]] == [model.shown(token) for token in tokens[:, 0].tolist()]
    np.testing.assert_allclose(share[7] / 255, probabilities, atol=0.5 / 255 + 1e-6)


def test_what_is_cut_is_what_the_knockout_blocks(model, asked, shown) -> None:
    """Of "video -> last", every video token is a key and the last one the only query; of "cross-frame", the last
    frame has no queries that look at it, and the first looks at none before it."""
    tokens = model.prompt(asked[0]).tokens
    routes, cut = shown["map"]["routes"], shown["map"]
    video, last = tokens["video"].tolist(), tokens["last"].tolist()
    at = routes.index("video -> last")
    assert spread(cut["keys"][at]) == video and spread(cut["queries"][at]) == last
    at = routes.index("cross-frame")
    first, final = tokens["frame 0"].tolist(), tokens[f"frame {tokens.grid[0] - 1}"].tolist()
    assert spread(cut["queries"][at]) == sorted(set(video) - set(first))
    assert spread(cut["keys"][at]) == sorted(set(video) - set(final))


def spread(runs: list[list[int]]) -> list[int]:
    return [at for first, last in runs for at in range(first, last + 1)]


def test_a_blocked_side_holds_the_block_everywhere(model, asked) -> None:
    """Attention of the blocked side is nothing where it is cut; its map starts from the blocked answer."""
    panes = data(vl.explore(model, asked[0], routes=ROUTES, beside="video -> last", words=False).html)["panes"]
    tokens = model.prompt(asked[0]).tokens
    last, video = int(tokens["last"][0]), tokens["video"].numpy()
    free, blocked = (unpack_rows(dict(map(tuple, pane["attention"]["rows"]))[last], 12, 4) for pane in panes)
    assert np.abs(blocked[..., video]).max() == 0 < free[..., video].max()
    assert panes[0]["answers"][panes[0]["followed"]] == panes[1]["answers"][panes[1]["followed"]]
    at = panes[1]["map"]["routes"].index("video -> last")
    np.testing.assert_allclose(panes[1]["map"]["change"][at], 0, atol=1e-3)  # it is cut already
    knockout = vl.Knockout.route("video -> last", layers=range(12))
    logits = vl.sweep(model, model.prompt(asked[0]), [knockout]).logits[0]
    expected = logits.softmax(-1)[list(model.prompt(asked[0]).option_tokens)]
    np.testing.assert_allclose(panes[1]["map"]["before"], expected, rtol=2e-4, atol=1e-6)
    assert "video ↛ last" in panes[1]["name"]


def test_another_model_beside_is_asked_the_same(model, asked) -> None:
    base = vl.HookedVideoTransformer.from_pretrained("shapes-image")
    panes = data(vl.explore(model, asked[0], routes=ROUTES, beside=base, words=False).html)["panes"]
    assert [pane["name"] for pane in panes] == ["shapes", "shapes-image"]
    followed = [pane["answers"][pane["followed"]]["text"] for pane in panes]
    assert followed[0] == followed[1]
    expected = base(base.prompt(asked[0]))[0, -1].softmax(-1)[list(base.prompt(asked[0]).option_tokens)]
    np.testing.assert_allclose(panes[1]["map"]["before"], expected.detach(), rtol=2e-4, atol=1e-6)


def test_text_of_a_question_is_never_markup(model, asked) -> None:
    evil = '</script><img src=x onerror="document.title=1"> & <b>left</b> \u2028'
    question = replace(asked[0], stem=evil)
    page = vl.explore(model, question, routes=ROUTES[1:2], words=False)
    assert "<img" not in page.html and page.html.count("</script>") == 2
    assert data(page.html)["title"] == evil
    cell = page._repr_html_()
    assert html.unescape(re.search(r'srcdoc="(.*?)"', cell, re.DOTALL)[1]) == page.html


def test_the_page_fetches_nothing(model, asked) -> None:
    page = vl.explore(model, asked[0], routes=ROUTES[1:2], words=False).html
    assert not re.findall(
        r'(?:src|href)=["\']?(?!data:)\w', re.sub(r'id="data">.*?</script>', "", page, flags=re.DOTALL)
    )
    assert "http" not in re.sub(r'id="data">.*?</script>', "", page, flags=re.DOTALL)


def test_a_patch_map_stands_beside_the_tokens(model, asked) -> None:
    reverse = vl.patch_map(model, asked[0], asked[0].reversed(), over="frame", layers=[2, 5], progress=False)
    found = data(vl.explore(model, asked[0], routes=ROUTES[1:2], patches=reverse, words=False).html)["panes"][0][
        "patches"
    ]
    assert found["layers"] == [2, 5] and found["labels"] == [f"frame {i}" for i in range(8)]
    np.testing.assert_allclose(found["effects"], reverse.effects(), rtol=1e-5)
    assert spread(found["units"][3]) == model.prompt(asked[0]).tokens["frame 3"].tolist()
    with pytest.raises(VideolensError, match="not this question"):
        vl.explore(model, asked[1], patches=reverse)


def test_rows_that_have_no_room_are_told(model, asked) -> None:
    prompt = model.prompt(asked[0])
    wanted = default_rows(prompt)
    assert sorted(wanted) == list(range(prompt.shape[1])) and wanted[0] == prompt.shape[1] - 1
    whole = read_attending(model, prompt, wanted, max_bytes=2**30)
    assert whole.left_out == () and list(whole.rows) == wanted
    part = read_attending(model, prompt, wanted, max_bytes=whole.n_bytes // 2)
    assert part.n_bytes <= whole.n_bytes // 2
    assert list(part.rows) + list(part.left_out) == wanted, "those that people look at first are kept first"
    assert all(part.rows[at] == whole.rows[at] for at in part.rows)


def test_chosen_rows(model, asked) -> None:
    pane = data(vl.explore(model, asked[0], routes=ROUTES[1:2], rows=["frame 3"], words=False).html)["panes"][0]
    tokens = model.prompt(asked[0]).tokens
    assert [at for at, _ in pane["attention"]["rows"]] == [*tokens["last"].tolist(), *tokens["frame 3"].tolist()]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"rows": ["frame 99"]}, SelectionError, "frame 99"),
        ({"routes": ["vidoe -> last"]}, SelectionError, "vidoe"),
        ({"window": 99}, VideolensError, "window"),
        ({"beside": []}, VideolensError, "beside"),
        ({"beside": "vidoe -> last"}, SelectionError, "vidoe"),
        ({"max_memory": 0}, VideolensError, "max_memory"),
        ({"rows": "last"}, VideolensError, r"rows is one string, 'last'"),
    ],
)
def test_bad_input_is_one_clear_error(model, asked, options, error, words) -> None:
    with pytest.raises(error, match=words):
        vl.explore(model, asked[0], **options)


def test_a_batch_is_refused(model, asked) -> None:
    with pytest.raises(PromptError, match="explorer"):
        vl.explore(model, vl.Prompt.batch([model.prompt(question) for question in asked]))


def test_a_prompt_without_tokenizer_pixels_and_question() -> None:
    """Tokens by number, no words, no pictures: everything else is there."""
    tiny = tiny_model()
    pane = data(vl.explore(tiny, tiny_prompt(tiny)).html)["panes"][0]
    assert pane["words"] is None and pane["stem"] == ""
    assert all(text.isdecimal() for _, text in pane["texts"])
    assert pane["map"]["missing"] or len(pane["map"]["routes"]) == 11


def test_a_page_is_written_once(model, asked, tmp_path: Path) -> None:
    page = vl.explore(model, asked[0], routes=ROUTES[1:2], words=False)
    path = page.save_html(tmp_path / "new" / "explorer.html")
    assert path.read_text(encoding="utf-8") == page.html and len(page.html.encode()) < 2**20
    with pytest.raises(VideolensError, match="is there already"):
        page.save_html(path)
    page.save_html(path, overwrite=True)
    assert repr(page).startswith("Explorer('") and "\n" not in repr(page)


@given(st.lists(st.lists(st.floats(0, 1, width=32), min_size=5, max_size=5), min_size=6, max_size=6))
def test_eight_bits_are_right_to_half_a_step(values: list[list[float]]) -> None:
    given_ = torch.tensor(values, dtype=torch.float64).reshape(2, 3, 5)
    read = unpack_rows(pack_rows(given_), 2, 3)
    scale, _ = in_8_bits(given_)
    assert (np.abs(read - given_.numpy()) <= scale[..., None].numpy() / 510 + 1e-7).all()


@given(st.sets(st.integers(0, 60)))
def test_runs_hold_exactly_their_positions(positions: set[int]) -> None:
    runs = runs_of(sorted(positions))
    assert spread(runs) == sorted(positions)
    assert all(after[0] > before[1] + 1 for before, after in pairwise(runs))
