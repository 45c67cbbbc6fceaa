"""`HookedVideoTransformer`: a VideoLLM whose every activation can be read and changed under TransformerLens' names."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from videolens.errors import ModelError
from videolens.model.checkpoints.adapters import refuse_adapters_of
from videolens.model.checkpoints.convert import Converted, convert
from videolens.model.checkpoints.files import token_ids
from videolens.model.checkpoints.read import read_checkpoint
from videolens.model.decoder.rows import Where
from videolens.model.families import family_of
from videolens.model.generation import Generation, Interventions, generate
from videolens.model.prompting import prompt_from_ids, prompt_from_question
from videolens.model.resuming import CleanRun, resume, run_clean
from videolens.model.running import Running
from videolens.model.turns import Turns
from videolens.model.vision.pixels import Preparation
from videolens.prompt.prompt import Prompt
from videolens.prompt.template import PromptTemplate
from videolens.question import Question

__all__ = ["HookedVideoTransformer"]


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

    Hook points: `hook_embed` (the whole layer-0 residual), `blocks.{l}.…` as in TransformerLens, one more per layer,
    `blocks.{l}.attn.hook_mask` (boolean, True = may attend), `ln_final.…`, `frontend.hook_video_features` and
    `frontend.hook_video_tokens`. While a forward runs, `hook.ctx["rows"]` and `hook.ctx["keys"]` hold the absolute
    prompt positions of the tensor's rows and keys.
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
        dtype: torch.dtype | None = None,
        device: str | torch.device = "cpu",
        trust_remote_code: bool = False,
    ) -> HookedVideoTransformer:
        """Load a bundled model ("shapes", "shapes-image"), a checkpoint directory, or a repository on the hub.

        A directory without tokenizer or preprocessor files loads; prompts are then made with `prompt_from_ids`.

        Args:
            name: what to load.
            dtype: of weights and activations; None: the checkpoint's own.
            device: where to put it.
            trust_remote_code: run code that comes with the checkpoint.

        Raises:
            ModelError: not found (lists the bundled names), an unknown or text-only architecture (lists the known
                families), weights that are not safetensors or do not fit, a device that this machine lacks.
        """
        try:
            place = torch.empty(0, device=device).device
        except (RuntimeError, AssertionError) as error:
            raise ModelError(f"device {str(device)!r} cannot be used here ({error}): use 'cpu'") from error
        read = read_checkpoint(name, dtype=dtype, trust_remote_code=trust_remote_code)
        parts = convert(read.module, read.family, name=read.name)
        model = cls(parts, tokenizer=read.tokenizer, pixels=read.pixels, template=read.template, ends=read.ends)
        return model.to(place)

    @classmethod
    def from_hugging_face(
        cls, module: nn.Module, *, tokenizer: Any = None, pixels: Preparation | None = None
    ) -> HookedVideoTransformer:
        """Convert a model that is already loaded. Weights are shared; its vision tower and projector are taken over.

        Raises:
            ModelError: its `config.model_type` belongs to no known family, or it carries an adapter that is not merged.
        """
        refuse_adapters_of(module)
        config: Any = module.config
        parts = convert(
            module,
            family_of(config.model_type, getattr(config, "architectures", None) or ()),
            name=config._name_or_path or config.model_type,
        )
        ends = token_ids(getattr(getattr(module, "generation_config", None), "eos_token_id", None))
        return cls(parts, tokenizer=tokenizer, pixels=pixels, template=parts.frontend.family.template, ends=ends)

    # -- prompts ------------------------------------------------------------------------------------------------------

    def prompt(self, question: Question, template: PromptTemplate | str | None = None) -> Prompt:
        """Everything needed to ask a question: tokens and what each is, pixels, and the layer-0 residual.

        Args:
            question: with or without options.
            template: the words around it, or their name; None: what the checkpoint was trained with.

        Raises:
            ModelError: the checkpoint has no tokenizer or preprocessor files.
            PromptError: no options, an answer that is not among them, more tokens than the context holds.
        """
        return prompt_from_question(self, question, self.template if template is None else template, self.pixels)

    def prompt_from_ids(
        self,
        input_ids: Tensor | Sequence[int],
        pixel_values: Tensor | None,
        spans: Mapping[str, Any] | None = None,
        *,
        seconds: Tensor | Sequence[float] | None = None,
        answer_token: int | None = None,
        option_tokens: Sequence[int] = (),
    ) -> Prompt:
        """A prompt from token ids and pixels, as any other code prepares them.

        Args:
            input_ids: [batch pos] or [pos], with one video placeholder (it is repeated) or one for every video token.
            pixel_values: prepared pixels [batch frame channel height width]; a batch of one serves all rows. None: no
                video.
            spans: positions by name ("stem", "option A", "true option", …), counted after the video tokens are in
                place. "video", the frames and "last" are found; positions that no span names get their role from their
                place.
            seconds: the time of each frame.
            answer_token: id of the right answer's first token, if known; the same for all rows of a batch.
            option_tokens: ids of the options' first tokens, in order. With one for every option in `spans`,
                `answer_token` also says which is the true option.

        Raises:
            PromptError: shapes or numbers of placeholders do not fit, more tokens than the context holds, an answer
                that is not among the options.
            SelectionError: spans overlap, lie outside the prompt, or have an unknown name.
        """
        return prompt_from_ids(
            self,
            input_ids,
            pixel_values,
            spans,
            seconds=seconds,
            answer_token=answer_token,
            option_tokens=option_tokens,
        )

    def pixels(self, frames: UInt8[Tensor, "frame height width channel"]) -> Float[Tensor, "frame channel h w"]:
        """Frames as the vision tower wants them, by the checkpoint's own settings.

        Raises:
            ModelError: the checkpoint has no preprocessor file.
        """
        if self.pixel_settings is None:
            raise ModelError(
                f"{self.cfg.model_name!r} has no preprocessor file (video_preprocessor_config.json, "
                "processor_config.json or preprocessor_config.json), so how it wants its frames is unknown: add one, "
                "or use model.prompt_from_ids with prepared pixel_values"
            )
        return self.pixel_settings.prepare(frames)

    # -- runs ---------------------------------------------------------------------------------------------------------

    def generate(
        self,
        prompt: Prompt | Int64[Tensor, "batch pos"],
        max_new_tokens: int = 32,
        interventions: Interventions = (),
        *,
        stop_at_eos: bool = True,
    ) -> Generation:
        """Greedy continuation with a key/value cache. Hook functions act on the prompt and on every generated token.

        Args:
            prompt: what is continued.
            max_new_tokens: at most so many.
            interventions: what holds meanwhile, all of it at once: objects with `.hooks(prompt)` (knockouts, patches),
                or (hook point, function) pairs. None of it is left afterwards.
            stop_at_eos: end a row at its end-of-sequence token.

        Raises:
            ModelError: the prompt and the new tokens do not fit the context, something that is no intervention.
            VideolensError: an intervention on layers or heads that the model does not have.
        """
        return generate(self, prompt, max_new_tokens, interventions, stop_at_eos=stop_at_eos)

    def run_clean(self, prompt: Prompt) -> CleanRun:
        """Run a prompt with nothing changed, and keep what `resume` needs: the residual entering every layer, and
        every layer's keys and values (`.n_bytes` of memory).

        Raises:
            ModelError: not a Prompt.
        """
        return run_clean(self, prompt)

    def resume(
        self,
        clean: CleanRun,
        *,
        layer: int,
        row: int,
        fwd_hooks: Sequence[tuple[str | Callable, Callable]] = (),
        rows: Where = "last",
    ) -> Float[Tensor, "batch asked d_vocab"]:
        """Logits of some rows under hook functions that change nothing before `layer` and `row`; only what lies behind
        both is computed. The results are those of `run_with_hooks` on the whole prompt, to rounding.

        Hook functions see the rows from `row` on, which `hook.ctx["rows"]` names; in the last layer those that are
        asked for. For many interventions at once: `videolens.sweep`.

        Args:
            clean: what `run_clean` gave.
            layer: the first layer to run.
            row: the first row to run.
            fwd_hooks: (hook point, function) as for `run_with_hooks`.
            rows: which rows' logits: a selection or positions, none before `row`.

        Raises:
            ModelError: a layer or row that does not exist, a hook point before `layer`, rows before `row`.
        """
        return resume(self, clean, layer=layer, row=row, fwd_hooks=fwd_hooks, rows=rows)
