"""A checkpoint's own chat template as a prompt template."""

from __future__ import annotations

from typing import Any

from videolens.errors import PromptError
from videolens.prompt.known_templates import TEMPLATES, conversation
from videolens.prompt.template import PromptTemplate

_ASKED = "the words of the question"  # stands for them while the template is rendered
_VIDEOS = ("<video>", "<|video_pad|>", "<image>")


def chat_template(tokenizer: Any, placeholder: str, *, source: str = "the checkpoint") -> PromptTemplate:
    """A tokenizer's chat template as a prompt template, for one user message: a video, then a question.

    1. Render one message of a video and a text, up to where the assistant would speak.
    2. What stands before the video is its system part, between video and text glue, after the text suffix. What the
       template writes for a video is the model's placeholder, or a name that the processor of the checkpoint would
       put the placeholders in the place of (`<video>` with InternVL).
    3. Options are listed as in the template "vicuna", and the answer is begun (`Best option:(`), so that the next
       token is a letter.

    Frame times, `<img>` and the like are not the template's but the model's layout: they are not written twice.

    Args:
        tokenizer: with `chat_template`, a Jinja text (of tokenizer_config.json, chat_template.jinja or
            chat_template.json).
        placeholder: the model's video token as text.
        source: what messages call the checkpoint.

    Raises:
        PromptError: there is no chat template, it cannot be rendered, or it does not write one video and then the text.
    """
    choose = f"choose one of {sorted(TEMPLATES)} (model.prompt(question, template=…)) or make a PromptTemplate"
    if not getattr(tokenizer, "chat_template", None):
        raise PromptError(f"{source}: its tokenizer files hold no chat template: {choose}")
    # 1. some templates write a video frame by frame
    content = [{"type": "video", "num_frames": 1}, {"type": "text", "text": _ASKED}]
    try:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": content}],
            tokenize=False,
            add_generation_prompt=True,
            video_token=placeholder,
            image_token=placeholder,
        )
    except Exception as error:  # whatever the template makes Jinja raise
        raise PromptError(
            f"{source}: its chat template cannot be rendered for a message of a video and a text "
            f"({type(error).__name__}: {error}): {choose}"
        ) from error
    # 2. the words around video and text
    before, _, after = str(text).partition(_ASKED)
    video = next((name for name in (placeholder, *_VIDEOS) if name in text), placeholder)
    if text.count(_ASKED) != 1 or text.count(video) != 1 or before.count(video) != 1:
        raise PromptError(
            f"{source}: its chat template writes the video {text.count(video)} times ({video!r}) and the text "
            f"{text.count(_ASKED)} times, not each once and the video first: {text!r}; {choose}"
        )
    start = getattr(tokenizer, "bos_token", None)
    if start and before.startswith(start) and tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]:
        before = before.removeprefix(start)  # the tokenizer adds it
    system, glue, turn = (part.replace("{", "{{").replace("}", "}}") for part in (*before.split(video), after))
    # 3. the options
    return conversation("chat", "", (system, glue, turn))
