"""Interventions as attention masks: the original model in transformers under them gives what is computed here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from helpers.checkpoints import STORAGES, rounded
from helpers.clips import clip
from helpers.families import CASES
from helpers.prompts import tiny_model, tiny_prompt
from torch import Tensor

import videolens as vl
from videolens.errors import VideolensError
from videolens.interventions.protocol import HookList
from videolens.interventions.rerounded import Rerounded
from videolens.interventions.route_pathway import RoutePathway
from videolens.model.transformer import HookedVideoTransformer
from videolens.prompt.known_templates import template_named
from videolens.prompt.prompt import Prompt

TEMPLATE = template_named("vicuna").with_system("")  # short: some decoders have room for few positions
ORIGINALS = ["llava_next_video", "internvl", "qwen2_vl"]
"""Llama, Qwen3 with norms of single heads or Qwen2, and rotary positions in three dimensions."""
N_LAYERS = 3
CLOSED = vl.Pathway.closed(n_layers=N_LAYERS, cross_frame=[0], video_to_question=[1], question_to_last=[2])
INTERVENTIONS: dict[str, list[Any]] = {
    "knockout": [vl.Knockout("video", "last", layers=[0, 2])],
    "knockout of one head": [vl.Knockout.route("cross-frame", layers=[0, 1], heads=[1])],
    "pathway": [CLOSED],
    "published pathway": [vl.Pathway.published(n_layers=N_LAYERS, video_to_question=[1], question_to_last=[2])],
    "routes": [RoutePathway(N_LAYERS, {"video -> question": [0]}, heads={"cross-frame": {1: [0]}})],
    "random": [vl.RandomBlocking(CLOSED, seed=1)],
    "scale": [vl.Scale("video", "last", layers=[1], factor=3.0)],
    "several": [
        vl.Knockout.route("cross-frame", layers=[0]),
        vl.Scale("video", "last", layers=[0, 2], factor=0.25, heads=[0]),
        vl.Knockout("stem", "last", layers=[2], heads=[1]),
    ],
}


@contextmanager
def under(module: Any, masks: Mapping[int, Tensor]) -> Iterator[None]:
    """Inside the block the layers of a model of transformers take these masks, as docs/counterfactuals.md says."""

    def give(mask: Tensor) -> Any:
        return lambda layer, args, kwargs: (args, kwargs | {"attention_mask": mask})

    layers = module.get_decoder().layers
    held = [layers[i].register_forward_pre_hook(give(mask), with_kwargs=True) for i, mask in masks.items()]
    try:
        yield
    finally:
        for hook in held:
            hook.remove()


def asked(name: str) -> tuple[HookedVideoTransformer, Prompt, Any]:
    """A model, a question, and the original as it is called."""
    case = CASES[name]
    film = torch.cat([clip(40, 64, frames=4)] * 3)[: 3 * case.step]
    question = vl.Question(vl.Video.from_array(film, fps=2.0), "What moves?", ["A ball", "A cube"], "A cube")
    reference: Any = case.reference(rounded(case.plain, STORAGES["fp32"]), 0.5)
    return case.ours, case.ours.prompt(question, template=TEMPLATE), reference


@pytest.mark.parametrize("kind", INTERVENTIONS)
@pytest.mark.parametrize("name", ORIGINALS)
@torch.no_grad()
def test_the_original_under_the_masks_gives_the_same(name: str, kind: str) -> None:
    ours, prompt, reference = asked(name)
    some = INTERVENTIONS[kind]
    expected = ours.run_with_hooks(prompt, fwd_hooks=[pair for each in some for pair in each.hooks(prompt)])
    masks = vl.attention_masks(some, prompt, n_heads=ours.cfg.n_heads)
    plain = reference.logits(prompt.input_ids, prompt.pixel_values)
    with under(reference.module, masks):
        found = reference.logits(prompt.input_ids, prompt.pixel_values)
    assert (found - expected).abs().max() <= 1e-4 * expected.std()
    assert (found - plain)[:, -1].abs().max() > 0.01 * expected.std(), "the masks change nothing"


@torch.no_grad()
def test_fused_attention_takes_them_too() -> None:
    ours, prompt, reference = asked("llava_next_video")
    reference.module.set_attn_implementation("sdpa")
    expected = ours.run_with_hooks(prompt, fwd_hooks=CLOSED.hooks(prompt))
    with under(reference.module, CLOSED.as_attention_mask(prompt)):
        found = reference.logits(prompt.input_ids, prompt.pixel_values)
    assert (found - expected).abs().max() <= 1e-4 * expected.std()


def test_a_mask_holds_its_numbers() -> None:
    """By hand: 0 where a query may attend, the lowest number where it may not, log(factor) where it is scaled."""
    prompt = tiny_prompt(tiny_model())
    cut, scaled = vl.Knockout("video", "last", layers=[0, 1]), vl.Scale("stem", "last", layers=1, factor=2.0)
    masks = vl.attention_masks([cut, scaled], prompt, dtype=torch.bfloat16)
    lowest, n = torch.finfo(torch.bfloat16).min, prompt.shape[1]
    wanted = torch.zeros(n, n).masked_fill(torch.ones(n, n).triu(1).bool(), lowest)
    wanted[-1, 4:16] = lowest  # the video
    assert list(masks) == [0, 1] and masks[0].dtype == torch.bfloat16
    assert torch.equal(masks[0][0, 0], wanted.bfloat16())
    wanted[-1, 18:20] = torch.tensor(2.0).log()  # the stem
    assert torch.equal(masks[1][0, 0], wanted.bfloat16())
    assert masks[1].shape == (1, 1, n, n)


def test_layers_that_are_cut_alike_share_a_mask() -> None:
    prompt = tiny_prompt(tiny_model())
    masks = vl.Knockout("video", "last", layers=[0, 2]).as_attention_mask(prompt)
    assert masks[0] is masks[2] and 1 not in masks
    by_layer = HookList(tuple((f"blocks.{i}.attn.hook_mask", cut_own_layer) for i in (0, 2)))
    masks = by_layer.as_attention_mask(prompt)
    assert not torch.equal(masks[0], masks[2]), "a function may ask which layer it is in"


def cut_own_layer(mask: Tensor, hook: Any) -> None:
    """Cut the last row off from the key of the layer's number, in place."""
    mask[..., -1, hook.layer()] = False


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda gates: gates * -1, r"blocks\.0\.attn\.hook_gate returned gates between -1\.0 and -1\.0"),
        (lambda gates: gates * float("nan"), "must be finite"),
        (lambda gates: gates[..., :3], "must give floating-point gates"),
        (lambda gates: gates[0, 0, 0], "must give floating-point gates"),
    ],
)
def test_gates_that_a_forward_refuses_give_no_mask(change: Any, said: str) -> None:
    wrong = HookList((("blocks.0.attn.hook_gate", lambda gates, hook: change(gates)),))
    with pytest.raises(VideolensError, match=said):
        wrong.as_attention_mask(tiny_prompt(tiny_model()))


