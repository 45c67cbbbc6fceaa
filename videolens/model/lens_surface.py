"""What TransformerLens' own tools ask of a model besides its hook points: tokens, weights, directions, switches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from transformer_lens import HookedRootModule

from videolens.errors import ModelError, PromptError, check_text, check_whole, refusing
from videolens.prompt.prompt import Prompt

if TYPE_CHECKING:
    from videolens.model.decoder.block import Block
    from videolens.model.decoder.config import VideoTransformerConfig
    from videolens.model.decoder.layers import RMSNorm, Unembed
    from videolens.model.vision.frontend import FrontEnd


class LensSurface(HookedRootModule):
    """The protocol `TransformerLensModelWithWeights` of TransformerLens 4.3, and the weights by their usual names."""

    cfg: VideoTransformerConfig
    frontend: FrontEnd
    blocks: Sequence[Block]
    ln_final: RMSNorm
    unembed: Unembed
    tokenizer: Any

    # -- tokens -------------------------------------------------------------------------------------------------------

    def to_tokens(
        self,
        input: str | list[str] | Prompt | Tensor,
        prepend_bos: bool | None = None,
        padding_side: str | None = None,
        move_to_device: bool = True,
        truncate: bool = True,
    ) -> Int64[Tensor, "batch pos"]:
        """Token ids of text.

        Of a `Prompt`: its ids, with the i-th video token as `d_vocab + i`, so that tools which compare ids
        (TransformerLens' head detector) do not take all video tokens for one word. Such ids name positions; the model
        does not run on them.

        Args:
            input: text, a list of texts (padded to one length), a prompt, or ids that are returned as they are.
            prepend_bos: begin with the tokenizer's beginning-of-sequence token; None: as the tokenizer itself does.
            padding_side: "left" or "right"; None: the tokenizer's own.
            move_to_device: put the ids where the model is.
            truncate: cut what does not fit the context.

        Raises:
            ModelError: the checkpoint has no tokenizer.
            PromptError: text with a lone surrogate.
        """
        if isinstance(input, Prompt):
            ids = input.input_ids.clone()
            video = input.tokens["video"].to(ids.device)
            ids[:, video] = self.cfg.d_vocab + torch.arange(len(video), device=ids.device)
            return ids
        if isinstance(input, Tensor):
            return input
        texts = [input] if isinstance(input, str) else input
        if not isinstance(texts, (list, tuple)) or not texts or not all(isinstance(text, str) for text in texts):
            raise ModelError(
                f"text is one string or a list of them, got {input!r:.80}; of a Question make a prompt: "
                "model.prompt(question)"
            )
        tokenizer = self._tokenizer()
        bos = tokenizer.bos_token_id
        for text in texts:
            check_text("the text", text, error=PromptError)
        rows = [tokenizer(text)["input_ids"] for text in texts]
        if prepend_bos is not None and bos is not None:
            rows = [[bos] * prepend_bos + (row[1:] if row[:1] == [bos] else row) for row in rows]
        if truncate:
            rows = [row[: self.cfg.n_ctx] for row in rows]
        longest, side = max(map(len, rows)), padding_side or tokenizer.padding_side
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (tokenizer.eos_token_id or 0)
        fill = [[pad] * (longest - len(row)) for row in rows]
        padded = [gap + row if side == "left" else row + gap for gap, row in zip(fill, rows, strict=True)]
        ids = torch.tensor(padded, dtype=torch.int64)
        return ids.to(self.frontend.device) if move_to_device else ids

    def to_single_token(self, string: str) -> int:
        """The id of a text that is exactly one token; a `ModelError` shows the pieces if it is several."""
        ids = self.to_tokens(string, prepend_bos=False)[0].tolist()
        if len(ids) != 1:
            pieces = self._tokenizer().convert_ids_to_tokens(ids)
            raise ModelError(f"{string!r} is {len(ids)} tokens, {pieces}, not one: give one of its pieces, or an id")
        return int(ids[0])

    def to_string(self, tokens: Tensor | Sequence[int]) -> str | list[str]:
        """Text of token ids [pos], or of each row of [batch pos]."""
        with refusing(ModelError, f"token ids are whole numbers [pos] or [batch pos], got {tokens!r:.80}"):
            ids = torch.as_tensor(tokens).to(torch.int64)
            return self._tokenizer().batch_decode(ids) if ids.ndim == 2 else self._tokenizer().decode(ids)

    def to_str_tokens(self, input: str | Prompt | Tensor | Sequence[int], prepend_bos: bool | None = None) -> list[str]:
        """Each token of a text or of ids [pos] as a string of its own."""
        if isinstance(input, Prompt):
            ids = input.input_ids[0]
        else:
            ids = self.to_tokens(input, prepend_bos)[0] if isinstance(input, str) else torch.as_tensor(input).flatten()
        return [self.shown(token) for token in ids.tolist()]

    @property
    def padded_ids(self) -> Int64[Tensor, " id"]:
        """Ids that the unembedding has rows for and the tokenizer no token: vocabularies are padded to round numbers.

        None where there is no tokenizer, which then says nothing about ids.
        """
        return torch.tensor(sorted(self._padded), dtype=torch.int64)

    @property
    def _padded(self) -> frozenset[int]:
        known = self.__dict__.get("_padded_of")
        if known is None or known[0] is not self.tokenizer:
            named = range(self.cfg.d_vocab) if self.tokenizer is None else self.tokenizer.get_vocab().values()
            known = self.__dict__["_padded_of"] = (self.tokenizer, frozenset(range(self.cfg.d_vocab)) - {*named})
        return known[1]

    def chosen(self, logits: Float[Tensor, "*batch d_vocab"]) -> Int64[Tensor, "*batch"]:
        """The likeliest token that the tokenizer has: a padded id means nothing, whatever its logit."""
        return self.possible(logits).argmax(-1)

    def possible(self, logits: Float[Tensor, "*batch d_vocab"]) -> Float[Tensor, "*batch d_vocab"]:
        """Logits, −∞ for ids that the tokenizer does not have."""
        return logits.index_fill(-1, self.padded_ids.to(logits.device), -torch.inf) if self._padded else logits

    def shown(self, token: int) -> str:
        """One token as text; "<padded 32005>" where the tokenizer has no such token."""
        if token in self._padded:
            return f"<padded {token}>"
        return str(self._tokenizer().decode([token]))

    def _tokenizer(self) -> Any:
        if self.tokenizer is None:
            raise ModelError(
                f"{self.cfg.model_name!r} has no tokenizer files, so text has no tokens: add them to the checkpoint, "
                "or work with token ids"
            )
        return self.tokenizer

    # -- directions ---------------------------------------------------------------------------------------------------

    def tokens_to_residual_directions(self, tokens: str | int | Tensor) -> Float[Tensor, "*shape d_model"]:
        """Directions whose dot product with the *scaled* final residual is a token's logit.

        TransformerLens' `logit_attrs` divides by the final norm's scale but not by its weight, so the weight is part of
        the direction here: attributions of all components then sum to the logit.
        """
        if isinstance(tokens, str):
            tokens = self.to_single_token(tokens)
        ids = torch.as_tensor(tokens, device=self.W_U.device)
        ids = ids.reshape(()) if ids.numel() == 1 else ids
        return self.W_U.t()[ids] * self.ln_final.w

    def accumulated_bias(
        self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True
    ) -> Float[Tensor, " d_model"]:
        """Sum of the output biases of the layers before `layer`; zeros in models without such biases.

        Args:
            layer: how many layers.
            mlp_input: count the attention of `layer` too.
            include_mlp_biases: count the MLPs' biases.
        """
        check_whole("layer", layer, most=self.cfg.n_layers - mlp_input, error=ModelError)
        total = torch.zeros(self.cfg.d_model, device=self.frontend.device, dtype=self.cfg.dtype)
        for block in self.blocks[:layer]:
            biases = block.attn.b_O + (block.mlp.b_out if include_mlp_biases else 0)
            total = total + biases.to(total.device)
        return total + self.blocks[layer].attn.b_O.to(total.device) if mlp_input else total

    # -- weights ------------------------------------------------------------------------------------------------------

    @property
    def W_E(self) -> Float[Tensor, "d_embed d_model"]:
        """Embedding."""
        return self.frontend.embed.weight

    @property
    def W_U(self) -> Float[Tensor, "d_model d_vocab"]:
        """Unembedding, a view."""
        return self.unembed.W_U

    @property
    def b_U(self) -> Float[Tensor, " d_vocab"]:
        """Unembedding bias: zeros."""
        return self.unembed.b_U

    @property
    def W_Q(self) -> Float[Tensor, "layer head d_model d_head"]:
        """Query weights of all layers, a copy; `blocks[l].attn.W_Q` are views."""
        return torch.stack([block.attn.W_Q.to(self.frontend.device) for block in self.blocks])

    @property
    def W_K(self) -> Float[Tensor, "layer n_kv d_model d_head"]:
        """Key weights of all layers, a copy."""
        return torch.stack([block.attn.W_K.to(self.frontend.device) for block in self.blocks])

    @property
    def W_V(self) -> Float[Tensor, "layer n_kv d_model d_head"]:
        """Value weights of all layers, a copy."""
        return torch.stack([block.attn.W_V.to(self.frontend.device) for block in self.blocks])

    @property
    def W_O(self) -> Float[Tensor, "layer head d_head d_model"]:
        """Attention output weights of all layers, a copy."""
        return torch.stack([block.attn.W_O.to(self.frontend.device) for block in self.blocks])

    @property
    def W_gate(self) -> Float[Tensor, "layer d_model d_mlp"]:
        """Gate weights of all layers, a copy."""
        return torch.stack([block.mlp.W_gate.to(self.frontend.device) for block in self.blocks])

    @property
    def W_in(self) -> Float[Tensor, "layer d_model d_mlp"]:
        """MLP input weights of all layers, a copy."""
        return torch.stack([block.mlp.W_in.to(self.frontend.device) for block in self.blocks])

    @property
    def W_out(self) -> Float[Tensor, "layer d_mlp d_model"]:
        """MLP output weights of all layers, a copy."""
        return torch.stack([block.mlp.W_out.to(self.frontend.device) for block in self.blocks])

    # -- switches -----------------------------------------------------------------------------------------------------

    def set_use_attn_result(self, use_attn_result: bool) -> None:
        """Fire `attn.hook_result`, what each head adds to the residual [batch row head d_model]."""
        self.cfg.use_attn_result = use_attn_result

    def set_use_split_qkv_input(self, use_split_qkv_input: bool) -> None:
        """Fire `attn.hook_{q,k,v}_input`, a copy of the residual per head before the norm [batch row head d_model]."""
        if use_split_qkv_input and self.cfg.use_attn_in:
            raise ModelError("use_split_qkv_input and use_attn_in exclude each other: set_use_attn_in(False) first")
        self.cfg.use_split_qkv_input = use_split_qkv_input

    def set_use_attn_in(self, use_attn_in: bool) -> None:
        """Fire `attn.hook_attn_in`, one copy of the residual per head for queries, keys and values together."""
        if use_attn_in and self.cfg.use_split_qkv_input:
            raise ModelError(
                "use_attn_in and use_split_qkv_input exclude each other: set_use_split_qkv_input(False) first"
            )
        self.cfg.use_attn_in = use_attn_in

    def set_use_hook_mlp_in(self, use_hook_mlp_in: bool) -> None:
        """Fire `hook_mlp_in`, the residual before the MLP's norm."""
        self.cfg.use_hook_mlp_in = use_hook_mlp_in
