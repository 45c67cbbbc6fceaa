"""Qwen2.5-VL: seconds on the time axis. What it shares with Qwen2-VL is in test_family_qwen.py."""

from __future__ import annotations

from dataclasses import replace

import torch
from helpers.families import CASES, family_named
from helpers.families.qwen import BLOCK, PAIR

from videolens import TokenMap
from videolens.model.families import Clock

CASE = CASES["qwen2_5_vl"]


def test_times_matter() -> None:
    ours = CASE.ours
    slow, fast = (CASE.prompts(ours, (6, BLOCK, BLOCK), step=step)[0] for step in (1.0, 4.0))
    other = ours.prompt_from_ids(slow.input_ids, slow.pixel_values, seconds=[4.0 * i for i in range(6)])
    assert torch.equal(slow.residual, other.residual) and torch.equal(other.rotary[0], fast.rotary[0])
    assert not torch.equal(slow.rotary[0], other.rotary[0])
    # nine words after the video, which go on from its larger side
    assert slow.next_positions == other.next_positions == (5 + 1 + 9,)


def test_seconds_come_from_the_clock() -> None:
    family, config = family_named("qwen2_5_vl"), CASE.plain.config
    seconds = torch.arange(5, dtype=torch.float64) * 0.75 + 10
    grid = family.grid(config, 5, BLOCK, BLOCK)
    layout = family.layout(config, grid, Clock(seconds))
    assert layout.seconds.tolist() == [10.0, 11.5, 13.0] and layout.merged == PAIR
    tokens = TokenMap.from_spans(3, {}, grid=grid, video=range(3), seconds=layout.seconds)
    for clock, interval in [(Clock(seconds), 3), (Clock(seconds * torch.nan), 2)]:
        along = family.positions(config, replace(tokens, merged=PAIR), clock)
        assert along[0].tolist() == [0, interval, 2 * interval]
