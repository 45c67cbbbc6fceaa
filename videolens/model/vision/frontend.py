"""The front end: from pixels and token ids to what enters the decoder's first layer.

frame, patch: of the vision tower's output; video: video tokens of a prompt; d_vision: width of the tower's output.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from videolens.errors import ModelError, PromptError, refusing
from videolens.model.decoder.rows import Rows, fire, is_listened_to
from videolens.model.families import Family
from videolens.model.identity import Weights, digest
from videolens.model.vision.tower_memory import Tower, TowerMemory
from videolens.prompt.prompt import Maker, Prompt


class Rotary(nn.Module):
    """The checkpoint's own rotary module, whose frequencies stay in float32 whatever the model is converted to."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def _apply(self, fn: Any, recurse: bool = True) -> Rotary:
        # bfloat16 frequencies put angles at position 1000 several radians off.
        exact = {name: buffer.clone() for name, buffer in self.module.named_buffers()}
        super()._apply(fn, recurse)
        for name, buffer in self.module.named_buffers():
            buffer.data = exact[name].to(buffer.device)
        return self

    def forward(
        self, like: Float[Tensor, "..."], positions: Int64[Tensor, "*axes batch row"]
    ) -> tuple[Float[Tensor, "batch row d_rotary"], Float[Tensor, "batch row d_rotary"]]:
        """Cosine and sine tables at rotary positions, in the dtype and on the device of `like`.

        Multimodal ones have three axes (time, height, width), which the checkpoint's module folds into one table.
        """
        if self.switches_after is not None and positions.ndim == 2 and len(positions) > 1:
            # frequencies follow the largest position: each prompt of a batch has its own
            tables = [self.module(like, row[None]) for row in positions]
            return torch.cat([cos for cos, _ in tables]), torch.cat([sin for _, sin in tables])
        cos, sin = self.module(like, positions)
        return cos, sin

    @property
    def switches_after(self) -> int | None:
        """Positions up to which one set of frequencies holds, in models that have another one for longer prompts."""
        if "longrope" not in str(getattr(self.module, "rope_type", "")):
            return None
        config: Any = self.module.config
        return int(config.rope_parameters["original_max_position_embeddings"])


