"""Proof that a family converts its originals: one function, `prove`, and what it compares with.

    from helpers.parity import STORAGES, HuggingFaceReference, ids_around, prove, randomise, rounded, write_module

    @pytest.mark.parametrize("storage", STORAGES.values(), ids=STORAGES)
    def test_parity(storage, tmp_path):
        original = randomise(LlavaNextVideoForConditionalGeneration(tiny_config()))
        write_module(tmp_path, original, storage)                      # the layout that transformers publishes
        # or: write_state(tmp_path, {"model.layers.0…": tensor, …}, config_dict, storage)   any other layout
        ours = HookedVideoTransformer.from_pretrained(tmp_path, dtype=torch.float32)
        # how the original is called; HF wants (ids, pixels) as its own keyword arguments
        reference = HuggingFaceReference(
            rounded(original, storage), lambda ids, pixels: {"input_ids": ids, "pixel_values_videos": pixels}
        )
        # two questions of unequal length, one placeholder (or all of them) where the video goes
        prompts = [
            ours.prompt_from_ids(ids_around([VIDEO], after=n, bos=BOS, seed=n), torch.randn(1, 3, 3, 16, 16))
            for n in (9, 14)
        ]
        prove(ours, reference, prompts)

A checkpoint in bfloat16 is read into float32 and compared with the same rounded weights, so that the tolerance is that
of float32. Prompts may as well come from `ours.prompt(question)`; what the prompt's ids must be is for the family's own
test to say: here both sides get the ids and pixels of the `Prompt`.

An original that transformers has no class for: write it in plain torch in the family's test as an `nn.Module` whose
`forward(ids, pixels)` gives logits, with `layers` whose outputs are residuals and whose `self_attn` gives (output,
pattern), and wrap it in `PlainReference`. Anything else with the methods of `Reference` will do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from helpers.checkpoints import (
    STORAGES,
    Storage,
    byte_tokenizer,
    randomise,
    rounded,
    special_ids,
    write_module,
    write_state,
)
from videolens import Prompt
from videolens.model.transformer import HookedVideoTransformer

__all__ = [
    "STORAGES",
    "TOLERANCE",
    "HuggingFaceReference",
    "PlainReference",
    "Reference",
    "Storage",
    "byte_tokenizer",
    "ids_around",
    "prove",
    "randomise",
    "rounded",
    "special_ids",
    "write_module",
    "write_state",
]

TOLERANCE = 1e-4  # of what is compared: of its standard deviation; of attention weights, absolute
NEW_TOKENS = 8


class Reference(Protocol):
    """An original model. `residuals`, `patterns` and `generate` are about the last call of `logits`.

    Attributes:
        pads: whether `logits` takes `mask`, for batches with padding on the left.
    """

    pads: bool

    def logits(self, input_ids: Tensor, pixels: Tensor, mask: Tensor | None = None) -> Tensor:
        """[batch pos d_vocab] of ids [batch pos] and prepared frames [batch frame channel height width].

        `mask` [batch pos] is False at padding.
        """

    def residuals(self) -> Sequence[Tensor]:
        """After every layer, before the final norm [batch pos d_model]."""

    def patterns(self) -> Sequence[Tensor]:
        """Of every layer, computed eagerly [batch head query key]."""

    def generate(self, n: int) -> Tensor:
        """Greedy continuation, never stopping [batch n]."""


class _Watching:
    """Keeps what layers and their attention give, by forward hooks: no final norm in the last residual."""

    def __init__(self, layers: Sequence[nn.Module], attention: str = "self_attn") -> None:
        self._residuals: list[Tensor] = []
        self._patterns: list[Tensor] = []
        for layer in layers:
            layer.register_forward_hook(self._after_layer)
            layer.get_submodule(attention).register_forward_hook(self._after_attention)

    def _after_layer(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._residuals.append(output if isinstance(output, Tensor) else output[0])

    def _after_attention(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._patterns.append(output[1])

    def forget(self) -> None:
        self._residuals.clear()
        self._patterns.clear()

    def residuals(self) -> list[Tensor]:
        """See `Reference`."""
        return list(self._residuals)

    def patterns(self) -> list[Tensor]:
        """See `Reference`."""
        return list(self._patterns)


class HuggingFaceReference(_Watching):
    """Any transformers class, with eager attention.

    Args:
        module: the model, in float32.
        inputs: (ids, pixels) → its keyword arguments, in its own pixel layout.
        decoder: path of the text model that has `layers`; None: `module.get_decoder()`.
    """

    pads = True

    def __init__(
        self,
        module: Any,
        inputs: Callable[[Tensor, Tensor], dict[str, Any]],
        *,
        decoder: str | None = None,
    ) -> None:
        self.module = module.eval()
        module.set_attn_implementation("eager")
        # with none of these, generation never stops, and forbids no token either
        module.generation_config.eos_token_id = None
        text = module.get_decoder() if decoder is None else module.get_submodule(decoder)
        super().__init__(text.layers)
        self.inputs = inputs
        self._last: dict[str, Any] = {}

    @torch.no_grad()
    def logits(self, input_ids: Tensor, pixels: Tensor, mask: Tensor | None = None) -> Tensor:
        """See `Reference`."""
        self.forget()
        everywhere = torch.ones_like(input_ids) if mask is None else mask.to(input_ids.dtype)
        self._last = {**self.inputs(input_ids, pixels), "attention_mask": everywhere}
        return self.module(**self._last, use_cache=False).logits

    @torch.no_grad()
    def generate(self, n: int) -> Tensor:
        """See `Reference`."""
        ids = self.module.generate(**self._last, max_new_tokens=n, do_sample=False, pad_token_id=0)
        # some classes embed the prompt themselves and return only what is new
        return ids[:, -n:]


class PlainReference(_Watching):
    """An original written in plain torch: `module(ids, pixels)` → logits, and `layers` with `self_attn`.

    Args:
        module: called with ids [batch pos], every placeholder in place, and pixels [batch frame channel height width].
        layers: its decoder layers, whose output is the residual after them.
        attention: path of the attention below a layer; its output is a tuple whose second element is the pattern.
    """

    pads = False

    def __init__(self, module: nn.Module, layers: Sequence[nn.Module], *, attention: str = "self_attn") -> None:
        super().__init__(layers, attention)
        self.module = module.eval()
        self._last: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def logits(self, input_ids: Tensor, pixels: Tensor, mask: Tensor | None = None) -> Tensor:
        """See `Reference`."""
        assert mask is None, "a plain reference knows no padding"
        self.forget()
        self._last = (input_ids, pixels)
        return self.module(input_ids, pixels)

    @torch.no_grad()
    def generate(self, n: int) -> Tensor:
        """See `Reference`: the whole prompt again for every token."""
        assert self._last is not None
        ids, pixels = self._last
        for _ in range(n):
            ids = torch.cat([ids, self.module(ids, pixels)[:, -1:].argmax(-1)], dim=1)
        return ids[:, -n:]


def ids_around(
    video: Sequence[int], *, before: int = 4, after: int = 9, bos: int | None = 1, words: int = 90, seed: int = 0
) -> Tensor:
    """Ids [1 pos]: random words (3 … `words` − 1) before and after what stands for the video."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(3, words, (before + after,), generator=generator).tolist()
    if bos is not None:
        text[0] = bos
    return torch.tensor([[*text[:before], *video, *text[before:]]])


