"""Gates on unnormalised attention weights: a run under them is what it is with the gates written into the scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers.engine import N_LAYERS, random_pair
from helpers.prompts import tiny_prompt
from torch import Tensor

import videolens as vl
from videolens.experiments.attribution import gating
from videolens.experiments.attribution.backward import run_backward
from videolens.experiments.attribution.gating import gate_hooks, own_share
from videolens.experiments.attribution.metrics import metric_of
from videolens.experiments.attribution.scores import layer_scores
from videolens.interventions.partition import Partition

Pair = tuple[vl.HookedVideoTransformer, vl.Prompt]


@pytest.fixture(scope="module", params=["grouped heads", "one key head"])
def pair(request: pytest.FixtureRequest) -> Pair:
    return random_pair(request.param, dtype=torch.float64)


def under(model: vl.HookedVideoTransformer, prompt: vl.Prompt, gates: Tensor) -> float:
    """The tiny prompt's logit difference with gates [layer head query key], by scores that are watched."""

    def weigh(scores: Tensor, hook: Any) -> Tensor:
        return scores + gates[int(hook.name.split(".")[1])].log()

    names = [f"blocks.{layer}.attn.hook_attn_scores" for layer in range(N_LAYERS)]
    logits = model.run_with_hooks(prompt, fwd_hooks=[(name, weigh) for name in names])[0, -1]
    return float(logits[5] - logits[6])


def all_but_own(gate: float) -> Tensor:
    gates = torch.full((N_LAYERS, 4, 25, 25), gate, dtype=torch.float64)
    return torch.where(torch.eye(25, dtype=torch.bool), 1.0, gates)


def gated(model: vl.HookedVideoTransformer, prompt: vl.Prompt, gate: float) -> float:
    hooks = [hook for block in model.blocks for hook in gate_hooks(block.attn, gate)]
    logits = model.run_with_hooks(prompt, fwd_hooks=hooks)[0, -1]
    return float(logits[5] - logits[6])


@pytest.mark.parametrize("gate", [1.0, 0.7, 0.1, 1e-9])
def test_a_gated_run_is_one_with_gates_in_its_scores(pair: Pair, gate: float) -> None:
    model, prompt = pair
    assert gated(model, prompt, gate) == pytest.approx(under(model, prompt, all_but_own(gate)), rel=1e-9)
    assert gate_hooks(model.blocks[0].attn, 1.0) == []


def scored(model: vl.HookedVideoTransformer, prompt: vl.Prompt, gate: float) -> dict[tuple[int, int, str], float]:
    partition = Partition.of(prompt.tokens)
    found: dict[tuple[int, int, str], float] = {}

    def keep(run: Any) -> None:
        for head, row in enumerate(layer_scores(run, partition, method="integrated", heads=True).tolist()):
            found.update({(run.layer, head, name): score for name, score in zip(partition.routes, row, strict=True)})

    metric = metric_of("logit difference", prompt, model(prompt)[0, -1].detach(), "x")
    run_backward(model, prompt, metric, keep, gate=gate)
    return found


def test_scores_are_derivatives_by_the_gates(pair: Pair) -> None:
    model, prompt = pair
    gate, partition = 0.4, Partition.of(prompt.tokens)
    found = scored(model, prompt, gate)
    queries, keys = torch.meshgrid(torch.arange(25), torch.arange(25), indexing="ij")
    route_of = partition.route_of(queries.flatten(), keys.flatten()).view(25, 25)
    compared = []
    for unit in [(0, 1, "own-part"), (1, 0, "cross-part"), (2, 3, "part V -> part Q"), (3, 2, "part Q -> part Q")]:
        layer, head, route = unit
        of_route = (route_of == partition.routes.index(route)) & (keys < queries)
        ends = []
        for moved in (gate + 1e-5, gate - 1e-5):
            gates = all_but_own(gate)
            gates[layer, head][of_route] = moved
            ends.append(under(model, prompt, gates))
        assert found[unit] == pytest.approx(-(ends[0] - ends[1]) / 2e-5, rel=1e-5, abs=1e-8), unit
        compared.append(abs(found[unit]))
    assert max(compared) > 0.01


def test_scores_along_the_gates_add_up_to_what_the_gates_change(pair: Pair) -> None:
    model, prompt = pair
    gates = np.linspace(0.5, 1, 21)
    total = sum(sum(scored(model, prompt, gate).values()) for gate in (gates[1:] + gates[:-1]) / 2) * 0.5 / 20
    changed = under(model, prompt, all_but_own(0.5)) - under(model, prompt, all_but_own(1.0))
    assert total == pytest.approx(changed, rel=0.01) and abs(changed) > 0.05


def test_scores_are_means_over_the_steps(model, prompt) -> None:
    found = vl.attribute(model, prompt, method="integrated", steps=2, heads=True, verify=1, progress=False).table
    means = sum(np.array([*dict(sorted(scored(model, prompt, gate).items())).values()]) for gate in (0.25, 0.75)) / 2
    assert np.allclose(found.sort_values(["layer", "head", "route"])["score"], means, rtol=1e-4, atol=1e-6)


def test_a_few_rows_at_a_time_it_is_the_same_and_so_are_its_slopes(monkeypatch: pytest.MonkeyPatch) -> None:
    def shares() -> tuple[Tensor, Tensor]:
        q, k = (torch.randn(9, heads, 8, generator=torch.Generator().manual_seed(heads)) for heads in (4, 2))
        q.requires_grad_()
        found = own_share(q, k, 0.3)
        return found.detach(), torch.autograd.grad((found**2).sum(), q)[0]

    whole = shares()
    monkeypatch.setattr(gating, "_AT_ONCE", 100)
    for one, other in zip(whole, shares(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    assert torch.allclose(whole[0][0], torch.ones(4)), "the first token sees itself alone"


def test_the_divergence_needs_steps_and_no_answer(model) -> None:
    open_ended = tiny_prompt(model, answer=None)
    found = vl.attribute(model, open_ended, method="integrated", metric="kl", steps=2, verify="all", progress=False)
    assert found.settings.steps == 2 and (found.table["base"].abs() < 1e-6).all()
    assert (found.table["exact"] > -1e-6).all() and found.table["score"].abs().max() > 1e-3
    logits = [model.run_with_hooks(open_ended, fwd_hooks=hooks)[0, -1].log_softmax(-1) for hooks in ([], [cut()])]
    row = found.table[(found.table["layer"] == 2) & (found.table["route"] == "part Q -> part A")].iloc[0]
    assert row["exact"] == pytest.approx(float((logits[0].exp() * (logits[0] - logits[1])).sum()), rel=1e-3)


def cut() -> vl.Knockout:
    return vl.Knockout.route("part Q -> part A", layers=2)


def test_forwards_are_counted_for_every_step(model, prompt) -> None:
    made = [
        vl.attribute(model, prompt, method="integrated", steps=steps, verify=3, progress=False).settings
        for steps in (1, 4)
    ]
    assert made[1].forwards - made[0].forwards == pytest.approx(4 * 3) and np.isclose(made[0].full_forwards, 34)
