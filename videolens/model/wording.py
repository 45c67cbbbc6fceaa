"""The words around a model's questions: what stands for a video in its text, and which template is meant."""

from __future__ import annotations

from videolens.errors import ModelError, PromptError
from videolens.model.running import Running
from videolens.prompt.chat_template import chat_template
from videolens.prompt.known_templates import template_named
from videolens.prompt.template import PromptTemplate


def video_placeholder(model: Running) -> str:
    """The token that stands for a video, as text.

    Raises:
        ModelError: the checkpoint has no tokenizer, or one that does not have this token.
    """
    if model.tokenizer is None:
        raise ModelError(
            f"{model.cfg.model_name!r} has no tokenizer files, so a question cannot be written in its tokens: add "
            "them to the checkpoint, or use model.prompt_from_ids(input_ids, pixel_values, spans=…)"
        )
    token = model.frontend.video_token
    try:
        placeholder = model.tokenizer.convert_ids_to_tokens(token)
    except (LookupError, OverflowError):
        placeholder = None
    if placeholder is None:
        raise ModelError(
            f"config.json of {model.cfg.model_name!r} has the token {token} stand for a video, which its tokenizer "
            "does not have: the checkpoint needs its own tokenizer files"
        )
    return placeholder


def template_of(model: Running, given: PromptTemplate | str | None) -> PromptTemplate:
    """The template that is asked for: itself, by its name, or (None) the checkpoint's chat template.

    Raises:
        ModelError: the checkpoint has no tokenizer.
        PromptError: it is none and no name of one, or the chat template cannot be used.
    """
    placeholder = video_placeholder(model)
    if given is None:
        return chat_template(model.tokenizer, placeholder, source=str(model.cfg.model_name))
    found = template_named(given) if isinstance(given, str) else given
    if not isinstance(found, PromptTemplate):
        raise PromptError(f"a template is a PromptTemplate or the name of one, got {found!r}")
    return found
