"""`HookedVideoTransformer`: a VideoLLM whose every activation can be read and changed under TransformerLens' names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from videolens.errors import ModelError, check_flag
from videolens.model import answering, generation, prompting, resuming
from videolens.model.checkpoints.adapters import refuse_adapters_of
from videolens.model.checkpoints.convert import Converted, convert
from videolens.model.checkpoints.placing import device_named, dtype_named
from videolens.model.checkpoints.quantised import check_quantisation, settle
from videolens.model.checkpoints.read import read_checkpoint
from videolens.model.checkpoints.settings import token_ids
from videolens.model.checkpoints.spreading import DeviceMap, check_device_map, spread
from videolens.model.compiled.running import CompiledPathway
from videolens.model.decoder.layers import unpacked_shape
from videolens.model.families import family_of
from videolens.model.folding import fold_norms
from videolens.model.running import Running
from videolens.model.turns import Turns
from videolens.model.vision.pixels import FrameByFrame, Preparation
from videolens.prompt.prompt import Prompt
from videolens.prompt.template import PromptTemplate
from videolens.question import Question
from videolens.video.video import Video


class HookedVideoTransformer(Running):
    """A converted VideoLLM: Hugging Face's weights, TransformerLens' hook points and tools.

    batch: prompts; pos: positions of a prompt, video tokens in place; row: positions computed in one forward.

    Attributes:
        cfg: shape and switches.
        frontend: vision tower, projector, embedding, rotary tables.
        blocks, ln_final, unembed: the decoder.
        tokenizer: the checkpoint's, or None.
        template: name of the prompt template used when none is given; None: the tokenizer's chat template.
        ends: ids that end an answer, besides those that tokenizer and config name.

    Hook points: `hook_embed` (the whole layer-0 residual), `blocks.{l}.…` as in TransformerLens, two more per layer,
    `blocks.{l}.attn.hook_mask` (boolean, True = may attend) and `blocks.{l}.attn.hook_gate` (what unnormalised
    attention weights are multiplied by), `ln_final.…`, `frontend.hook_video_features` and `frontend.hook_video_tokens`.
    While a forward runs, `hook.ctx["rows"]` and `hook.ctx["keys"]` hold the absolute prompt positions of the tensor's
    rows and keys.
    """

    def __init__(
        self,
        parts: Converted,
        *,
        tokenizer: Any = None,
        pixels: Preparation | None = None,
        template: str | None = None,
        ends: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        self.cfg = parts.cfg
        self.turns = Turns()
        self.tokenizer, self.pixel_settings, self.template = tokenizer, pixels, template
        self.frontend, self.ends = parts.frontend, ends
        self.hook_embed = HookPoint()
        self.blocks = nn.ModuleList(parts.blocks)  # type: ignore[assignment]
        self.ln_final, self.unembed = parts.ln_final, parts.unembed
        if tokenizer is not None:
            self.cfg.default_prepend_bos = tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]
        self.setup()
        self.eval()

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        *,
        dtype: torch.dtype | str | None = None,
        device: str | torch.device = "cpu",
        base: str | os.PathLike[str] | None = None,
        revision: str | None = None,
        fold_ln: bool = False,
        trust_remote_code: bool = False,
        device_map: DeviceMap | None = None,
    ) -> HookedVideoTransformer:
        """Load a bundled model ("shapes", "shapes-image", …), a checkpoint directory, or a repository on the hub.

        A directory without tokenizer or preprocessor files loads; prompts are then made with `prompt_from_ids`. A
        directory or repository with an adapter of PEFT is its base with the adapter merged into the weights.

        Args:
            name: what to load.
            dtype: of weights and activations, or its name ("bfloat16"); None: the checkpoint's own.
            device: where to put it; "auto": CUDA or MPS where there is one, else the CPU (`model.cfg.device` says).
            base: what an adapter is merged into; None: the checkpoint that the adapter names.
            revision: branch, tag or commit of a repository on the hub.
            fold_ln: fold norm weights into what reads through them, as TransformerLens does unless told not to: the
                same outputs to rounding, and `cache.apply_ln_to_stack(…) @ model.W_U` are then logits (`fold_norms`).
            trust_remote_code: run code that comes with the checkpoint.
            device_map: several devices, in the place of `device`: one for every decoder layer, {0: "cuda:0", …}; or
                "auto", evenly over those that are here, by accelerate's planner. The rest goes where layer 0 does.

        Raises:
            ModelError: not found (lists the bundled names), a revision of something that is here, an unknown or
                text-only architecture (lists the known families), weights that are not safetensors or do not fit, an
                adapter that cannot be merged or is for another base, a device that this machine lacks, a device map
                that leaves a layer out or is for quantised weights.
        """
        places, place = check_device_map(device_map, device), device_named(device)
        read = read_checkpoint(
            name, dtype=dtype_named(dtype), base=base, revision=revision, trust_remote_code=trust_remote_code
        )
        parts = convert(read.module, read.family, name=read.name)
        model = cls(parts, tokenizer=read.tokenizer, pixels=read.pixels, template=read.template, ends=read.ends)
        if places is None:
            return cls._ready(model.to(place), fold_ln)
        spread(model, places)
        return cls._ready(model, fold_ln)

    @staticmethod
    def _ready(model: HookedVideoTransformer, fold_ln: bool) -> HookedVideoTransformer:
        check_flag("fold_ln", fold_ln)
        settle(model, model.cfg.dtype)
        if fold_ln:
            fold_norms(model)
        return model

    @classmethod
    def from_hugging_face(
        cls, module: nn.Module, *, tokenizer: Any = None, pixels: Preparation | None = None, fold_ln: bool = False
    ) -> HookedVideoTransformer:
        """Convert a model that is already loaded. Weights are shared; its vision tower and projector are taken over.

        With `fold_ln` the decoder's are copies, and the module stays as it was.

        Raises:
            ModelError: its `config.model_type` belongs to no known family, it carries an adapter that is not merged, or
                it is quantised in a way that is not read.
        """
        refuse_adapters_of(module)
        config: Any = module.config
        if (said := getattr(config, "quantization_config", None)) is not None:
            check_quantisation("the model's config", said if isinstance(said, dict) else said.to_dict())
        parts = convert(
            module,
            family_of(config.model_type, getattr(config, "architectures", None) or ()),
            name=config._name_or_path or config.model_type,
        )
        ends = token_ids(getattr(getattr(module, "generation_config", None), "eos_token_id", None))
        model = cls(parts, tokenizer=tokenizer, pixels=pixels, template=parts.frontend.family.template, ends=ends)
        return cls._ready(model, fold_ln)

    def __repr__(self) -> str:
        """In one line; `str` is the tree of modules, as of any torch module."""
        cfg = self.cfg
        shapes = {id(one): unpacked_shape(one) for one in self.parameters()}
        n = sum(map(prod, shapes.values()))
        places = ", ".join(map(str, self.devices))
        size = f"{n / 1e9:.1f} B" if n >= 1e9 else f"{n / 1e6:.1f} M"
        return (
            f"HookedVideoTransformer({cfg.model_name!r}: {cfg.model_type}, {cfg.n_layers} layers, {cfg.n_heads} heads, "
            f"width {cfg.d_model}, {size} parameters, {str(cfg.dtype).removeprefix('torch.')} on {places}; "
            "print(model) shows its modules, model.hook_dict its hook points)"
        )

    def __str__(self) -> str:
        """The tree of modules."""
        return super().__repr__()

    # -- prompts ------------------------------------------------------------------------------------------------------

    def prompt(self, question: Question | Sequence[Question], template: PromptTemplate | str | None = None) -> Prompt:
        """Everything needed to ask a question: tokens and what each is, pixels, and the layer-0 residual.

        Args:
            question: with or without options; several are one batch (`Prompt.batch`), padded on the left.
            template: the words around it, or their name; None: what the checkpoint was trained with.

        Raises:
            ModelError: the checkpoint has no tokenizer or preprocessor files.
            PromptError: no options, an answer that is not among them, more tokens than the context holds.
        """
        if not isinstance(question, Question) and isinstance(question, (list, tuple)):
            singles = [self.prompt(each, template) for each in question]
            return singles[0] if len(singles) == 1 else Prompt.batch(singles)
        return prompting.prompt_from_question(
            self, question, self.template if template is None else template, self.pixels
        )

    prompt_from_ids = prompting.prompt_from_ids
    prompt_with_answer = answering.prompt_with_answer

    def pixels(self, frames: Video | UInt8[Tensor, "frame height width channel"]) -> Float[Tensor, "frame channel h w"]:
        """Frames as the vision tower wants them, by the checkpoint's own settings.

        Those of a `Video` are read, prepared and let go one after the other: they need not be in memory together.

        Raises:
            ModelError: the checkpoint has no preprocessor file.
        """
        if self.pixel_settings is None:
            raise ModelError(
                f"{self.cfg.model_name!r} has no preprocessor file (video_preprocessor_config.json, "
                "processor_config.json or preprocessor_config.json), so how it wants its frames is unknown: add one, "
                "or use model.prompt_from_ids with prepared pixel_values"
            )
        if not isinstance(frames, Video):
            return self.pixel_settings.prepare(frames)
        if isinstance(self.pixel_settings, FrameByFrame):
            return frames.map_frames(self.pixel_settings.frame)
        return self.pixel_settings.prepare(frames.frames)

    # -- runs ---------------------------------------------------------------------------------------------------------

    generate = generation.generate
    run_clean = resuming.run_clean
    resume = resuming.resume

    def compile(self, pathway: Any = None) -> CompiledPathway:  # type: ignore[override]
        """This model, computing only what a pathway leaves, exactly: `fast(prompt)`, `fast.generate(prompt, 20)`,
        `print(fast)`. It shares the weights; nothing is copied.

        Args:
            pathway: a `Pathway`, or one or several interventions that only cut attention, such as `Knockout`s.

        Raises:
            ModelError: no pathway, a model whose attention is not causal, or one that somebody listens to.
            VideolensError: a pathway for another depth.
        """
        return CompiledPathway(self, pathway)
