"""A text about a clip, answered under interventions: what an evaluation tool asks of a model.

Such tools hand over whole messages, instructions and options in them, and read what is written. So the text is the
question as it stands; where its options lie is not known.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from videolens.errors import PromptError, VideolensError, check_whole
from videolens.interventions.protocol import Acting, as_interventions
from videolens.interventions.route_pathway import read_pathway
from videolens.model.generation import follow
from videolens.model.loading import load
from videolens.model.wording import template_of
from videolens.prompt.prompt import Prompt
from videolens.prompt.template import PromptTemplate
from videolens.question import Question
from videolens.reading import as_path, read_plain
from videolens.runs.checking import checked
from videolens.video.video import Video

MOST_NEW_TOKENS = 1024
"""What is written at most where a task does not say: as the models that lmms-eval brings."""

_TEXTS = ("pretrained", "pathway", "interventions", "revision", "begin", "instruction")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a model is loaded, and how it is asked.

    Attributes:
        pretrained: a bundled model, a directory or a name on the hub, as `from_pretrained` takes it.
        pathway: a file that `read_pathway` reads: only this is left open.
        interventions: a YAML or JSON file, a list of `{route: …, layers: …}` (with `heads` and a `factor` if need be)
            or of routes by name.
        compiled: compute only what these leave (`model.compile`); they may then only cut attention.
        n_frames, sampling: of the clip, as in `Video.from_file`.
        template: name of a prompt template; None: the checkpoint's own. Only what stands around a message is taken.
        instruction: words that end every text of the tasks and are no part of the question; they then belong to the
            suffix, as in the package's own prompts.
        begin: beginning of the answer, put straight behind the template's last words.
        device, dtype, base, revision, trust_remote_code: as in `from_pretrained`.
    """

    pretrained: str
    pathway: str | None = None
    interventions: str | None = None
    compiled: bool = False
    n_frames: int = 8
    sampling: str = "midpoints"
    template: str | None = None
    instruction: str = ""
    begin: str = ""
    device: str = "auto"
    dtype: str | None = None
    base: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False


