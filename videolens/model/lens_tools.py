"""More of what TransformerLens' users look for on a model: circuits, labels, loss; and where what is not here is."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor
from transformer_lens import FactoredMatrix

from videolens.errors import ModelError, UnknownNameError
from videolens.model.lens_surface import LensSurface
from videolens.prompt.prompt import Prompt

_ELSEWHERE = {
    "embed": "model.frontend.embed is the embedding, model.frontend.embed_text(ids) applies it",
    "pos_embed": "positions are rotary: there is no embedding of them",
    "W_pos": "positions are rotary: there is no embedding of them",
    "W_E_pos": "positions are rotary: there is no embedding of them",
    "fold_layer_norm": "load with from_pretrained(name, fold_ln=True)",
    "process_weights_": "load with from_pretrained(name, fold_ln=True)",
    "process_weights": "load with from_pretrained(name, fold_ln=True)",
    "enable_compatibility_mode": "load with from_pretrained(name, fold_ln=True)",
    "center_writing_weights": "an RMS norm does not centre, so nothing can be centred exactly",
    "center_unembed": "softmax does not see it: logits - logits.mean(-1, keepdim=True)",
    "input_to_embed": "prompt.residual is what enters layer 0, before the hook point hook_embed",
    "get_token_position": "prompt.tokens[name] are positions: 'stem', 'frame 3', 'true option', 'last'",
    "set_tokenizer": "from_hugging_face(module, tokenizer=…)",
    "generate_stream": "model.generate(prompt) gives the whole text",
    "original_model": "from_hugging_face(module) shares the weights of a module that you have",
    "from_pretrained_no_processing": "from_pretrained processes nothing, unless you give fold_ln=True",
    "boot_transformers": "HookedVideoTransformer.from_pretrained(name), or from_hugging_face(module)",
    "sample_datapoint": "vl.load_dataset(name) gives Questions",
    "load_sample_training_dataset": "vl.load_dataset(name) gives Questions",
}


class _Labels(list):
    """A list that may be called: `all_head_labels` was a method of TransformerLens before it became a property."""

    def __call__(self) -> list[str]:
        return list(self)


class LensTools(LensSurface):
    """Names of TransformerLens 4.3 that no other part of this package needs."""

    def __getattr__(self, name: str) -> Any:
        """What a module holds; a name that only TransformerLens has is an error that says what to use here."""
        try:
            return super().__getattr__(name)
        except AttributeError as error:
            if name in _ELSEWHERE:
                raise UnknownNameError(f"a HookedVideoTransformer has no {name}: {_ELSEWHERE[name]}") from None
            raise error

    # -- circuits -----------------------------------------------------------------------------------------------------

    @property
    def OV(self) -> FactoredMatrix:
        """What each head writes for what it reads: W_V W_O [layer head d_model d_model], factored."""
        return FactoredMatrix(self._per_head(self.W_V), self.W_O)

    @property
    def QK(self) -> FactoredMatrix:
        """What each head looks for: W_Q W_Kᵀ [layer head d_model d_model], factored; before rotary positions."""
        return FactoredMatrix(self.W_Q, self._per_head(self.W_K).transpose(-2, -1))

    def _per_head(self, weight: Float[Tensor, "layer n_kv d d_"]) -> Float[Tensor, "layer head d d_"]:
        return weight.repeat_interleave(self.cfg.n_heads // weight.shape[1], dim=1)

    @property
    def all_head_labels(self) -> list[str]:
        """ "L0H0", "L0H1", …: layer and head, both from 0."""
        return _Labels(f"L{layer}H{head}" for layer in range(self.cfg.n_layers) for head in range(self.cfg.n_heads))

    # -- biases -------------------------------------------------------------------------------------------------------

    @property
    def b_Q(self) -> Float[Tensor, "layer head d_head"]:
        """Query biases of all layers, a copy."""
        return torch.stack([block.attn.b_Q.to(self.frontend.device) for block in self.blocks])

    @property
    def b_K(self) -> Float[Tensor, "layer n_kv d_head"]:
        """Key biases of all layers, a copy."""
        return torch.stack([block.attn.b_K.to(self.frontend.device) for block in self.blocks])

    @property
    def b_V(self) -> Float[Tensor, "layer n_kv d_head"]:
        """Value biases of all layers, a copy."""
        return torch.stack([block.attn.b_V.to(self.frontend.device) for block in self.blocks])

    @property
    def b_O(self) -> Float[Tensor, "layer d_model"]:
        """Attention output biases of all layers, a copy."""
        return torch.stack([block.attn.b_O.to(self.frontend.device) for block in self.blocks])

    @property
    def b_in(self) -> Float[Tensor, "layer d_mlp"]:
        """Biases of the factor that is gated, of all layers, a copy."""
        return torch.stack([block.mlp.b_in.to(self.frontend.device) for block in self.blocks])

    @property
    def b_out(self) -> Float[Tensor, "layer d_model"]:
        """MLP output biases of all layers, a copy."""
        return torch.stack([block.mlp.b_out.to(self.frontend.device) for block in self.blocks])

    # -- tokens and loss ----------------------------------------------------------------------------------------------

    def to_single_str_token(self, int_token: int) -> str:
        """One token id as text."""
        return self.shown(int_token)

    def loss_fn(
        self,
        logits: Float[Tensor, "batch pos d_vocab"],
        tokens: Prompt | Int64[Tensor, "batch pos"],
        attention_mask: Tensor | None = None,
        per_token: bool = False,
    ) -> Float[Tensor, ""] | Float[Tensor, "batch target"]:
        """Next-token cross entropy, over targets that are neither video nor padding.

        Args:
            logits: of all positions.
            tokens: the prompt that gave them, or its ids.
            attention_mask: [batch pos]; targets where it is 0 do not count.
            per_token: of every target [batch pos − 1], NaN where it does not count; else the mean.

        Raises:
            ModelError: logits and tokens have different positions.
        """
        ids = (tokens.input_ids if isinstance(tokens, Prompt) else tokens).to(logits.device)
        if logits.shape[:2] != ids.shape:
            raise ModelError(f"logits {tuple(logits.shape)} are not those of tokens {tuple(ids.shape)}: [batch pos]")
        counts = ids != self.frontend.video_token
        if isinstance(tokens, Prompt) and tokens.padding:
            starts = torch.tensor(tokens.padding, device=ids.device)[:, None]
            # the first token of a prompt has nothing before it
            counts &= torch.arange(ids.shape[1], device=ids.device) > torch.where(starts > 0, starts, -1)
        if attention_mask is not None:
            counts &= attention_mask.to(ids.device).bool()
        targets = ids.masked_fill(~counts, -100)[:, 1:]
        each = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), targets.flatten(), reduction="none")
        if per_token:
            return each.view(targets.shape).masked_fill(targets == -100, torch.nan)
        return each.sum() / (targets != -100).sum()
