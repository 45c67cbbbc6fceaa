"""Scores of attention: each method is what it says, by another way; and nothing is reported without exact knockouts."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.asking import in_parts
from helpers.engine import N_LAYERS, random_pair
from helpers.families import CASES, each_family
from helpers.prompts import tiny_prompt
from helpers.report import letter_model, questions
from torch import Tensor

import videolens as vl
from videolens.errors import ModelError, QuestionError, VideolensError
from videolens.experiments.attribution import scores as scoring
from videolens.experiments.attribution.experiment import AttributionExperiment
from videolens.experiments.attribution.metrics import METRICS, metric_of
from videolens.experiments.attribution.scores import METHODS, unit_scores
from videolens.interventions.partition import GRAINS, Partition

Model, Pair = vl.HookedVideoTransformer, tuple[vl.HookedVideoTransformer, vl.Prompt]


@pytest.fixture(scope="module", params=["grouped heads", "a key head per head, biases"])
def pair(request: pytest.FixtureRequest) -> Pair:
    """In float64, where what two ways differ by is no rounding."""
    return random_pair(request.param, dtype=torch.float64)


def difference(logits: Tensor) -> Tensor:
    """The tiny prompt's metric: of its two options, 5 is right."""
    return logits[..., 5] - logits[..., 6]


def scored(
    model: Model, prompt: vl.Prompt, grain: str = "routes", *, method: str, heads: bool = False
) -> dict[tuple[int, int, str], float]:
    """(layer, head, route) → score; of all heads at once, head 0."""
    partition = Partition.of(prompt.tokens, grain)
    metric = metric_of("logit difference", prompt, model(prompt)[0, -1].detach(), "x")
    found = unit_scores(model, prompt, partition, metric, method=method, heads=heads)
    places = product(range(found.shape[0]), range(found.shape[1]), partition.routes)
    return dict(zip(places, found.flatten().tolist(), strict=True))


def slopes(model: Model, prompt: vl.Prompt, point: str) -> tuple[list[Tensor], list[Tensor]]:
    """What every layer's hook point holds, and the metric's slope there, by plain autograd through a whole forward."""
    held: list[Tensor] = []
    names = [f"blocks.{layer}.{point}" for layer in range(N_LAYERS)]
    entering = ("hook_embed", lambda value, hook: value.detach().requires_grad_())
    listening = [(name, lambda value, hook: held.append(value)) for name in names]
    with torch.enable_grad(), model.hooks([entering, *listening]):
        logits = model(prompt)
        found = torch.autograd.grad(difference(logits[0, -1]), held)
    return [value.detach() for value in held], list(found)


def without(model: Model, prompt: vl.Prompt, unit: tuple[int, int | None, str], point: str) -> Tensor:
    """What a hook point of the unit's layer holds when the unit is closed."""
    layer, head, route = unit
    held: list[Tensor] = []
    acting = [vl.Knockout.route(route, layers=layer, heads=head)]
    listening = (f"blocks.{layer}.{point}", lambda value, hook: held.append(value.detach().clone()))
    model.run_with_hooks(prompt, fwd_hooks=[*acting, listening])
    return held[0]


UNITS = [(0, 1, "part P -> part V"), (1, 0, "cross-part"), (2, 3, "part V -> part Q"), (2, 2, "own-part")]
UNITS += [
    (3, 1, "part Q -> part A"),
    (1, 2, "part P -> part P"),
    (4, 0, "part V -> part A"),
    (4, 3, "part A -> part A"),
]


def test_the_gradient_is_the_derivative_by_a_gate_on_unnormalised_weights(pair: Pair) -> None:
    model, prompt = pair
    found = scored(model, prompt, method="gradient", heads=True)
    partition = Partition.of(prompt.tokens)
    position = torch.arange(prompt.shape[1])
    queries, keys = torch.meshgrid(position, position, indexing="ij")
    route_of = partition.route_of(queries.flatten(), keys.flatten()).view_as(queries)
    for layer, head, route in UNITS:
        gated = (route_of == partition.routes.index(route)) & (keys <= queries)

        def metric(gate: float, layer: int = layer, head: int = head, gated: Tensor = gated) -> float:
            def weigh(scores: Tensor, hook: Any) -> Tensor:
                scores = scores.clone()
                scores[0, head][gated] += np.log(gate)
                return scores

            logits = model.run_with_hooks(prompt, fwd_hooks=[(f"blocks.{layer}.attn.hook_attn_scores", weigh)])
            return float(difference(logits[0, -1]))

        slope = (metric(1 + 1e-5) - metric(1 - 1e-5)) / 2e-5
        assert found[layer, head, route] == pytest.approx(-slope, rel=1e-5, abs=1e-8), (layer, head, route)
    assert sum(abs(found[unit]) > 1e-3 for unit in UNITS) > len(UNITS) / 2, "most of what is compared is not nothing"


