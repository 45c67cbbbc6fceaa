"""The four parts of a prompt: they leave nothing out, and routes between them cut what they name."""

from __future__ import annotations

import pytest
import torch
from helpers.prompts import plain_prompt, tiny_model, tiny_prompt
from hypothesis import given, settings
from hypothesis import strategies as st

import videolens as vl
from videolens.errors import SelectionError
from videolens.interventions.knockout import PART_ROUTES
from videolens.prompt.selections import PARTS, is_selection
from videolens.prompt.tokens import TokenMap


def test_parts_of_the_tiny_prompt() -> None:
    tokens = tiny_prompt(tiny_model()).tokens
    assert [tokens[part].tolist() for part in PARTS] == [
        [0, 1, 2, 3],
        list(range(4, 16)),
        list(range(16, 24)),  # the glue is in part Q
        [24],
    ]


def test_separators_go_with_their_frame_and_the_suffix_with_the_rest() -> None:
    tokens = TokenMap.from_spans(
        14, {"stem": [8, 9], "option A": [10], "option B": [11]}, grid=(2, 1, 2), video=[1, 2, 4, 5]
    )
    assert tokens["separator"].tolist() == [3]
    assert [tokens[part].tolist() for part in PARTS] == [[0], [1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11], [12, 13]]
    cut = vl.Knockout.route("cross-part", layers=[0])
    # rows 4 and 5 of the second frame lose the three tokens of the first
    assert cut.edges(plain_prompt(tokens)) == 6
    assert vl.Knockout.route("cross-frame", layers=[0]).edges(plain_prompt(tokens)) == 4


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_parts_partition_every_prompt(data: st.DataObject) -> None:
    frames, rows, columns = (data.draw(st.integers(1, 3)) for _ in range(3))
    system, gap, glue, stem, option, suffix, pad = (data.draw(st.integers(0, 3)) for _ in range(7))
    n_video = frames * rows * columns
    video = [
        i for f in range(frames) for i in range(f * (rows * columns + gap), f * (rows * columns + gap) + rows * columns)
    ]
    at = system + video[-1] + 1 + glue
    spans: dict[str, range] = {"stem": range(at, at + stem + 1)}
    at += stem + 1
    if option:
        spans |= {"option A": range(at, at + option), "option B": range(at + option, at + 2 * option)}
        at += 2 * option
    tokens = TokenMap.from_spans(
        at + suffix, spans, grid=(frames, rows, columns), video=[system + i for i in video]
    ).padded(pad)
    where = torch.cat([tokens[part] for part in PARTS])
    assert sorted(where.tolist()) == list(range(pad, tokens.n_pos))
    assert torch.equal(torch.cat([tokens[part] for part in PARTS]), where.sort().values)
    assert len(tokens["part V"]) == n_video + gap * (frames - 1)
    assert set(tokens["question"].tolist()) <= set(tokens["part Q"].tolist())
    assert tokens["part Q"].tolist()[-1] == tokens["question"].tolist()[-1]
    assert len(tokens["part A"]) == suffix


def test_any_two_selections_make_a_route() -> None:
    prompt = tiny_prompt(tiny_model())
    for name in (*PART_ROUTES, "frame 0 -> frame 2", "stem | suffix -> last"):
        if name == "part Q -> part A":
            assert vl.Knockout.route(name, layers=[0]).edges(prompt) == 8
        assert vl.Knockout.route(name, layers=[0]).edges(prompt) > 0
    assert vl.Knockout.route("part V -> part A", layers=[1]) == vl.Knockout("part V", "part A", [1])


@pytest.mark.parametrize("name", ["video", "video ->", "-> last", "video -> last -> last", "vid -> last", "a -> b"])
def test_what_is_no_route_is_refused(name: str) -> None:
    with pytest.raises(SelectionError, match="unknown route"):
        vl.Knockout.route(name, layers=[0])


@pytest.mark.parametrize(("name", "known"), [("frame 03", False), ("frame 12 | last", True), ("stem|", False)])
def test_names_of_selections(name: str, known: bool) -> None:
    assert is_selection(name) is known


def test_generated_tokens_belong_to_the_rest() -> None:
    model = tiny_model()
    prompt = tiny_prompt(model)
    cut = vl.Knockout.route("part Q -> part A", layers=range(3))
    seen = []
    model.generate(prompt, 3, [cut])
    with model.hooks(cut.hooks(prompt)):
        for step in range(2):
            rows = torch.tensor([prompt.tokens.n_pos + step])
            keys = torch.arange(prompt.tokens.n_pos + step + 1)
            point = model.blocks[0].attn.hook_mask
            point.ctx |= {"rows": rows, "keys": keys, "n_heads": 4}
            mask = cut.hooks(prompt)[0][1](torch.ones(1, 1, 1, len(keys), dtype=torch.bool), point)
            seen.append((~mask[0, 0, 0]).nonzero().flatten().tolist())
    assert seen == [list(range(16, 24))] * 2
