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

INTERNVL2_5_INSTRUCTION = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
)
"""OpenGVLab/InternVL, `conversation.py`, of the template "internvl2_5"."""

_VICUNA = ("{system}\n USER: ", "\n USER: ", " ASSISTANT:")
_PHI3 = ("{system}\n <|user|>\n", "\n <|user|>\n", " <|assistant|>\n")
_SMOL = ("<|im_start|>User: ", "", "<end_of_utterance>\nAssistant:")
_CHATML = ("<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n", "\n", "<|im_end|>\n<|im_start|>assistant\n")


def conversation(
    name: str,
    system: str,
    words: tuple[str, str, str],
    *,
    lead: str = "",
    options: str = "\nOptions:\n",
    between: str = "\n",
    answer: str = "Best option:(",
) -> PromptTemplate:
    """An instruction, the video, "Question: …", the options, and the model's turn with its answer begun.

    Args:
        name, system, between: as in `PromptTemplate`.
        words: what stands before the video, between video and question, and where the model's turn begins.
        lead: what stands before the line that asks for the best option.
        options: what stands before the first option.
        answer: the beginning of the answer, which a letter goes on.
    """
    before, glue, turn = words
    head = (("system", before), ("video", "{video}"), ("glue", glue), ("header", "Question: "), ("stem", "{stem}"))
    suffix = f"{lead}\nOnly give the best option.{turn}{answer}"
    return PromptTemplate(
        name=name,
        system=system,
        multiple_choice=(*head, ("header", options), ("option", "{options}"), ("suffix", suffix)),
        open_ended=(*head, ("suffix", turn + "{completion}")),
        between=between,
        space="" if turn[-1:].isspace() else " ",
    )


_VCGBENCH = PromptTemplate(
    name="vcgbench",
    system=VCG_INSTRUCTION,
    multiple_choice=(),
    open_ended=(
        *(("system", "{system} USER: "), ("video", "{video}"), ("glue", "\n USER: ")),
        *(("stem", "{stem}"), ("suffix", " ASSISTANT:{completion}")),
    ),
)
_ONE_LINE: dict[str, str] = {"options": " Options: ", "between": " "}
TEMPLATES = {
    template.name: template
    for template in (
        # as Map the Flow gives them to its Vicuna models, with different ways of listing the options
        conversation("vicuna", MVBENCH_INSTRUCTION, _VICUNA, lead=" "),
        conversation("shapes", "Watch the video and answer the question.", _VICUNA, lead=" ", **_ONE_LINE),
        conversation("videomme", MVBENCH_INSTRUCTION, _VICUNA, lead=" ", answer="Best option:"),
        conversation("internvl", MVBENCH_INSTRUCTION, _PHI3, lead=" "),
        conversation("internvl2_5", INTERNVL2_5_INSTRUCTION, _CHATML),
        _VCGBENCH,
        conversation("videollama3", VIDEOLLAMA3_INSTRUCTION, _CHATML),
        conversation("smolvlm", "", _SMOL),
        conversation("qwen_1_5", "You are a helpful assistant.", _CHATML),
    )
}
"""By name.

- "vicuna": LLaVA-NeXT-Video and Map the Flow's Vicuna models on MVBench, TVBench, TOMATO (section "Models").
- "shapes": the bundled models.
- "videomme": the same without "(" at the end, as Map the Flow asks Video-MME.
- "internvl": Mini-InternVL-4B and its video-tuned successor in Map the Flow: roles of Phi-3, no `<|end|>`.
- "internvl2_5": InternVL2.5, 3 and 3.5 in their authors' layout, with their system line; the words around the options
  are those of "vicuna".
- "vcgbench": open-ended questions of VCGBench: the instruction of Video-ChatGPT, no answer begun.
- "qwen_1_5": LLaVA-Video and LLaVA-OneVision in their authors' layout: LLaVA-NeXT's conversation template of this name;
  the words around the options are those of "vicuna".
- "smolvlm": what the processor of transformers writes for a video with SmolVLM2, whatever the checkpoint's own chat
  template says; the words around the options are those of "vicuna".
- "videollama3": chat template of VideoLLaMA3, with its system line; the words around the options are those of "vicuna".
"""


def template_named(name: str) -> PromptTemplate:
    """A template by its name; a `PromptError` lists those there are."""
    if name not in TEMPLATES:
        raise PromptError(near(name, TEMPLATES, kind="template"))
    return TEMPLATES[name]
