"""What the tests of all families need to know about one: a `Case`, and the `Variant`s that are proven besides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.video_utils import VideoMetadata

from helpers.checkpoints import STORAGES, Storage, rounded, write_module, write_state
from helpers.parity import HuggingFaceReference, Reference, ids_around, prove
from videolens import Prompt
from videolens.model.families import Family
from videolens.model.transformer import HookedVideoTransformer

Shape = tuple[int, int, int]
Layout = Callable[[Any], tuple[Mapping[str, Tensor], dict[str, Any]]]

HALF = dict(image_mean=[0.5] * 3, image_std=[0.5] * 3)
CLIP = dict(image_mean=[0.48145466, 0.4578275, 0.40821073], image_std=[0.26862954, 0.26130258, 0.27577711])
IMAGENET = dict(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])
"""What preprocessor files say of mean and standard deviation."""


@dataclass(frozen=True)
class Variant:
    """Another original, checkpoint or clip.

    Attributes:
        settings: keyword arguments of `Case.original`.
        layout: as of the case, where the checkpoint lies on disk in another one.
        config: what config.json says otherwise, in a layout.
        shape: of the clip; None: the case's.
        step: seconds from one frame to the next; None: not known.
        words: how many come after the video, a prompt each.
        tied: whether embedding and unembedding are one tensor.
        head_norms: whether queries and keys are normalised; None: as the case says.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    layout: Layout | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    shape: Shape | None = None
    step: float | None = None
    words: tuple[int, ...] = (9, 14)
    tied: bool = False
    head_norms: bool | None = None


@dataclass(frozen=True, eq=False)
class Case:
    """A family: its tiny originals, their checkpoints, and what is special about its prompts and frames.

    Attributes:
        original: (**settings) → a random original, in float32.
        reference: (original, seconds from frame to frame or None) → how it is called.
        shape: frames, height and width of a clip that fits.
        placeholder: id of the token that stands for the video.
        written: prompt → what stands for the video in its text.
        tokenizer: makes the checkpoint's tokenizer.
        preprocessor: what the file about pixels says; `preprocessor_file` is its name.
        files: further JSON files.
        layout: original → (its weights as they are published, config.json); None: as transformers writes the module.
        bare: whether weights and config.json are enough to load it.
        in_ids: frames, height, width → ids of the video in the prompts of a proof; None: one placeholder.
        before: words before the video in those prompts, the first of them `bos` if it has one.
        bos: that token.
        step: it takes multiples of so many frames.
        head_norms: whether queries and keys are normalised.
        spread: video tokens around its own that a patch may change without attention in the tower: 1 where the family
            interpolates between patches.
        patch: pixels that a patch of the tower is wide, where the config does not say.
        cell: (row and column of a patch, patches of a frame down and across) → row and column of its video token; None:
            the cell of the grid that lies where the patch does.
        variants: what else is proven, by name.
        other_shapes: clips that it refuses: shape → what the message says.
        other_configs: checkpoints that it refuses: changes of config.json and what the message says.
        published: what a published preprocessor file says, but for the number of pixels where frames keep their shape.
        image_processor: (`published`, frames of a clip) → the processor of single images of transformers.
        video_processor: module and name of the processor of clips; None: transformers has none.
    """

    original: Callable[..., Any]
    reference: Callable[[Any, float | None], Reference]
    shape: Shape
    placeholder: int
    written: Callable[[Prompt], str]
    tokenizer: Callable[[], Any]
    preprocessor: Mapping[str, Any]
    published: Mapping[str, Any]
    image_processor: Callable[[dict[str, Any], int], Any]
    video_processor: tuple[str, str] | None = None
    preprocessor_file: str = "preprocessor_config.json"
    files: Mapping[str, Any] = field(default_factory=dict)
    layout: Layout | None = None
    bare: bool = True
    in_ids: Callable[[int, int, int], list[int]] | None = None
    before: int = 4
    bos: int | None = None
    step: int = 1
    head_norms: bool = False
    spread: int = 0
    patch: int | None = None
    cell: Callable[[int, int, int, int], tuple[int, int]] | None = None
    variants: Mapping[str, Variant] = field(default_factory=dict)
    other_shapes: Mapping[Shape, str] = field(default_factory=dict)
    other_configs: tuple[tuple[Mapping[str, Any], str], ...] = ()

    @cached_property
    def plain(self) -> Any:
        """One original, for tests that do not change it."""
        return self.original()

    @property
    def in_transformers(self) -> bool:
        """Whether the original is a class of transformers: these can pad."""
        return isinstance(self.plain, PreTrainedModel)

    @cached_property
    def ours(self) -> HookedVideoTransformer:
        """`load`, for tests that do not change it."""
        return self.load()

    def load(self) -> HookedVideoTransformer:
        """`plain` from a directory with all its files."""
        with TemporaryDirectory() as directory:
            return HookedVideoTransformer.from_pretrained(self.write(Path(directory), self.plain))

    def write(
        self,
        directory: Path,
        module: Any,
        storage: Storage = STORAGES["fp32"],
        *,
        layout: Layout | None = None,
        bare: bool = False,
        **config: Any,
    ) -> Path:
        """The checkpoint of an original.

        Args:
            layout: another one than the case's.
            bare: nothing but weights and config.json.
            config: what config.json says otherwise.
        """
        files = {} if bare else {self.preprocessor_file: self.preprocessor, **self.files}
        if layout := layout or self.layout:
            state, said = layout(module)
            write_state(directory, state, said | config, storage, files=files)
        else:
            assert not config, "transformers writes config.json itself"
            write_module(directory, module, storage, files=files)
        if not bare:
            self.tokenizer().save_pretrained(directory)
        return directory

    def prompts(
        self,
        ours: HookedVideoTransformer,
        shape: Shape | None = None,
        *,
        step: float | None = None,
        words: tuple[int, ...] = (9, 14),
    ) -> list[Prompt]:
        """Random questions about random clips, one for every number of words after the video."""
        frames, height, width = shape or self.shape
        video = self.in_ids(frames, height, width) if self.in_ids else [self.placeholder]
        seconds = None if step is None else [3.0 + step * i for i in range(frames)]
        return [
            ours.prompt_from_ids(
                ids_around(video, before=self.before, after=n, bos=self.bos, seed=n),
                torch.randn(1, frames, 3, height, width, generator=torch.Generator().manual_seed(n)),
                seconds=seconds,
            )
            for n in words
        ]

    def prove(
        self,
        ours: HookedVideoTransformer,
        original: Any,
        shape: Shape | None = None,
        *,
        step: float | None = None,
        words: tuple[int, ...] = (9, 14),
    ) -> dict[str, float]:
        """`prove` on `prompts`. The original stays as it is: a copy of it is watched."""
        copy = rounded(original, STORAGES["fp32"])
        return prove(ours, self.reference(copy, step), self.prompts(ours, shape, step=step, words=words))