@pytest.mark.parametrize(("method", "point"), [("local", "attn.hook_z"), ("layer", "hook_resid_post")])
@pytest.mark.parametrize("heads", [True, False])
def test_what_is_exact_up_to_a_point_is_what_a_knockout_changes_there(
    pair: Pair, method: str, point: str, heads: bool
) -> None:
    model, prompt = pair
    found = scored(model, prompt, method=method, heads=heads)
    held, slope = slopes(model, prompt, point)
    for layer, head, route in UNITS:
        if method == "layer" and layer == N_LAYERS - 1:
            continue  # there it is the metric itself: another test
        changed = without(model, prompt, (layer, head if heads else None, route), point) - held[layer]
        expected = float((changed * slope[layer]).sum())
        assert found[layer, head if heads else 0, route] == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("grain", GRAINS)
@pytest.mark.parametrize("heads", [True, False])
def test_in_the_last_layer_the_method_layer_is_exact(pair: Pair, grain: str, heads: bool) -> None:
    model, prompt = pair
    found = vl.attribute(model, prompt, grain=grain, heads=heads, verify="all", progress=False).table
    last = found[found["layer"] == N_LAYERS - 1]
    assert np.allclose(last["score"], last["exact"], rtol=1e-9, atol=1e-12)
    assert (last["exact"].abs() > 0.01).sum() > 1
    before = found[found["layer"] < N_LAYERS - 1]
    assert not np.allclose(before["score"], before["exact"], rtol=0.01), "elsewhere it is an estimate"


