"""What commands share: words for their options, and how they speak."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any, TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

BUNDLED = "a bundled model (shapes, shapes-image, …), a checkpoint directory, or a name on the Hugging Face hub"


class _Help(argparse.HelpFormatter):
    """Wraps text, but for an example, which is to be copied as it stands."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith(EXAMPLE):
            return "".join(indent + line for line in text.splitlines(keepends=True))
        return super()._fill_text(text, width, indent)


EXAMPLE = "example:\n"


def add_command(commands: Commands, name: str, *, example: str, **described: Any) -> argparse.ArgumentParser:
    """A command, whose help ends with an example.

    Args:
        commands: where it is added.
        name: what it is called.
        example: a whole command line, in as many lines as it needs, each but the last ending with a backslash.
        described: `help`, `description`, `aliases`, as argparse takes them. In `help` a per cent sign is written twice,
            in `description` once.
    """
    lines = "\n".join(f"  {line}" for line in example.splitlines())
    return commands.add_parser(name, epilog=EXAMPLE + lines, formatter_class=_Help, **described)


def add_placing(command: argparse.ArgumentParser, device: str | None = "auto") -> None:
    """`--device` and `--dtype`, of every command that runs a model. `device`: the default; None: another says."""
    command.add_argument(
        "--device",
        default=device,
        help="where the model runs: auto (CUDA or MPS where there is one, else the CPU), cpu, cuda, cuda:1, mps "
        f"(default: {device or 'what the config says'})",
    )
    command.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help=f"of weights and activations (default: {'the checkpoint’s own' if device else 'what the config says'})",
    )


def add_question(command: argparse.ArgumentParser) -> None:
    """`--model`, and one question about one clip, of every command that asks one."""
    command.add_argument("--model", required=True, help=BUNDLED)
    command.add_argument("--video", required=True, metavar="FILE", help="mp4, mkv, webm, …")
    command.add_argument("--question", required=True, metavar="TEXT", help="the bare question")
    command.add_argument(
        "--option", action="append", metavar="TEXT", help="an option without its letter; once per option"
    )
    command.add_argument("--answer", metavar="TEXT", help="the right option, word for word")
    command.add_argument("--completion", metavar="TEXT", help="beginning of the answer to an open-ended question")
    command.add_argument("--start", type=float, metavar="SECONDS", help="where the part of the video begins")
    command.add_argument("--end", type=float, metavar="SECONDS", help="where it ends")
    command.add_argument("--n-frames", type=int, default=8, help="frames to sample (default: %(default)s)")


def asked_question(options: argparse.Namespace) -> Any:
    """The question that `add_question`'s options make.

    Raises:
        VideoError: the clip cannot be read.
        QuestionError: options without the answer among them, and the like.
    """
    from videolens.question import Question
    from videolens.video.video import Video

    video = Video.from_file(options.video, n_frames=options.n_frames, start=options.start, end=options.end)
    return Question(
        video=video,
        stem=options.question,
        options=options.option,
        answer=options.answer,
        completion=options.completion,
        id=os.path.basename(options.video),
    )


def size(text: str) -> int:
    """Bytes, as a number or with a unit (K, M, G, also KiB, MiB, GiB: of 1024): 500M, 1.5G."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    try:
        number = text.removesuffix("iB")
        return int(float(number[:-1]) * units[number[-1].upper()] if number[-1:].upper() in units else float(number))
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: give bytes, or a number with K, M or G") from None


def quiet() -> None:
    """Keep other packages' notes off the terminal: what this program has to say should be readable."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def say(text: str) -> None:
    """What is being done, on standard error."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def tell(text: str) -> None:
    """A result, on standard output."""
    sys.stdout.write(f"{text}\n")


def failed(text: str, code: int = 2) -> int:
    """One clear line about what went wrong, and the exit status."""
    sys.stderr.write(f"videolens: error: {text}\n")
    return code
