"""Running the decoder: one path for prefill, decoding with a cache and runs resumed in the middle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from videolens.errors import ModelError, check_whole, near
from videolens.model.checkpoints.settings import token_ids
from videolens.model.decoder.config import ATTENTION_PATHS
from videolens.model.decoder.rows import KeyValues, Rows, Where, fire, positions_of
from videolens.model.decoder.views import padded_views
from videolens.model.finite import check_logits, check_stage
from videolens.model.listening import Listening
from videolens.model.turns import a_run
from videolens.prompt.prompt import Prompt


class Running(Listening):
    """`forward` and its pieces: enter the residual stream, run layers, read out."""

    hook_embed: HookPoint
    ends: tuple[int, ...] = ()  # ids of generation_config.json

    @a_run()
    def forward(
        self,
        input: Prompt | Int64[Tensor, "batch pos"] | str | list[str],
        *,
        return_type: Literal["logits", "loss"] | None = "logits",
        stop_at_layer: int | None = None,
        rows: Where | None = None,
    ) -> Float[Tensor, "batch pos d_vocab"] | Float[Tensor, "batch pos d_model"] | Float[Tensor, ""] | None:
        """Logits [batch pos d_vocab] of a prompt, or of text without video (ids or strings).

        Args:
            input: what to run.
            return_type: "logits"; "loss": mean next-token cross entropy over targets that are neither video nor
                padding (`loss_fn`); None: nothing.
            stop_at_layer: give the residual stream [batch pos d_model] that enters this layer instead; −1 is the last
                layer.
            rows: the query rows, as a selection or positions, whose attention scores and patterns hook functions see:
                [batch head rows key]. All other rows stay with the fused kernels, so the pattern of one word costs one
                row at any length. None: all rows.

        Raises:
            ModelError: more tokens than the context, ids outside the vocabulary, video placeholders without their
                video, neither prompt nor ids nor text, an unknown `return_type`, a layer that does not exist, logits
                that are not finite (names the first layer where that begins).
        """
        if return_type not in ("logits", "loss", None):
            raise ModelError(near(return_type, ("logits", "loss"), kind="return_type") + ", or None")
        n_layers = self.cfg.n_layers
        if stop_at_layer is not None:
            check_whole("stop_at_layer", stop_at_layer, least=-n_layers, most=n_layers, error=ModelError)
        if isinstance(input, (str, list)):
            input = self.to_tokens(input)
        watched = None if rows is None else positions_of(input, rows).to(self.frontend.device)
        residual, at = self.enter(input)
        at = at if watched is None else replace(at, watched=watched)
        residual = self.run_layers(residual, at, stop=stop_at_layer)
        if stop_at_layer is not None:
            return residual
        logits = self.read_out(residual, at)
        if return_type == "logits":
            return logits
        if return_type is None:
            return None
        return self.loss_fn(logits, input)

    def enter(
        self, input: Prompt | Int64[Tensor, "batch pos"], *, past: KeyValues | None = None
    ) -> tuple[Float[Tensor, "batch row d_model"], Rows]:
        """A new copy of the layer-0 residual of a whole prompt, and its rows. `past` keeps their keys and values."""
        ids_given = isinstance(input, Tensor) and input.ndim == 2 and input.dtype in (torch.int32, torch.int64)
        if not isinstance(input, Prompt) and not ids_given:
            what = f"{input.dtype} {tuple(input.shape)}" if isinstance(input, Tensor) else type(input).__name__
            raise ModelError(
                f"the model runs on a Prompt or on token ids [batch pos], got {what}; model.prompt(question) makes a "
                "prompt of a Question"
            )
        if isinstance(input, Prompt) and input.device != self.frontend.device:
            input = input.to(self.frontend.device)
        n_pos = input.shape[1]
        if n_pos > self.cfg.n_ctx:
            raise ModelError(f"{n_pos} tokens are more than the context of {self.cfg.n_ctx}: shorten the input")
        positions = torch.arange(n_pos, device=self.frontend.device)
        views = None
        if isinstance(input, Prompt):
            views = padded_views(input.padding, positions, positions)
            if input.residual.shape[-1] != self.cfg.d_model:
                raise ModelError(
                    f"the prompt's residual is {input.residual.shape[-1]} wide, this model {self.cfg.d_model}: a "
                    "prompt belongs to the model that made it"
                )
            self.frontend.check_made_here(input)
            cos, sin = (table.to(self.frontend.dtype) for table in input.rotary)
            at = Rows(rows=positions, keys=positions, cos=cos, sin=sin, past=past, views=views)
            residual, at = self.frontend.entering(input, at)
        else:
            ids = input.to(self.frontend.device)
            self.check_ids(ids)
            if bool((ids == self.frontend.video_token).any()):
                raise ModelError(
                    f"the ids hold the video placeholder {self.frontend.video_token} but no video: make a prompt with "
                    "model.prompt(question) or model.prompt_from_ids(input_ids, pixel_values)"
                )
            residual = self.frontend.embed_text(ids)
            cos, sin = self.frontend.rotary(residual, positions[None])
            at = Rows(rows=positions, keys=positions, cos=cos, sin=sin, past=past)
        return self._embedded(residual, at), at

    def enter_token(
        self,
        token: Int64[Tensor, " batch"],
        *,
        position: int,
        past: KeyValues,
        rotary: Sequence[int] = (),
        padding: Sequence[int] = (),
    ) -> tuple[Float[Tensor, "batch 1 d_model"], Rows]:
        """The layer-0 residual of one new token per prompt, after the positions that `past` holds.

        Args:
            token: ids.
            position: of these tokens: the number of positions before.
            past: keys and values of those.
            rotary: rotary position of each, where it is not its position.
            padding: of each prompt.
        """
        residual = self.frontend.embed_text(token[:, None])
        row, keys = torch.tensor([position], device=residual.device), torch.arange(position + 1, device=residual.device)
        along = torch.tensor(rotary, device=residual.device)[:, None] if rotary else row[None]
        cos, sin = self.frontend.rotary(residual, along)
        at = Rows(rows=row, keys=keys, cos=cos, sin=sin, past=past, views=padded_views(padding, row, keys))
        return self._embedded(residual, at), at

    def _embedded(self, residual: Tensor, at: Rows) -> Tensor:
        listened = torch.is_grad_enabled() and any(point._backward_hooks for point in self.hook_dict.values())
        if listened and not residual.requires_grad:
            residual = residual.detach().requires_grad_().clone()
        residual = fire(self.hook_embed, residual, at)
        check_stage(residual, -1, self.frontend.embed)
        return residual

    def run_layers(
        self, residual: Float[Tensor, "batch row d_model"], at: Rows, *, start: int = 0, stop: int | None = None
    ) -> Float[Tensor, "batch asked d_model"]:
        """Layers start … stop − 1 on the rows of `at`: the whole decoder for prefill, decoding and resumed runs. Of the
        rows, those that `at` asks for come out; only a single layer may ask for fewer than it is given."""
        for block in self.blocks[start:stop]:
            residual = block(residual, at)
        return residual

    def read_out(self, residual: Float[Tensor, "batch row d_model"], at: Rows) -> Float[Tensor, "batch row d_vocab"]:
        """Logits of rows that have passed all layers.

        Raises:
            ModelError: some are not finite.
        """
        logits = self.unembed(self.ln_final(residual, at))
        check_logits(logits)
        return logits

    @contextmanager
    def attention_path(self, path: str) -> Iterator[Running]:
        """Compute attention one way everywhere inside the block: "auto", "sdpa" or "eager".

        The two differ by rounding (in bfloat16 visibly), so runs that are compared with each other should take the
        same.
        """
        if path not in ATTENTION_PATHS:
            raise ModelError(near(path, ATTENTION_PATHS, kind="attention path"))
        with self.turns.taken(self, alone=True):
            before = self.cfg.attention_path
            self.cfg.attention_path = path
            try:
                yield self
            finally:
                self.cfg.attention_path = before

    def _apply(self, fn: Any, recurse: bool = True) -> Running:
        super()._apply(fn, recurse)
        self.cfg.device, self.cfg.dtype = str(self.frontend.device), self.frontend.dtype
        return self

    def check_ids(self, ids: Int64[Tensor, "batch pos"]) -> None:
        """Raise a `ModelError` for ids that are neither in the vocabulary nor the video placeholder."""
        known = (ids >= 0) & (ids < self.frontend.embed.num_embeddings) | (ids == self.frontend.video_token)
        if not bool(known.all()):
            raise ModelError(
                f"token ids {ids[~known].unique().tolist()[:5]} are outside the vocabulary of "
                f"{self.frontend.embed.num_embeddings}; ids made by to_tokens(prompt) only name positions: pass the "
                "prompt itself"
            )

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """Where it lies: the device of front end, final norm and unembedding, then others that layers are on."""
        return tuple(dict.fromkeys([self.frontend.device, *(block.device for block in self.blocks)]))

    @property
    def eos_tokens(self) -> list[int]:
        """Ids that end an answer: those that tokenizer, config.json or generation_config.json name, all of them."""
        config = self.frontend.config
        named = [getattr(each, "eos_token_id", None) for each in (self.tokenizer, config, config.get_text_config())]
        return sorted({*self.ends}.union(*map(token_ids, named)))