class FrontEnd(nn.Module):
    """Vision tower, projector and embedding.

    `hook_video_features` [batch frame patch d_vision] is what the tower gives, `hook_video_tokens` [batch placeholder
    d_model] what takes the placeholders' place: video tokens, and the newlines that a model has a parameter for. The
    tower runs once per clip, when a prompt is made of it. While a hook point has hook functions, a forward recomputes
    what lies between it and the residual; otherwise the prompt's stored residual is used as it is.
    """

    def __init__(
        self,
        family: Family,
        config: Any,
        *,
        name: str,
        parts: dict[str, nn.Module | nn.Parameter],
        embed: nn.Embedding,
        rotary: Rotary,
    ):
        super().__init__()
        self.family, self.config, self.model_name = family, config, name
        self.video_token = family.video_token(config)
        self.parts = nn.ModuleDict({name: part for name, part in parts.items() if isinstance(part, nn.Module)})
        self.single = nn.ParameterDict({name: part for name, part in parts.items() if isinstance(part, nn.Parameter)})
        self.embed, self.rotary = embed, rotary
        self.hook_video_features = HookPoint()
        self.hook_video_tokens = HookPoint()
        self.memory = TowerMemory()
        self._known: tuple[Weights, object, Maker] | None = None  # weights, tower, and what prompts say of them

    def _apply(self, fn: Any, recurse: bool = True) -> FrontEnd:
        self.memory.clear()  # what is kept is not kept where the model was, or in the dtype that it had
        self._known = None
        # a tower may have rotary frequencies of its own, which stay exact as the decoder's do
        frequencies = [
            (module, name, buffer)
            for module in self.parts.modules()
            for name, buffer in module.named_buffers(recurse=False)
            if name.endswith("inv_freq")
        ]
        super()._apply(fn, recurse)
        for module, name, exact in frequencies:
            moved = getattr(module, name)
            module._buffers[name] = exact.to(moved.device)
        return self

    @property
    def maker(self) -> Maker:
        """What prompts made now say of their origin: the model's name, and a digest of the front end's weights.

        Weights are read once, and again only after they have changed.
        """
        known = self._known
        if known is None or known[1] is not self.memory.tower or not known[0].are_those_of(self):
            known = self._known = (Weights(self), self.memory.tower, Maker(self.model_name, digest(self)))
        return known[2]

    def check_made_here(self, prompt: Prompt) -> None:
        """Raises:
        ModelError: the prompt was made by another model, or before weights of this front end were changed.
        """
        if (made_by := prompt.made_by) is None:  # put together by hand
            return
        own = self.maker
        if made_by.digest != own.digest:
            why = "prompts are not passed on from model to model"
            if made_by.name == own.name:
                why = "its weights have changed since, or it is another checkpoint under the same name"
            raise ModelError(
                f"the prompt was made by the front end of {made_by}, and this model is {own}: {why}. Make the prompt "
                "with the model that runs it: model.prompt(question)"
            )

    @property
    def dtype(self) -> torch.dtype:
        """Of the decoder and everything that enters it."""
        return self.embed.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.embed.weight.device

    def encode(
        self, pixels: Float[Tensor, "batch frame channel height width"], *, gradients: bool = False
    ) -> Float[Tensor, "batch frame_of_grid patch d_vision"]:
        """The vision tower's features of clips, computed now: `features` computes each clip's once.

        A `ModelError` if the tower does not take frames of this size. `gradients`: pass them to the pixels.
        """
        pixels = pixels.to(self.device, self.dtype)
        vision = getattr(self.config, "vision_config", None)
        expected = getattr(vision, "image_size", "of another size")
        what = (
            f"the vision tower does not take pixels of shape {tuple(pixels.shape)} [batch frame channel height width]; "
            f"it expects 3 channels and frames of {expected} pixels: prepare them with model.pixels"
        )
        with refusing(ModelError, what), nullcontext() if gradients else torch.no_grad():
            return self.family.features(self._parts, pixels, self.config)

    def features(
        self, pixels: Float[Tensor, "clip frame channel height width"]
    ) -> Float[Tensor, "clip frame_of_grid patch d_vision"]:
        """What `encode` gives for each of the clips, computed once per clip: see `TowerMemory`."""
        tower = Tower(self.parts, self.encode, self.family.features, self.config, self.device, self.dtype)
        return self.memory.features(tower, pixels)

    def project(
        self, features: Float[Tensor, "batch frame patch d_vision"], grid: tuple[int, int, int]
    ) -> Float[Tensor, "batch placeholder d_model"]:
        """What takes the placeholders' place, from the tower's features: video tokens, and a model's own newlines."""
        with refusing(
            ModelError, f"the projector makes no video tokens of a grid {grid}: config.json contradicts itself"
        ):
            return self.family.project(self._parts, features, self.config, grid).to(self.dtype)

    def deepstack(
        self,
        features: Float[Tensor, "batch frame patch d_vision"],
        grid: tuple[int, int, int],
        input_ids: Int64[Tensor, "batch pos"],
    ) -> tuple[Float[Tensor, "batch pos d_model"], ...]:
        """What is added to the residual stream after layer 0, 1, …: the family's features at the placeholders, zeros
        elsewhere. Nothing in families without deepstack features."""
        if self.family.deepstack is None or not self.family.deepstack.layers(self.config):
            return ()
        with refusing(
            ModelError, f"the tower gives no deepstack features of a grid {grid}: config.json contradicts itself"
        ):
            layers = self.family.deepstack.features(self._parts, features, self.config, grid).to(self.dtype)
        positions = self.video_positions(input_ids)
        nothing = layers.new_zeros(layers.shape[1], input_ids.shape[1], layers.shape[-1])
        return tuple(nothing.index_copy(1, positions, layer) for layer in layers)

    def shown(self, prompt: Prompt, pixels: Float[Tensor, "batch frame channel height width"]) -> Prompt:
        """The prompt with other pixels in the place of its own. Its residual passes gradients to them, through
        projector and tower.

        Args:
            prompt: of a video.
            pixels: prepared pixels, of the shape of the prompt's own.

        Raises:
            PromptError: the prompt has no video, or pixels of another shape.
        """
        own = None if prompt.pixel_values is None else tuple(prompt.pixel_values.shape)
        if tuple(pixels.shape) != own:
            raise PromptError(
                f"pixels {tuple(pixels.shape)} cannot take the place of the prompt's own, {own or 'which has none'}: "
                "prepare as many frames of the same size with model.pixels"
            )
        features = self.encode(pixels, gradients=True)
        video = self.project(features, prompt.tokens.grid)
        residual = prompt.residual.to(video.dtype).index_copy(1, self.video_positions(prompt.input_ids), video)
        stacked = self.deepstack(features, prompt.tokens.grid, prompt.input_ids)
        return replace(prompt, pixel_values=pixels, video_features=features, residual=residual, deepstack=stacked)

    @property
    def _parts(self) -> dict[str, nn.Module | nn.Parameter]:
        return {**dict(self.parts.items()), **dict(self.single.items())}

    def embed_text(self, input_ids: Int64[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_model"]:
        """Embeddings of token ids; the video placeholder may lie outside the embedding's range."""
        outside = input_ids >= self.embed.num_embeddings
        return self.embed(input_ids.masked_fill(outside & (input_ids == self.video_token), 0))

    def entering(self, prompt: Prompt, at: Rows) -> tuple[Float[Tensor, "batch pos d_model"], Rows]:
        """A new copy of a prompt's layer-0 residual, and its rows with the prompt's deepstack features, both through
        the front end's hook points that have hook functions.

        A `PromptError` if these act on features that the prompt no longer has.
        """
        stored = prompt.residual.to(self.dtype)
        at = replace(at, deepstack=tuple(one.to(self.dtype) for one in prompt.deepstack))
        listened = is_listened_to(self.hook_video_features) or is_listened_to(self.hook_video_tokens)
        if not listened or not bool((prompt.input_ids == self.video_token).any()):
            return stored.clone(), at
        positions = self.video_positions(prompt.input_ids)
        here = Rows(rows=positions, keys=positions, cos=at.cos[:, positions], sin=at.sin[:, positions])
        if is_listened_to(self.hook_video_features):
            features = prompt.video_features
            if features is None and prompt.pixel_values is not None:
                features = self.features(prompt.pixel_values)
            if features is None:
                raise PromptError("frontend.hook_video_features needs a prompt with its video_features or pixel_values")
            features = self._traced(features.clone(), self.hook_video_features)
            features, grid = fire(self.hook_video_features, features, here), prompt.tokens.grid
            video = self.project(features, grid)
            at = replace(at, deepstack=self.deepstack(features, grid, prompt.input_ids))
        else:
            video = self._traced(stored[:, positions], self.hook_video_tokens)
        video = fire(self.hook_video_tokens, video, here)
        return stored.clone().index_copy(1, positions, video), at

    @staticmethod
    def _traced(value: Tensor, point: HookPoint) -> Tensor:
        """Let gradients start here if a hook function reads them."""
        wanted = bool(point._backward_hooks) and torch.is_grad_enabled()
        return value.detach().requires_grad_().clone() if wanted else value

    def video_positions(self, input_ids: Int64[Tensor, "batch pos"]) -> Int64[Tensor, " video"]:
        """Where the placeholders are; a `ModelError` if that is not at the same places in every row."""
        where = input_ids == self.video_token
        if not bool((where == where[:1]).all()):
            raise ModelError(
                f"the video placeholder {self.video_token} is at different places in the rows of this batch "
                f"({where.sum(1).tolist()} placeholders per row): rows of one prompt share one layout"
            )
        return where[0].nonzero().flatten()
