"""The prompt templates that models were trained or asked with, as data."""

from __future__ import annotations

from videolens.errors import PromptError, near
from videolens.prompt.template import PromptTemplate

MVBENCH_INSTRUCTION = (
    "Carefully watch the video and pay attention to the cause and sequence of events, the detail and movement of "
    "objects, and the action and pose of persons. Based on your observations, select the best option that accurately "
    "addresses the question."
)
"""MVBench (Li et al., CVPR 2024, arXiv 2311.17005), as PLLaVA (arXiv 2404.16994) and Map the Flow use it."""

VCG_INSTRUCTION = (
    "You are Video-ChatGPT, a large vision-language assistant. You are able to understand the video content that the "
    "user provides, and assist the user with a variety of tasks using natural language.Follow the instructions "
    "carefully and explain your answers in detail based on the provided video."
)
"""Video-ChatGPT (Maaz et al., arXiv 2306.05424) as PLLaVA evaluates with it, the missing space included."""

VIDEOLLAMA3_INSTRUCTION = (
    "You are VideoLLaMA3 created by Alibaba DAMO Academy, a helpful assistant to help people understand images and "
    "videos."
)
"""chat_template.json of DAMO-NLP-SG/VideoLLaMA3-7B, where `add_system_prompt` is true."""

_ASKED = (("header", "Question: "), ("stem", "{stem}"))
_LINES = (*_ASKED, ("header", "\nOptions:\n"), ("option", "{options}"))


def _vicuna_like(
    name: str, system: str, *, before_options: str = "\nOptions:\n", between: str = "\n", answer: str = "Best option:("
) -> PromptTemplate:
    """Prompts as Map the Flow gives them to its Vicuna models, with different ways of listing the options."""
    head = (("system", "{system}\n USER: "), ("video", "{video}"), ("glue", "\n USER: "))
    suffix = f" \nOnly give the best option. ASSISTANT:{answer}"
    return PromptTemplate(
        name=name,
        system=system,
        multiple_choice=(*head, *_ASKED, ("header", before_options), ("option", "{options}"), ("suffix", suffix)),
        open_ended=(*head, *_ASKED, ("suffix", " ASSISTANT:{completion}")),
        between=between,
    )


def _internvl() -> PromptTemplate:
    """The conversation of the Vicuna models with Phi-3's roles; `<img>` and `</img>` are the layout's."""
    head = (("system", "{system}\n <|user|>\n"), ("video", "{video}"), ("glue", "\n <|user|>\n"))
    return PromptTemplate(
        name="internvl",
        system=MVBENCH_INSTRUCTION,
        multiple_choice=(*head, *_LINES, ("suffix", " \nOnly give the best option. <|assistant|>\nBest option:(")),
        open_ended=(*head, *_ASKED, ("suffix", " <|assistant|>\n{completion}")),
        between="\n",
        space="",
    )


def _vcgbench() -> PromptTemplate:
    head = (("system", "{system} USER: "), ("video", "{video}"), ("glue", "\n USER: "))
    return PromptTemplate(
        name="vcgbench",
        system=VCG_INSTRUCTION,
        multiple_choice=(),
        open_ended=(*head, ("stem", "{stem}"), ("suffix", " ASSISTANT:{completion}")),
    )


def _videollama3() -> PromptTemplate:
    """Its chat template; times and commas are the layout's."""
    system = "<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n"
    head = (("system", system), ("video", "{video}"), ("glue", "\n"))
    turn = "<|im_end|>\n<|im_start|>assistant\n"
    return PromptTemplate(
        name="videollama3",
        system=VIDEOLLAMA3_INSTRUCTION,
        multiple_choice=(*head, *_LINES, ("suffix", f"\nOnly give the best option.{turn}Best option:(")),
        open_ended=(*head, *_ASKED, ("suffix", turn + "{completion}")),
        between="\n",
        space="",
    )


TEMPLATES = {
    template.name: template
    for template in (
        _vicuna_like("vicuna", MVBENCH_INSTRUCTION),
        _vicuna_like("shapes", "Watch the video and answer the question.", before_options=" Options: ", between=" "),
        _vicuna_like("videomme", MVBENCH_INSTRUCTION, answer="Best option:"),
        _internvl(),
        _vcgbench(),
        _videollama3(),
    )
}
"""By name.

- "vicuna": LLaVA-NeXT-Video and Map the Flow's Vicuna models on MVBench, TVBench, TOMATO (section "Models").
- "shapes": the bundled models.
- "videomme": the same without "(" at the end, as Map the Flow asks Video-MME.
- "internvl": Mini-InternVL-4B and its video-tuned successor in Map the Flow: roles of Phi-3, no `<|end|>`.
- "vcgbench": open-ended questions of VCGBench: the instruction of Video-ChatGPT, no answer begun.
- "videollama3": chat template of VideoLLaMA3, with its system line; the words around the options are those of "vicuna".
"""


def template_named(name: str) -> PromptTemplate:
    """A template by its name.

    Raises:
        PromptError: there is none; the message lists those there are.
    """
    if name not in TEMPLATES:
        raise PromptError(near(name, TEMPLATES, kind="template"))
    return TEMPLATES[name]