def _written(ours: HookedVideoTransformer, prompt: Prompt) -> Tensor:
    """Greedy tokens without a tokenizer: with one, padded ids are never chosen, and the original may choose them."""
    kept, ours.tokenizer = ours.tokenizer, None
    try:
        return ours.generate(prompt, NEW_TOKENS, stop_at_eos=False).tokens
    finally:
        ours.tokenizer = kept


@torch.no_grad()
def prove(
    ours: HookedVideoTransformer, reference: Reference, prompts: Sequence[Prompt], *, tolerance: float = TOLERANCE
) -> dict[str, float]:
    """Assert that a converted model is its original.

    1. For every prompt: logits, the residual after every layer, every head's pattern, 8 greedy tokens.
    2. The prompts, of unequal length, as one batch padded on the left: our logits and tokens are those of the single
       prompts; where the original can pad, its own batch gives the same.
    3. Cutting everything after the video off from it moves the last logits by 100 times the tolerance or more, so
       that 1. could have failed.

    Args:
        ours: loaded from a directory, in float32.
        reference: the original.
        prompts: two or more, of unequal length and with pixels of one shape.
        tolerance: of the standard deviation of what is compared (of 1 for patterns).

    Returns:
        The largest difference of each kind, in those units, and by how much the cut moved the logits.
    """
    assert len({prompt.shape[1] for prompt in prompts}) > 1, "prove needs prompts of unequal length"
    assert all(len(prompt) == 1 and prompt.pixel_values is not None for prompt in prompts)
    worst: dict[str, float] = {}

    def same(what: str, found: Tensor, wanted: Tensor, scale: Tensor | float, *, where: str = "") -> None:
        assert found.shape == wanted.shape, f"{what}{where}: {tuple(found.shape)}, the original's {tuple(wanted.shape)}"
        off = float((found - wanted).abs().max() / scale)
        worst[what] = max(worst.get(what, 0.0), off)
        assert off <= tolerance, f"{what}{where} differs by {off:.1e} of its standard deviation, {tolerance} allowed"

    # 1.
    alone = []
    for i, prompt in enumerate(prompts):
        expected = reference.logits(prompt.input_ids, prompt.pixel_values)
        residuals, patterns = reference.residuals(), reference.patterns()
        assert len(residuals) == len(patterns) == ours.cfg.n_layers
        logits = ours(prompt)
        same("logits", logits, expected, expected.std(), where=f" of prompt {i}")
        _, cache = ours.run_with_cache(prompt, names_filter=lambda name: name.endswith(("resid_post", "hook_pattern")))
        for layer, (residual, pattern) in enumerate(zip(residuals, patterns, strict=True)):
            here = f" after layer {layer} of prompt {i}"
            same("residual", cache["resid_post", layer], residual, residual.std(), where=here)
            same("pattern", cache["pattern", layer], pattern, 1.0, where=here)
        written = _written(ours, prompt)
        assert written.tolist() == reference.generate(NEW_TOKENS).tolist(), f"greedy tokens of prompt {i}"
        alone.append((logits[0], written[0]))

    # 2.
    batch = Prompt.batch(prompts)
    together, written = ours(batch), _written(ours, batch)
    starts = batch.padding
    for row, (logits, tokens) in enumerate(alone):
        same("batch", together[row, starts[row] :], logits, logits.std(), where=f", row {row}")
        assert written[row].tolist() == tokens.tolist(), f"greedy tokens of row {row} of the batch"
    if reference.pads:
        mask = torch.arange(batch.shape[1]) >= torch.tensor(starts)[:, None]
        pixels = torch.cat([prompt.pixel_values for prompt in prompts])
        expected = reference.logits(batch.input_ids, pixels, mask)
        for row, start in enumerate(starts):
            wanted = expected[row, start:]
            same("padded batch", together[row, start:], wanted, wanted.std(), where=f", row {row}")
        assert written.tolist() == reference.generate(NEW_TOKENS).tolist(), "greedy tokens of the padded batch"

    # 3.
    video = prompts[0].tokens["video"]

    def cut(mask: Tensor, hook: Any) -> Tensor:
        mask[..., int(video[-1]) + 1 :, video] = False
        return mask

    hooks = [(f"blocks.{layer}.attn.hook_mask", cut) for layer in range(ours.cfg.n_layers)]
    before = alone[0][0]
    moved = (ours.run_with_hooks(prompts[0], fwd_hooks=hooks) - before)[:, -1].abs().max() / before.std()
    worst["knockout"] = float(moved)
    assert moved >= 100 * tolerance, f"a knockout moves the logits by only {float(moved):.1e} of their deviation"
    return worst
