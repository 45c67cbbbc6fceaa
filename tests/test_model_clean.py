"""Clean runs resumed in the middle, and patterns of chosen rows."""

from __future__ import annotations

import pytest
import torch
from helpers.models import tiny_inputs, tiny_llava_next_video
from helpers.prompts import ROUNDING
from torch.utils._python_dispatch import TorchDispatchMode

import videolens as vl
from videolens import HookedVideoTransformer, Knockout
from videolens.model.resuming import CleanRun


@pytest.fixture(scope="module")
def model() -> HookedVideoTransformer:
    return HookedVideoTransformer.from_hugging_face(tiny_llava_next_video())


@pytest.fixture(scope="module")
def prompt(model: HookedVideoTransformer) -> vl.Prompt:
    ids, _, pixels = tiny_inputs(frames=3)
    return model.prompt_from_ids(ids, pixels)


@pytest.fixture(scope="module")
def clean(model: HookedVideoTransformer, prompt: vl.Prompt) -> CleanRun:
    return model.run_clean(prompt)


def test_a_clean_run_keeps_what_enters_every_layer(model, prompt, clean) -> None:
    _, cache = model.run_with_cache(prompt, names_filter=lambda name: name.endswith(("resid_pre", "rot_k", "hook_v")))
    for layer in range(model.cfg.n_layers):
        assert torch.equal(clean.residuals[layer], cache[f"blocks.{layer}.hook_resid_pre"])
        keys, values = clean.keys_values.layers[layer]
        assert torch.equal(keys, cache[f"blocks.{layer}.attn.hook_rot_k"])
        assert torch.equal(values, cache[f"blocks.{layer}.attn.hook_v"])
    numbers = sum(each.numel() for each in clean.residuals) + 2 * keys.numel() * model.cfg.n_layers
    assert clean.n_bytes == 4 * numbers


def test_listeners_of_the_model_may_edit_in_place(model, prompt) -> None:
    def double(value, hook):
        value[:, hook.ctx["rows"] >= 5] *= 2

    model.add_hook("blocks.1.hook_resid_pre", double)
    try:
        expected, clean = model(prompt)[:, -1:], model.run_clean(prompt)
        for layer in (0, 1, 2):
            assert (model.resume(clean, layer=layer, row=5) - expected).abs().max() <= ROUNDING * expected.std()
    finally:
        model.reset_hooks()
    assert (model(prompt)[:, -1:] - expected).abs().max() >= 100 * ROUNDING * expected.std()


def test_a_clean_run_is_of_one_model(clean) -> None:
    other = HookedVideoTransformer.from_hugging_face(tiny_llava_next_video(text={"num_hidden_layers": 4}))
    with pytest.raises(vl.VideolensError, match=r"of 3 layers.* has 4"):
        other.resume(clean, layer=1, row=20)


@pytest.mark.parametrize(("layer", "row"), [(0, 0), (1, 9), (2, 24), (0, 24), (2, 0)])
def test_resuming_equals_the_whole_run(model, prompt, clean, layer, row) -> None:
    def shift(value, hook):
        late = (hook.ctx["rows"] >= max(row, 5)).to(value.dtype)
        return value + late[:, None] * 0.3

    hooks = [(f"blocks.{layer}.hook_resid_pre", shift), *Knockout("video", "last", layers=[2]).hooks(prompt)]
    full = model.run_with_hooks(prompt, fwd_hooks=hooks)
    resumed = model.resume(clean, layer=layer, row=row, fwd_hooks=hooks)
    assert resumed.shape == (1, 1, model.cfg.d_vocab)
    assert (resumed[0, 0] - full[0, -1]).abs().max() <= ROUNDING * full.std()
    assert (full[0, -1] - model(prompt)[0, -1]).abs().max() >= 100 * ROUNDING * full.std()
    several = model.resume(clean, layer=layer, row=row, fwd_hooks=hooks, rows=[24, max(row, 20)])
    assert (several - full[:, sorted({24, max(row, 20)})]).abs().max() <= ROUNDING * full.std()
    assert torch.equal(clean.residuals[layer], model.run_clean(prompt).residuals[layer]), "the clean run was edited"


