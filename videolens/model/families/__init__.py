"""The architectures this package can load: one small declarative file each, picked by `config.model_type`.

To add one, copy docs/templates/family.py into this folder (or anywhere: it calls `register`). It makes a `Family`:
where the decoder's weights are, how pixels become video tokens, and on what grid. Nothing else in the package knows a
model's name.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple

from jaxtyping import Float, Int64
from torch import Tensor, nn

from videolens.errors import ModelError, near
from videolens.model.families._refused import REFUSED, refusal
from videolens.prompt.tokens import TokenMap
from videolens.prompt.video_layout import VideoLayout
from videolens.video.video import Video

Parts = Mapping[str, Any]
"""Modules and parameters of the front end, by name."""


@dataclass(frozen=True)
class LayerPaths:
    """Where a decoder layer keeps its weights: paths below the layer.

    A fused projection is named by `qkv` or `gate_up`; its parts are then rows of that one, in this order. `q_norm` and
    `k_norm`, norms of single heads before the rotation, are used where the layer has them.
    """

    q: str = "self_attn.q_proj"
    k: str = "self_attn.k_proj"
    v: str = "self_attn.v_proj"
    o: str = "self_attn.o_proj"
    qkv: str | None = None
    q_norm: str = "self_attn.q_norm"
    k_norm: str = "self_attn.k_norm"
    gate: str = "mlp.gate_proj"
    up: str = "mlp.up_proj"
    gate_up: str | None = None
    down: str = "mlp.down_proj"
    ln1: str = "input_layernorm"
    ln2: str = "post_attention_layernorm"
    act: str = "mlp.act_fn"


LLAMA = LayerPaths()
PHI3 = LayerPaths(qkv="self_attn.qkv_proj", gate_up="mlp.gate_up_proj", act="mlp.activation_fn")


class Clock(NamedTuple):
    """When the frames of a clip are shown.

    Attributes:
        seconds: of every sampled frame [frames]; NaN where not known.
        sampled_fps: frames per second, as processors count it (`Video.sampled_fps`); None where that is not known.
        nominal: of every sampled frame [frames], as processors count it (`Video.nominal_seconds`); None: not known.
        duration: of the whole clip, in seconds, as processors count it: frames ÷ rate; None: not known.
    """

    seconds: Tensor
    sampled_fps: float | None = None
    nominal: Tensor | None = None
    duration: float | None = None

    @classmethod
    def of(cls, video: Video) -> Clock:
        """What is known of a video."""
        duration = None if video.fps is None else video.n_source_frames / video.fps
        return cls(video.seconds, video.sampled_fps, video.nominal_seconds, duration)

    @property
    def written(self) -> list[float]:
        """The time of each frame as a prompt says it, before it is rounded: `nominal`, else `seconds`; where neither
        is known, frames are a second apart, as processors of transformers take them."""
        if self.nominal is not None:
            return self.nominal.tolist()
        known = bool(self.seconds.isfinite().all())
        return self.seconds.tolist() if known else [float(frame) for frame in range(len(self.seconds))]

    @property
    def step(self) -> float:
        """Seconds from one frame to the next, on average; 1 where that is not known."""
        known = len(self.seconds) > 1 and bool(self.seconds.isfinite().all())
        return float(self.seconds[-1] - self.seconds[0]) / (len(self.seconds) - 1) if known else 1.0


def plain_layout(config: Any, grid: tuple[int, int, int], clock: Clock) -> VideoLayout:
    """Video tokens with nothing around or between them."""
    return VideoLayout.plain(grid, seconds=clock.seconds)


class About(NamedTuple):
    """What a table says of a family, in a few words.

    Attributes:
        published: names of its checkpoints.
        vision: how frames become video tokens.
        decoder: what reads them.
        original: what it is compared with; empty: the class of transformers that reads it, or plain torch where
            there is none.
    """

    published: str = ""
    vision: str = ""
    decoder: str = ""
    original: str = ""


_NOTHING = About()


class Deepstack(NamedTuple):
    """Features of earlier layers of the tower that the decoder's first layers are followed by: arXiv 2406.04334.

    Attributes:
        layers: config → after how many layers of the decoder something is added, from the first on.
        features: (parts, features [batch frame_of_grid patch d_vision], config, grid) → what is added at the
            placeholders after each of these layers [layer batch placeholder d_model].
    """

    layers: Callable[[Any], int]
    features: Callable[
        [Parts, Float[Tensor, "batch frame patch d_vision"], Any, tuple[int, int, int]],
        Float[Tensor, "layer batch placeholder d_model"],
    ]


@dataclass(frozen=True)
class Family:
    """What the package must know about one architecture.

    frame: sampled frames; patch: positions of the vision tower's output per frame of the grid; placeholder: video
    tokens of a prompt and newlines that the model has a parameter for, in the order of the prompt.

    Attributes:
        model_type: `config.model_type` of its checkpoints.
        architecture: the transformers class that reads them; or, for layouts that transformers has no class for, a
            function from the config to the module that holds the weights. It gets config.json as it is written, with
            attributes for names, objects in it included (`PlainConfig`; `config.llm_config.to_dict()` is a dictionary
            again, to make a `LlamaConfig` of), runs with parameters on the meta device, and the checkpoint's keys,
            renamed, are the names of the module's parameters.
        parts: name → path of the front end's modules and parameters, handed to `features` and `project`.
        features: (parts, pixels [batch frame channel height width], config) → tower output
            [batch frame_of_grid patch d_vision].
        project: (parts, features [batch frame_of_grid patch d_vision], config, grid) → what takes the placeholders'
            place [batch placeholder d_model].
        deepstack: what is added at the placeholders after the first layers, besides; None: nothing.
        grid: (config, frames, height, width) of the pixels → (frames, rows, columns) of the video tokens.
        decoder: path of the module that holds `embed_tokens`, `layers`, `norm` and `rotary_emb`.
        unembed: path of the module from residual to logits.
        video_token: config → id of the placeholder that stands for the video in `input_ids`. Where `architecture` is a
            function, `config.added_tokens` says which ids the tokenizer's added tokens have.
        architectures: names in `config.architectures` that pick it where several families share a model type; empty:
            any.
        decoders: model types of the decoder that pick it where several families share the architectures, too; empty:
            any that no other family names.
        layout: (config, grid, clock) → what stands for the video in a prompt.
        positions: (config, tokens, clock) → rotary positions [pos] or [3 pos]; None: 0, 1, 2, …
        pixels: preprocessor settings (one dictionary) → how frames are prepared; None: `PixelSettings.from_dict`.
        pixels_without_file: config → how frames are prepared where the checkpoint has no preprocessor file: for models
            whose authors' code says so, and no file. None: that is not known then.
        unlike_processor: why prepared frames are not what the checkpoint's own image processor makes of them, in words;
            None: they are.
        placeholder: the text that stands for the video where the authors' code splits prompts at it, so that their
            tokenizers need not have it as a token: they get it where they lack it. None: tokenizers have it.
        rename: (pattern, replacement) for the checkpoint's keys, in order, as `re.sub`.
        ignore: patterns (`re.search`) of keys that a checkpoint may hold and nothing here needs.
        text_config: the decoder's part of the config.
        layer: where a layer keeps its weights.
        template: name of the prompt template it was trained with; None: the checkpoint's own chat template, if its
            tokenizer has one.
        causal: whether no token sees a later one, in any layer, in its original. What is not causal is not read: the
            decoder masks causally, and the engine relies on it.
        about: what a table says of it.
    """

    model_type: str
    architecture: str | Callable[[Any], nn.Module]
    parts: Mapping[str, str]
    features: Callable[[Parts, Float[Tensor, "batch frame channel height width"], Any], Tensor]
    project: Callable[[Parts, Float[Tensor, "batch frame patch d_vision"], Any, tuple[int, int, int]], Tensor]
    grid: Callable[[Any, int, int, int], tuple[int, int, int]]
    decoder: str = "model.language_model"
    unembed: str = "lm_head"
    video_token: Callable[[Any], int] = lambda config: config.video_token_id
    architectures: tuple[str, ...] = ()
    decoders: tuple[str, ...] = ()
    layout: Callable[[Any, tuple[int, int, int], Clock], VideoLayout] = plain_layout
    positions: Callable[[Any, TokenMap, Clock], Int64[Tensor, "*axes pos"]] | None = None
    pixels: Callable[[Mapping[str, Any]], Any] | None = None
    pixels_without_file: Callable[[Any], Any] | None = None
    unlike_processor: str | None = None
    placeholder: str | None = None
    rename: tuple[tuple[str, str], ...] = ()
    ignore: tuple[str, ...] = ()
    text_config: Callable[[Any], Any] = lambda config: config.get_text_config()
    layer: LayerPaths = LLAMA
    template: str | None = None
    deepstack: Deepstack | None = None
    causal: bool = True
    about: About = _NOTHING


_FAMILIES: dict[tuple[str, tuple[str, ...], tuple[str, ...]], Family] = {}


def register(family: Family) -> Family:
    """Make an architecture known. Registering the same model type, architectures and decoders again replaces it."""
    _FAMILIES[family.model_type, family.architectures, family.decoders] = family
    return family


def known_families() -> list[str]:
    """Model types that can be loaded: every file of this folder registers its own."""
    for module in pkgutil.iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
    return sorted({family.model_type for family in _FAMILIES.values()})


def overview() -> list[dict[str, str]]:
    """What is known, a row each: families that are read, then those that are not, with the reason.

    Keys: `family` (model type, and architectures and decoders where several share it), `published as`,
    `vision → video tokens`, `decoder`, `compared with` (its original as transformers has it, or in plain torch),
    `template` (of prompts; "its own": the checkpoint's chat template), `status` ("read", or "not read: " and why).
    """
    known_families()
    rows = []
    for _, family in sorted(_FAMILIES.items()):
        original = "transformers" if isinstance(family.architecture, str) else "plain torch"
        picked_by = (*family.architectures, *family.decoders)
        rows.append(
            {
                "family": " ".join([family.model_type, *(f"({name})" for name in picked_by)]),
                "published as": family.about.published,
                "vision → video tokens": family.about.vision,
                "decoder": family.about.decoder,
                "compared with": family.about.original or original,
                "template": family.template or "its own",
                "status": "read",
            }
        )
    nothing = dict.fromkeys(list(rows[0])[2:-1], "")
    for one in REFUSED:
        names = {"family": ", ".join(one.model_types), "published as": one.published}
        rows.append({**names, **nothing, "status": f"not read: {one.why}"})
    return rows


def family_of(model_type: str, architectures: Sequence[str] = (), decoder: str | None = None) -> Family:
    """The family of a `config.model_type`; where several share it, of `config.architectures` and the decoder.

    Args:
        decoder: model type of the decoder's part of the config, if it says one.

    Raises:
        ModelError: no such family; lists the known ones and says how to add one. One that is known and not read: why.
    """
    known = known_families()
    candidates = [family for family in _FAMILIES.values() if family.model_type == model_type]
    named = [family for family in candidates if set(family.architectures) & set(architectures)]
    fitting = named or [family for family in candidates if not family.architectures]
    by_decoder = [family for family in fitting if decoder in family.decoders]
    if found := by_decoder or [family for family in fitting if not family.decoders]:
        return found[0]
    if why := refusal(model_type, architectures):
        raise ModelError(f"model_type {model_type!r} (architectures {list(architectures)}) is not read: {why}")
    if candidates:
        claimed = sorted(name for family in candidates for name in family.architectures)
        raise ModelError(
            f"model_type {model_type!r} is known with architectures {claimed}, not with {list(architectures)}; another "
            "VideoLLM needs a file in videolens/model/families"
        )
    raise ModelError(
        near(model_type, known, kind="model_type")
        + "; a text-only model has no video to trace, another VideoLLM needs a file in videolens/model/families"
    )