def test_every_intervention_has_the_method() -> None:
    model = tiny_model()
    prompt = tiny_prompt(model)
    source = vl.SourceRun.record(model, prompt, "resid_pre")
    elsewhere = [
        vl.Patch("resid_pre", 1, "last", source=source),
        vl.Add(torch.ones(32), "last", 1),
        Rerounded(vl.Knockout("video", "last", layers=0)),
        HookList((("blocks.0.hook_resid_pre", print),)),
    ]
    for each in elsewhere:
        with pytest.raises(VideolensError, match=rf"{type(each).__name__} acts at .*cannot do what is done elsewhere"):
            each.as_attention_mask(prompt)


def test_what_no_mask_can_say() -> None:
    model = tiny_model()
    prompt = tiny_prompt(model)
    with pytest.raises(VideolensError, match=r"Knockout acts on heads \[1\] only: give n_heads"):
        vl.Knockout("video", "last", layers=0, heads=1).as_attention_mask(prompt)
    with pytest.raises(VideolensError, match=r"head 9"):
        vl.Knockout("video", "last", layers=0, heads=9).as_attention_mask(prompt, n_heads=4)
    with pytest.raises(VideolensError, match=r"in layer 2 position 0 may attend to nothing.*leave it a key"):
        HookList((("blocks.2.attn.hook_mask", lambda mask, hook: mask & False),)).as_attention_mask(prompt)
    for given in ("cross-frame", 3, [None]):
        with pytest.raises(VideolensError, match=r"interventions are .*: give an object with \.hooks\(prompt\)"):
            vl.attention_masks(given, prompt)
    with pytest.raises(VideolensError, match=r"dtype torch\.int64 of an attention mask: give that of the model"):
        vl.attention_masks(vl.Knockout("video", "last", layers=0), prompt, dtype=torch.int64)
    with pytest.raises(VideolensError, match=r"n_heads = 0: give a whole number from 1"):
        vl.attention_masks([vl.Knockout("video", "last", layers=0)], prompt, n_heads=0)
    with pytest.raises(vl.VideolensError, match="attention mask"):
        vl.Knockout("video", "last", layers=0).as_attention_mask(tiny_prompt(model, rows=2))