@pytest.mark.parametrize("grain", GRAINS)
def test_derivatives_add_up(pair: Pair, grain: str) -> None:
    """Over heads and frames; and all gates of a row together change nothing, for what is left is normalised."""
    model, prompt = pair
    found = scored(model, prompt, grain, method="gradient", heads=True)
    rows = pd.Series(found).rename_axis(["layer", "head", "route"])
    assert np.allclose(rows.groupby(["layer", "head"]).sum(), 0, atol=1e-12) and rows.abs().max() > 0.1
    for method in ("gradient", "local"):
        together = pd.Series(scored(model, prompt, grain, method=method, heads=False)).droplevel(1)
        each = pd.Series(scored(model, prompt, grain, method=method, heads=True))
        each = each.groupby(level=[0, 2]).sum()
        assert np.allclose(each.loc[together.index], together, atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_a_few_rows_at_a_time_it_is_the_same(pair: Pair, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompt = pair
    for heads in (True, False):
        whole = scored(model, prompt, "frame pairs", method=method, heads=heads)
        with monkeypatch.context() as patched:
            patched.setattr(scoring, "_AT_ONCE", 300)
            parts = scored(model, prompt, "frame pairs", method=method, heads=heads)
        assert parts == pytest.approx(whole, rel=1e-11, abs=1e-14)


def test_a_softmax_that_is_zero_or_one_leaves_what_is_below_it() -> None:
    """Closing what a row looks at shows what it would see instead, even where that weighs 1e-200."""
    model, prompt = random_pair("grouped heads")
    for block in model.blocks:
        block.attn.q.weight.data *= 40
    found = vl.attribute(model, prompt, method="layer", heads=True, verify="all", progress=False).table
    last = found[found["layer"] == N_LAYERS - 1]
    assert np.allclose(last["score"], last["exact"], rtol=1e-3, atol=1e-4) and np.isfinite(found["score"]).all()


def by_method(model: Model) -> dict[str, pd.Series]:
    """Every method's scores of one validation question."""
    [question] = vl.load_dataset("shapes", split="validation", task="object count", n=1)
    return {method: pd.Series(scored(model, model.prompt(question), method=method)) for method in METHODS}


@pytest.fixture(scope="module")
def in_single_precision(shapes: Model) -> dict[str, pd.Series]:
    return by_method(shapes)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_gives_the_scores_of_its_weights(in_single_precision: dict[str, pd.Series], dtype: str) -> None:
    half = by_method(vl.HookedVideoTransformer.from_pretrained("shapes", dtype=dtype))
    for method, wide in in_single_precision.items():
        few = half[method]
        assert few.abs().rank().corr(wide.abs().rank()) > 0.99 and few.corr(wide) > 0.99


@each_family
def test_every_family(name: str) -> None:
    model = CASES[name].ours
    prompt = replace(CASES[name].prompts(model)[0], option_tokens=(5, 6, 7), answer_token=5)
    found = vl.attribute(model, prompt, heads=True, verify="all", progress=False)
    last = found.table[found.table["layer"] == model.cfg.n_layers - 1]
    assert np.allclose(last["score"], last["exact"], atol=2e-4) and last["exact"].abs().max() > 1e-3
    assert found.measure("magnitudes").value > 0.5


def test_metrics_by_hand(model, prompt) -> None:
    clean = torch.linspace(-1, 1, 96).flip(0)
    logits = torch.stack([clean, torch.arange(96.0) / 30])
    values = {name: metric_of(name, replace(prompt, option_tokens=(5, 6, 9)), clean, "x") for name in METRICS}
    p, q = clean.softmax(-1), logits.softmax(-1)
    assert torch.allclose(values["logit difference"].value(logits), logits[:, 5] - logits[:, [6, 9]].max(1).values)
    assert torch.allclose(values["log-probability"].value(logits), q[:, 5].log())
    assert torch.allclose(values["kl"].value(logits), (p * (p / q).log()).sum(-1), atol=1e-6)
    with pytest.raises(VideolensError, match=r"logit difference of 1 of 2 runs is not a finite number \(nan\)"):
        values["logit difference"].value(torch.stack([clean, torch.full((96,), torch.inf)]))


def test_the_log_probability_is_another_metric(model, prompt) -> None:
    found = vl.attribute(model, prompt, metric="log-probability", verify="all", progress=False)
    base, logits = found.table["base"].iloc[0], model(prompt)[0, -1]
    assert base == pytest.approx(float(logits.log_softmax(-1)[5]), abs=1e-5)
    last = found.table[found.table["layer"] == 2]
    assert np.allclose(last["score"], last["exact"], atol=1e-4)


# -- what is asked, and what comes out -------------------------------------------------------------------------------


def test_exact_changes_are_those_of_plain_forwards(model, prompt) -> None:
    found = vl.attribute(model, prompt, heads=True, verify=5, progress=False).table
    closed = found[found["exact"].notna()]
    assert len(closed) == 5 and len(found) == 3 * 4 * 11
    for row in closed.itertuples():
        knockout = vl.Knockout.route(row.route, layers=row.layer, heads=int(row.head))
        logits = model.run_with_hooks(prompt, fwd_hooks=[knockout])
        assert row.exact == pytest.approx(float(difference(logits[0, -1])) - row.base, abs=1e-4)
        assert row.pairs == knockout.edges(prompt)


def test_the_units_that_are_closed_depend_on_question_and_seed_alone(model) -> None:
    prompts = [tiny_prompt(model, seed=seed) for seed in range(3)]

    def closed(asked: Any, **how: Any) -> list[pd.Series]:
        table = vl.attribute(model, asked, verify=6, progress=False, **how).table
        return [rows["exact"].notna().reset_index(drop=True) for _, rows in table.groupby("question", sort=False)]

    together = closed(prompts)
    assert together[0].equals(closed(prompts[0])[0]), "whatever else is asked"
    assert not together[0].equals(together[1]) and not together[0].equals(closed(prompts[0], seed=1)[0])


def test_in_parts_it_is_the_same_and_it_is_saved_and_loaded(tmp_path) -> None:
    model, asked = letter_model(), questions()[:3]
    whole = vl.attribute(model, asked, verify=6, progress=False)
    parts = in_parts(AttributionExperiment(model, verify=6), asked)
    pd.testing.assert_frame_equal(parts.table, whole.table, check_exact=True)
    loaded = vl.Attribution.load(whole.save(tmp_path / "a"))
    pd.testing.assert_frame_equal(loaded.table, whole.table)
    assert loaded.settings == whole.settings and repr(loaded) == repr(whole)
    made = whole.settings
    assert made.full_forwards == 34 and 4 < made.forwards < 12 and (made.method, made.verify) == ("layer", 6)


def test_units_are_means_over_questions(model) -> None:
    prompts = [tiny_prompt(model, seed=seed) for seed in range(2)]
    found = vl.attribute(model, prompts, verify=6, progress=False)
    units = found.units()
    assert len(units) == 33 and units["magnitude"].is_monotonic_decreasing and (units["n"] == 2).all()
    first = units.iloc[0]
    rows = found.table[(found.table["layer"] == first["layer"]) & (found.table["route"] == first["route"])]
    assert first["score"] == pytest.approx(rows["score"].mean()) and first["magnitude"] >= abs(first["score"]) - 1e-12
    with pytest.raises(VideolensError, match="unknown task in this attribution 'colour'"):
        found.units(task="colour")


def test_figures(model, prompt, tmp_path) -> None:
    for how in ({}, {"heads": True}, {"grain": "frame pairs", "verify": "all"}):
        found = vl.attribute(model, prompt, progress=False, **how)
        found.figure().savefig(tmp_path / "a.png")
        assert (tmp_path / "a.png").stat().st_size > 10_000
    with pytest.raises(VideolensError, match="unknown task"):
        found.figure(task="colour")


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "locale"}, "unknown method 'locale'; did you mean 'local'"),
        ({"metric": "logit diff"}, "unknown metric 'logit diff'; did you mean 'logit difference'"),
        ({"grain": "pairs of frames"}, "unknown grain 'pairs of frames'.*known: 'routes', 'frame pairs'"),
        ({"steps": 0}, "steps = 0: give a whole number from 1 to 1000"),
        ({"verify": 0}, "verify = 0: give a whole number from 1 on"),
        ({"verify": "some"}, "verify = 'some': give a whole number"),
        ({"seed": -1}, "seed = -1: give a whole number"),
        ({"metric": "kl"}, "metric = 'kl': .*its slope there is zero and method='layer'.*take method='integrated'"),
    ],
)
def test_wrong_options_are_refused(model, prompt, options: dict[str, Any], said: str) -> None:
    with pytest.raises(VideolensError, match=said):
        vl.attribute(model, prompt, progress=False, **options)


