"""What the JSON files of a checkpoint say, each field of its kind before anything is made of it."""

from __future__ import annotations

from operator import index
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

from pydantic import Field

from videolens.errors import ModelError, VideolensError
from videolens.model.checkpoints.quantised import check_quantisation
from videolens.reading import Fields, Known, fields_from, read_json

_Id = Annotated[int, Field(ge=0, lt=2**31)]
_Ids = _Id | list[_Id | None] | None


class PlainConfig(SimpleNamespace):
    """A config.json as it is written: every object in it is a `PlainConfig`, nothing is filled in."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(**{name: _plain(value) for name, value in settings.items()})

    def __reduce__(self) -> tuple[Any, ...]:
        return PlainConfig, ({},), vars(self)  # so that a model that holds one can be copied

    def get_text_config(self) -> Any:
        """The decoder's part, under whichever of the usual names it is here; the whole where there is none."""
        for name in ("text_config", "llm_config", "language_config"):
            if isinstance(part := getattr(self, name, None), PlainConfig) or hasattr(part, "hidden_size"):
                return part
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries again, as the configs of transformers take them."""
        return {name: _unplain(value) for name, value in vars(self).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return PlainConfig(value)
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _unplain(value: Any) -> Any:
    if isinstance(value, PlainConfig):
        return value.to_dict()
    return [_unplain(each) for each in value] if isinstance(value, list) else value


class _Config(Fields):
    """What is read of config.json before it is known which family it is of."""

    model_type: str | None = None
    architectures: list[str] | None = None
    auto_map: dict[str, str | list[str | None]] | None = None
    quantization_config: dict[str, Any] | None = None
    prompt_template: str | None = None
    eos_token_id: _Ids = None


class _Generation(Fields):
    """What is read of generation_config.json."""

    eos_token_id: _Ids = None


def read_config(directory: Path) -> dict[str, Any]:
    """The settings of config.json; a `ModelError` if it is no JSON object, has a field of the wrong kind, or says that
    the weights are quantised in a way that is not read."""
    path = directory / "config.json"
    settings = read_settings(path)
    known = checked_fields(_Config, settings, path)
    if known.quantization_config:
        check_quantisation(path, known.quantization_config)
    return settings


def read_ends(directory: Path) -> tuple[int, ...]:
    """Ids that end an answer, by generation_config.json, which may list several; none where there is no such file.

    Raises:
        ModelError: it is not JSON, or names something else than token ids.
    """
    path = directory / "generation_config.json"
    if not is_there(path):
        return ()
    return token_ids(checked_fields(_Generation, read_settings(path), path).eos_token_id)


def token_ids(named: Any) -> tuple[int, ...]:
    """One id, several or None, as the configs of checkpoints name them.

    Raises:
        TypeError: it is none of these.
    """
    return tuple(index(one) for one in (named if isinstance(named, (list, tuple)) else [named]) if one is not None)


def read_settings(path: Path) -> dict[str, Any]:
    """An object of settings from a JSON file of a checkpoint; a `ModelError` if it is none."""
    try:
        found: dict[str, Any] = read_json(path, finite=False)
    except VideolensError as error:
        raise ModelError(f"{error}; expected an object of settings") from error
    return found


def is_there(path: Path) -> bool:
    """Whether a checkpoint has a file; a link to nothing is there, and reading it says so."""
    return path.exists() or path.is_symlink()


def checked_fields(kind: type[Known], settings: dict[str, Any], path: Path) -> Known:
    """What is read of the settings in a file; a `ModelError` if a field is missing or of the wrong kind."""
    try:
        return fields_from(kind, settings, str(path))
    except VideolensError as error:
        raise ModelError(str(error)) from None


_Count = Annotated[int, Field(ge=1, le=2**20)]
_Counts = _Count | list[_Count] | tuple[_Count, ...] | None
_Layer = Annotated[int, Field(ge=-1000, lt=1000)]


class _Whole(Fields):
    """What is read of a loaded model's config, where it has it, whatever the family."""

    vision_feature_layer: _Layer | list[_Layer] | None = None
    vision_feature_select_strategy: str | None = None
    select_layer: _Layer | None = None
    spatial_pool_stride: _Count | None = None
    downsample_ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    image_token_id: _Id | None = None
    video_token_id: _Id | None = None
    image_token_index: _Id | None = None
    video_token_index: _Id | None = None
    img_context_token_id: _Id | None = None
    eos_token_id: _Ids = None


class _Vision(Fields):
    """Likewise of the vision tower's."""

    image_size: _Counts = None
    patch_size: _Counts = None
    spatial_merge_size: _Count | None = None
    temporal_patch_size: _Count | None = None
    window_size: _Count | None = None
    tokens_per_second: Annotated[float, Field(gt=0, le=1e6)] | None = None
    num_hidden_layers: _Count | None = None


class _Text(Fields):
    """Likewise of the decoder's."""

    hidden_size: _Count
    num_hidden_layers: _Count
    num_attention_heads: _Count
    num_key_value_heads: _Count | None = None
    head_dim: _Count | None = None
    intermediate_size: _Count
    max_position_embeddings: Annotated[int, Field(ge=1, lt=2**40)]
    sliding_window: Annotated[int, Field(ge=1, lt=2**40)] | None = None
    rms_norm_eps: Annotated[float, Field(ge=0)]
    hidden_act: str
    eos_token_id: _Ids = None


def check_config(config: Any) -> None:
    """Check the settings that what a model is made of leaves unchecked, once defaults are filled in.

    Raises:
        ModelError: one is of the wrong kind or makes no sense; names it with its value.
    """
    parts: dict[str, tuple[type[Fields], Any]]
    parts = {"config.json": (_Whole, config), "vision_config": (_Vision, getattr(config, "vision_config", None))}
    parts["its decoder's settings"] = (_Text, config.get_text_config())
    try:
        for where, (kind, part) in parts.items():
            if part is not None:
                fields_from(
                    kind, {name: getattr(part, name) for name in kind.model_fields if hasattr(part, name)}, where
                )
    except VideolensError as error:
        raise ModelError(f"{error}: config.json cannot be followed") from None
    n_layers = getattr(getattr(config, "vision_config", None), "num_hidden_layers", None)
    chosen = getattr(config, "vision_feature_layer", None)
    for layer in chosen if isinstance(chosen, (list, tuple)) else [chosen]:
        if layer is not None and n_layers is not None and not -n_layers - 1 <= layer <= n_layers:
            raise ModelError(
                f"config.json has vision_feature_layer {layer}; the tower has {n_layers + 1} hidden states, numbered "
                "from 0, or from -1 at the end"
            )
