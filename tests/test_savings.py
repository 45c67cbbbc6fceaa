"""What running a pathway saves: operations and bytes are those of the plan, times are real, and logits agree."""

from __future__ import annotations

import pytest
from helpers.prompts import tiny_model, tiny_prompt
from helpers.report import read

import videolens as vl
from videolens.errors import VideolensError
from videolens.experiments.common.timing import in_turn, seconds
from videolens.experiments.pathway.savings import measure_savings, savings_section

MODEL = tiny_model()
PROMPTS = [tiny_prompt(MODEL, seed=seed) for seed in range(2)]
PATHWAY = vl.Pathway.closed(n_layers=3, cross_frame=[0], video_to_question=[0, 1], question_to_last=[1, 2])


def test_operations_and_cache_are_those_of_the_plan_and_logits_agree() -> None:
    found = measure_savings(MODEL, PROMPTS, {"a": PATHWAY, "<b>": vl.Pathway(3)}, new_tokens=4, rounds=2)
    rows = {(row.pathway, row.way): row for row in found.table.itertuples()}
    assert list(rows) == [("", "full"), ("a", "masked"), ("a", "compiled"), ("<b>", "masked"), ("<b>", "compiled")]
    plan = MODEL.compile(PATHWAY).plan(PROMPTS[0], 4)
    full = rows["", "full"]
    assert (rows["a", "compiled"].gflop, full.gflop) == pytest.approx((plan.flops / 1e9, plan.full_flops / 1e9))
    assert (rows["a", "compiled"].cache, full.cache) == (plan.cache_bytes(), plan.full_cache_bytes())
    assert (rows["a", "masked"].gflop, rows["a", "masked"].cache) == (full.gflop, full.cache), "masks spare no row"
    assert rows["a", "compiled"].cache < full.cache and rows["a", "compiled"].gflop < full.gflop
    assert all(0 < row.seconds_low <= row.seconds <= row.seconds_high for row in rows.values())
    assert found.apart < 1e-4 and found.n == 2
    text = read(savings_section(found)).text
    assert "<b>" in text and f"{plan.flops / 1e9:.2f}" in text and "1.00 ×" in text


def test_what_cannot_be_measured_is_refused() -> None:
    for prompts, pathways in (([], {"a": PATHWAY}), (PROMPTS, {})):
        with pytest.raises(VideolensError, match="at least one of each"):
            measure_savings(MODEL, prompts, pathways)
    with pytest.raises(VideolensError, match="rounds"):
        measure_savings(MODEL, PROMPTS, {"a": PATHWAY}, rounds=0)
    with pytest.raises(VideolensError, match="12"):
        measure_savings(MODEL, PROMPTS, {"a": vl.Pathway(12)})


def test_times_are_taken_in_turn_and_the_first_turn_does_not_count() -> None:
    called: list[str] = []
    clock = iter(map(float, range(100))).__next__
    times = in_turn({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, 2, clock)
    assert called == ["a", "b"] * 3 and times == {"a": [1, 1], "b": [1, 1]}
    assert seconds(lambda: "made", clock) == (1, "made")