@pytest.mark.parametrize("point", ["attn.hook_pattern", "attn.hook_mask", "hook_resid_post"])
def test_a_model_with_listeners_is_refused(prompt, model, point: str) -> None:
    model.add_hook(f"blocks.1.{point}", lambda value, hook: value)
    try:
        with pytest.raises(ModelError, match=rf"blocks\.1\.{point}\).*reset_hooks"):
            vl.attribute(model, prompt, progress=False)
    finally:
        model.reset_hooks()


def test_a_question_without_a_known_answer_is_refused(model) -> None:
    with pytest.raises(QuestionError, match="'prompt 0' has no known answer, so it has no logit difference"):
        vl.attribute(model, tiny_prompt(model, answer=None), progress=False)
    alone = replace(tiny_prompt(model), option_tokens=(5,))
    with pytest.raises(QuestionError, match=r"no other options to hold its answer against.*'log-probability'"):
        vl.attribute(model, alone, progress=False)
    assert vl.attribute(model, alone, metric="log-probability", verify=2, progress=False).n == 1


def test_numbers_that_are_not_finite_are_said_with_their_layer(prompt) -> None:
    model, prompt = random_pair("grouped heads")
    model.blocks[2].mlp.up.weight.data[:] = torch.nan
    with pytest.raises(ModelError, match="layer 2"):
        vl.attribute(model, prompt, progress=False)


def test_weights_that_pass_no_gradient_are_refused() -> None:
    model, prompt = random_pair("grouped heads")
    quantised = torch.nn.Parameter(model.blocks[1].mlp.up.weight.data.to(torch.int8), requires_grad=False)
    model.blocks[1].mlp.up.weight = quantised
    with pytest.raises(ModelError, match=r"blocks\.1\.mlp\.up\.weight is of torch\.int8.*bfloat16"):
        vl.attribute(model, prompt, progress=False)


def test_a_layer_that_cuts_the_graph_is_said() -> None:
    model, prompt = random_pair("grouped heads")
    down = model.blocks[3].mlp.down
    model.blocks[3].forward = lambda resid, at: (type(model.blocks[3]).forward(model.blocks[3], resid, at)).detach()
    assert down.weight.dtype == torch.float32
    with pytest.raises(ModelError, match=r"layer 3 \(from 0\) passes no gradient"):
        vl.attribute(model, prompt, progress=False)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table.assign(score=np.nan), "'score' holds values that are no finite numbers"),
        (lambda table: table.assign(exact=np.nan), "no unit that was closed exactly"),
        (lambda table: table.assign(layer=3), r"a layer lies outside 0 … 2"),
        (lambda table: table.assign(head=pd.array([1] * len(table), dtype="Int64")), "tells heads apart otherwise"),
        (lambda table: pd.concat([table, table]), "there twice"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(model, prompt, change: Any, said: str) -> None:
    found = vl.attribute(model, prompt, verify=3, progress=False)
    with pytest.raises(VideolensError, match=said):
        vl.Attribution(change(found.to_dataframe()), found.settings)