def family_named(name: str) -> Family:
    """What the package says about a family, by the name of its file."""
    return import_module(f"videolens.model.families.{name}").FAMILY


def called_with(
    name: str, *, images: bool = False, decoder: str | None = None
) -> Callable[[Any, float | None], HuggingFaceReference]:
    """How a class of transformers is called that takes ids and pixels, these by a name.

    Args:
        name: of the pixels.
        images: whether it takes frames beside one another instead of clips.
        decoder: as of `HuggingFaceReference`.
    """

    def inputs(ids: Tensor, pixels: Tensor) -> dict[str, Tensor]:
        return {"input_ids": ids, name: pixels.flatten(0, 1) if images else pixels}

    return lambda module, step: HuggingFaceReference(module, inputs, decoder=decoder)


def by_processor(kind: type, **known: Any) -> Callable[[Prompt], str]:
    """What a processor of transformers writes for a video, with what it has to know of its model.

    It is not built: its video processor needs torchvision.
    """

    def written(prompt: Prompt) -> str:
        processor = object.__new__(kind)
        vars(processor).update(known)
        return processor.replace_video_token({"pixel_values_videos": prompt.pixel_values}, 0)

    return written


def metadata(prompt: Prompt) -> VideoMetadata:
    """What readers of transformers say of the file that a prompt's frames are sampled from."""
    video = prompt.question.video
    length = video.n_source_frames / video.fps
    return VideoMetadata(video.n_source_frames, fps=video.fps, frames_indices=video.indices.tolist(), duration=length)


def relaid(state: Mapping[str, Tensor], *names: tuple[str, str]) -> dict[str, Tensor]:
    """Weights under other keys: of each, the first start that is named is replaced."""
    made = {}
    for key, value in state.items():
        old, new = next(((old, new) for old, new in names if key.startswith(old)), ("", ""))
        made[new + key.removeprefix(old)] = value
    return made


def of_images(kind: type, **more: Any) -> Callable[[dict[str, Any], int], Any]:
    """A processor that reads the settings as they are."""
    return lambda said, frames: kind(**{**said, **more})