class Answering:
    """A loaded model with what acts on it.

    Args:
        given: the fields of `Settings`.

    Raises:
        VideolensError: a field that is missing, unknown or of the wrong kind; a file that is not there or holds no
            pathway; a pathway for another depth; `compiled` with nothing that cuts attention.
        ModelError: the model cannot be loaded.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        # a revision of digits, say, which an argument string makes a number
        given = {name: str(value) if name in _TEXTS and type(value) is int else value for name, value in given.items()}
        self.settings = Settings(**checked(given, Settings, where="model_args", kind="argument"))
        check_whole("n_frames", self.settings.n_frames, least=1)
        asked = self.settings
        self._acting: list[Acting] = [] if asked.pathway is None else [read_pathway(asked.pathway)]
        rest = None if asked.interventions is None else read_plain(as_path(asked.interventions, "interventions"))
        self.model = load(
            asked.pretrained,
            device=asked.device,
            dtype=asked.dtype,
            base=asked.base,
            revision=asked.revision,
            trust_remote_code=asked.trust_remote_code,
        )
        if rest is not None:
            self._acting += as_interventions(rest, self.model.cfg, called=str(asked.interventions))
        self._acting = as_interventions(self._acting, self.model.cfg, optional=True)
        if asked.compiled and not self._acting:
            raise VideolensError("compiled=True needs something that is left out: give pathway=FILE, or interventions")
        self._fast = self.model.compile(self._acting) if asked.compiled else None
        self._template = _bare(template_of(self.model, asked.template or self.model.template), asked.begin)

    def write(self, text: str, visuals: Any, how: Mapping[str, Any]) -> str:
        """What the model writes about a clip.

        1. The clip is read and the text laid out as the message of a user.
        2. Greedy, unless `do_sample` is true, or not given with a temperature above 0.
        3. At most `max_new_tokens`, and no more than the context holds; cut where one of `until` begins.

        Args:
            text: the whole message.
            visuals: the path of one video.
            how: the settings of a generation that lmms-eval's tasks have.

        Raises:
            PromptError: no video, or several; beam search.
            VideolensError: the clip cannot be read, or a setting is out of range.
        """
        prompt = self.prompt(text, visuals)
        new, drawing, until = _generation(how)
        new = min(new, max(1, self.model.cfg.n_ctx - prompt.shape[1]))
        if self._fast is not None:
            found = self._fast.generate(prompt, new, **drawing).text
        else:
            found = self.model.generate(prompt, new, self._acting, **drawing).text
        return found[: min((at for at in map(found.find, until) if at >= 0), default=len(found))]

    def loss(self, text: str, visuals: Any, continuation: str) -> tuple[float, bool]:
        """How unlikely words are behind a text about a clip: mean of −ln p over their tokens, and whether greedy
        decoding writes them. (That is what lmms-eval's own models give, and its tasks take the smallest.)

        A compiled pathway is not used here: the model itself runs under the same interventions.

        Raises:
            PromptError: no video, or several; no words, or words that the tokenizer joins with the prompt's last token.
        """
        if not continuation.strip():
            raise PromptError(f"the answer whose likelihood is asked for is {continuation!r}: it has no words")
        prompt, longer = self.prompt(text, visuals), self.prompt(text, visuals, continuation)
        ids, n = longer.input_ids[0], prompt.shape[1]
        if len(ids) <= n or not ids[:n].equal(prompt.input_ids[0]):
            raise PromptError(
                f"the tokenizer joins the answer {continuation!r} with the end of the prompt, "
                f"{(prompt.text or '')[-20:]!r}, so it has no likelihood of its own: begin it with a space, or give "
                "another template"
            )
        likely, greedy = follow(self.model, prompt, ids[n:].tolist(), self._acting)
        return -float(likely.mean()), greedy

    def prompt(self, text: str, visuals: Any, continuation: str | None = None) -> Prompt:
        """The prompt of a message about a clip, and of the answer's words behind it, if they are given."""
        video = Video.from_file(_only_video(visuals), self.settings.n_frames, sampling=self.settings.sampling)
        stem, rest = _without(text, self.settings.instruction)
        template = replace(self._template, open_ended=(*self._template.open_ended[:-1], self._suffix(rest)))
        if continuation is not None:
            continuation = continuation if self.settings.begin else continuation.strip()
            template = replace(template, space="" if self.settings.begin else template.space)
        return self.model.prompt(Question(video, stem, completion=continuation), template)

    def _suffix(self, rest: str) -> tuple[str, str]:
        role, words = self._template.open_ended[-1]
        return role, _as_it_stands(rest) + words


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Errors of ours in here say what was asked: "task mvbench, document 3"."""
    try:
        yield
    except VideolensError as error:
        raise type(error)(f"{where}: {error}") from error


def _bare(template: PromptTemplate, begin: str) -> PromptTemplate:
    """Only what stands around a message: no words of the template's own inside it; and the answer begun."""
    *pieces, (role, words) = (piece for piece in template.open_ended if piece[0] != "header")
    if role != "suffix" or "{completion}" not in words:
        raise PromptError(f"template {template.name!r} does not end with the answer's beginning: choose another")
    begun = words.replace("{completion}", _as_it_stands(begin) + "{completion}")
    return replace(template, open_ended=(*pieces, (role, begun)))


def _as_it_stands(words: str) -> str:
    """Words in a template, in which braces stand for something."""
    return words.replace("{", "{{").replace("}", "}}")


def _without(text: str, instruction: str) -> tuple[str, str]:
    """A text in two: the question, and the instruction that ends it with the space around that.

    Raises:
        PromptError: it does not end with the instruction, or is nothing else.
    """
    if not instruction.strip():
        return text, ""
    words = text.rstrip().removesuffix(instruction.strip())
    if words == text.rstrip() or not words.strip():
        raise PromptError(
            f"the text ends with {text.rstrip()[-60:]!r}, not with a question and the instruction {instruction!r}: "
            "give instruction= as it stands in the task's texts, or leave it out"
        )
    return words.rstrip(), text[len(words.rstrip()) :]


def _only_video(visuals: Any) -> str:
    """The path of the one video.

    Raises:
        PromptError: there is none, there are several, or it is something else than the path of a file.
    """
    each = list(visuals) if isinstance(visuals, (list, tuple)) else [] if visuals is None else [visuals]
    if len(each) == 1 and isinstance(each[0], (str, os.PathLike)):
        return os.fspath(each[0])
    kinds = ", ".join(dict.fromkeys(type(one).__name__ for one in each))
    said = "no video" if not each else f"{len(each)} of {kinds}" if len(each) > 1 else f"something else ({kinds})"
    raise PromptError(f"it comes with {said}: a model of videolens is asked about one video, given by its path")


def _generation(how: Mapping[str, Any]) -> tuple[int, dict[str, Any], Sequence[str]]:
    """Of a task's settings: how many tokens, how they are drawn, and where the text ends.

    Raises:
        PromptError: beam search, which there is not.
    """
    given = {name: value for name, value in how.items() if value is not None}
    if given.get("num_beams", 1) not in (1, "1"):
        raise PromptError(f"num_beams = {given['num_beams']!r}: there is no beam search here; give num_beams=1")
    temperature = given.get("temperature", 0)
    drawn = given.get("do_sample", bool(temperature)) and temperature != 0
    drawing = {name: given[name] for name in ("temperature", "top_p", "top_k") if name in given} if drawn else {}
    until = given.get("until", ())
    until = [until] if isinstance(until, str) else list(until)
    new = given.get("max_new_tokens", given.get("max_gen_toks", MOST_NEW_TOKENS))
    return new, ({"do_sample": True} | drawing if drawn else {}), [end for end in until if end]