def test_a_resumed_run_computes_only_its_cone(model, prompt, clean) -> None:
    seen = {}
    names = [
        f"blocks.{layer}.{point}" for layer in range(3) for point in ("attn.hook_q", "attn.hook_k", "mlp.hook_post")
    ]

    def note(value, hook):
        seen[hook.name] = hook.ctx["rows"].tolist()

    model.resume(clean, layer=1, row=20, fwd_hooks=[(name, note) for name in names if not name.startswith("blocks.0")])
    assert seen.keys() == {name for name in names if not name.startswith("blocks.0")}
    assert seen["blocks.1.mlp.hook_post"] == seen["blocks.2.attn.hook_k"] == [20, 21, 22, 23, 24]
    assert seen["blocks.2.attn.hook_q"] == seen["blocks.2.mlp.hook_post"] == [24]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"layer": 3}, r"layer 3 is outside the model: its layers are 0 … 2"),
        ({"layer": -1}, "layer -1"),
        ({"row": 25}, r"row 25 is outside the prompt of 25 tokens"),
        ({"rows": "frame 0"}, "asked for, but the run resumes at row 20"),
        ({"rows": [99]}, "outside the prompt of 25 tokens"),
        ({"rows": []}, "names no rows"),
        ({"rows": "lsat"}, "did you mean 'last'"),
        ({"fwd_hooks": [("blocks.0.hook_resid_pre", lambda value, hook: value)]}, "comes before layer 1"),
        ({"fwd_hooks": [("blocks.9.hook_resid_pre", lambda value, hook: value)]}, "blocks.9"),
    ],
)
def test_resuming_where_nothing_is_says_so(model, clean, change, says) -> None:
    with pytest.raises(vl.VideolensError, match=says):
        model.resume(clean, **({"layer": 1, "row": 20} | change))


@pytest.mark.parametrize("path", ["auto", "eager"])
@pytest.mark.parametrize("cut", [False, True])
def test_patterns_of_chosen_rows_are_rows_of_the_whole_pattern(model, prompt, cut, path) -> None:
    hooks = Knockout("frame 1", "last", layers=[1], heads=[0, 3]).hooks(prompt) if cut else []
    names = [f"blocks.{layer}.attn.{point}" for layer in (1, 2) for point in ("hook_pattern", "hook_attn_scores")]
    with model.hooks(hooks), model.attention_path(path):
        logits, whole = model.run_with_cache(prompt, names_filter=names)
        some_logits, some = model.run_with_cache(
            prompt, names_filter=[*names, "blocks.2.hook_resid_post"], rows=[20, 24]
        )
    for name in names:
        assert some[name].shape == (1, 4, 2, 25)
        torch.testing.assert_close(some[name], whole[name][:, :, [20, 24]], rtol=1e-4, atol=1e-5)
    assert some["blocks.2.hook_resid_post"].shape[1] == 25
    assert (some_logits - logits).abs().max() <= 1e-5 * logits.std()


def test_editing_the_pattern_of_a_chosen_row_counts(model, prompt) -> None:
    name = "blocks.1.attn.hook_pattern"

    def only_first(pattern, hook):
        assert hook.ctx["rows"].tolist() == [24]
        return torch.zeros_like(pattern).index_fill(-1, torch.tensor([0]), 1.0)

    def only_first_of_all(pattern, hook):
        pattern = pattern.clone()
        pattern[:, :, 24] = only_first(pattern[:, :, 24:], type("Hook", (), {"ctx": {"rows": torch.tensor([24])}}))[
            :, :, 0
        ]
        return pattern

    expected = model.run_with_hooks(prompt, fwd_hooks=[(name, only_first_of_all)])
    found = model.run_with_hooks(prompt, fwd_hooks=[(name, only_first)], rows="last")
    assert (found - expected).abs().max() <= 1e-5 * expected.std()
    assert (found - model(prompt)).abs().max() > 1e-2 * expected.std()


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation makes."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for each in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(each, torch.Tensor):
                self.numbers = max(self.numbers, each.untyped_storage().nbytes())
        return out


def test_what_a_word_looks_at_is_cheap_at_ten_thousand_tokens() -> None:
    n = 10_000
    long = HookedVideoTransformer.from_hugging_face(tiny_llava_next_video(text={"max_position_embeddings": n}))
    ids = torch.randint(3, 80, (1, n), generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), Largest() as largest:
        _, cache = long.run_with_cache(ids, names_filter="blocks.1.attn.hook_pattern", rows=[n - 1])
    pattern = cache["blocks.1.attn.hook_pattern"]
    assert pattern.shape == (1, 4, 1, n)
    assert pattern.sum(-1).allclose(torch.ones(1, 4, 1))
    assert largest.numbers < 4 * n * 96 * 2, "the logits are the largest tensor: nothing grows with n squared"
