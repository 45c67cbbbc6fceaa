"""The command line: `videolens demo`, `flow`, `accuracy`, `check`, `data`. Heavy packages are imported by the command
that runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from videolens import __version__
from videolens.errors import VideolensError

__all__ = ["main"]

BUNDLED = "a bundled model (shapes, shapes-image), a checkpoint directory, or a name on the Hugging Face hub"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 if it went well, 1 if a check failed, 2 with one clear line on standard error if asked for
    something impossible."""
    options = parser().parse_args(arguments)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        return int(options.run(options) or 0)
    except VideolensError as error:
        return _failed(str(error))
    except OSError as error:
        return _failed(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    except KeyboardInterrupt:
        return _failed("interrupted", code=130)


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(
        prog="videolens", description="See where information flows in a VideoLLM, and cut what does not matter."
    )
    top.add_argument("--version", action="version", version=f"videolens {__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_flow(commands)
    _add_accuracy(commands)
    _add_check(commands)
    _add_data(commands)
    return top


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = commands.add_parser(
        "demo",
        help="map a video-tuned model and its image-only base, and write one page about it",
        description="Map two models on the same questions; write flow.csv, flow.parquet, figures and report.html.",
    )
    demo.add_argument("--out", default="out/demo", metavar="DIR", help="where to write (default: %(default)s)")
    demo.add_argument("--n", type=int, default=20, help="questions of each task to map (default: %(default)s)")
    demo.add_argument("--n-accuracy", type=int, default=40, help="questions of each task for accuracies (%(default)s)")
    demo.add_argument("--seed", type=int, default=0, help="of the questions (default: %(default)s)")
    demo.add_argument("--split", default="test", choices=("train", "validation", "test"), help="(default: %(default)s)")
    demo.add_argument("--model", default="shapes", help=f"the video-tuned model: {BUNDLED} (default: %(default)s)")
    demo.add_argument("--base", default="shapes-image", help="the image-only base (default: %(default)s)")
    demo.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> None:
    _quiet()
    from videolens.report.demo import DemoSettings, run_demo

    settings = DemoSettings(
        model=options.model,
        base=options.base,
        n=options.n,
        n_accuracy=options.n_accuracy,
        seed=options.seed,
        split=options.split,
    )
    page = run_demo(options.out, settings, say=_say)
    _tell(f"{page}")


def _add_flow(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    flow = commands.add_parser(
        "flow",
        help="map one question about a clip of your own",
        description="Ask one question about one clip, cut every route in every window of layers, and write table, "
        "figures and a page. Without --answer, “true option” is the model's own choice. Without --option, the "
        "question is open-ended.",
    )
    flow.add_argument("--model", required=True, help=BUNDLED)
    flow.add_argument("--video", required=True, metavar="FILE", help="mp4, mkv, webm, …")
    flow.add_argument("--question", required=True, metavar="TEXT", help="the bare question")
    flow.add_argument("--option", action="append", metavar="TEXT", help="an option without its letter; once per option")
    flow.add_argument("--answer", metavar="TEXT", help="the right option, word for word")
    flow.add_argument("--completion", metavar="TEXT", help="beginning of the answer to an open-ended question")
    flow.add_argument("--start", type=float, metavar="SECONDS", help="where the part of the video begins")
    flow.add_argument("--end", type=float, metavar="SECONDS", help="where it ends")
    flow.add_argument("--n-frames", type=int, default=8, help="frames to sample (default: %(default)s)")
    flow.add_argument("--window", type=int, help="layers cut together (default: 9 of 32, to scale)")
    flow.add_argument(
        "--engine",
        default="exact",
        choices=("exact", "full"),
        help="compute what a cut can change, or run the whole prompt for every route and window; the results are the "
        "same to rounding (default: %(default)s)",
    )
    flow.add_argument("--verify", action="store_true", help="also run a sample in full and compare")
    flow.add_argument(
        "--max-memory",
        type=_size,
        metavar="BYTES",
        help="what may be used besides the model, such as 500M or 4G (default: half of what is free)",
    )
    flow.add_argument("--plan", action="store_true", help="print what the map would cost, and stop")
    flow.add_argument("--out", default="out/flow", metavar="DIR", help="where to write (default: %(default)s)")
    flow.add_argument("--overwrite", action="store_true", help="replace a flow map that is there already")
    flow.set_defaults(run=_flow)


def _flow(options: argparse.Namespace) -> None:
    _quiet()
    from videolens.question import Question
    from videolens.report.own_clip import map_own_clip, plan_own_clip
    from videolens.video import Video

    video = Video.from_file(options.video, n_frames=options.n_frames, start=options.start, end=options.end)
    question = Question(
        video=video,
        stem=options.question,
        options=options.option,
        answer=options.answer,
        completion=options.completion,
        id=os.path.basename(options.video),
    )
    if options.plan:
        _tell(str(plan_own_clip(options.model, question, window=options.window, max_memory=options.max_memory)))
        return
    found = map_own_clip(
        options.model,
        question,
        options.out,
        window=options.window,
        engine=options.engine,
        max_memory=options.max_memory,
        verify=options.verify,
        overwrite=options.overwrite,
        say=_say,
    )
    judged = {True: ", which is right", False: ", which is wrong", None: ""}[found.correct]
    _tell(f"answer: {found.answer}{judged} (probability {found.probability:.2f})\n{found.page}")


def _add_accuracy(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    accuracy = commands.add_parser(
        "accuracy",
        help="measure models on the procedural benchmark and print a table",
        description="Ask every model the same questions of every task, temporal ones also reversed, and print the "
        "share of right choices with 95 %% intervals as a Markdown table.",
    )
    accuracy.add_argument("--model", action="append", help=f"{BUNDLED}; once per model (default: both bundled ones)")
    accuracy.add_argument("--n", type=int, default=200, help="questions per task (default: %(default)s)")
    accuracy.add_argument(
        "--split", default="test", choices=("train", "validation", "test"), help="(default: %(default)s)"
    )
    accuracy.add_argument("--seed", type=int, default=0, help="of the questions (default: %(default)s)")
    accuracy.add_argument("--task", action="append", help="a task; once per task (default: all ten)")
    accuracy.add_argument(
        "--condition",
        action="append",
        help="as is, reversed, shuffled, blank; once per condition, temporal tasks only (default: as is and reversed)",
    )
    accuracy.add_argument("--out", metavar="DIR", help="also write every single answer there")
    accuracy.set_defaults(run=_accuracy)


def _accuracy(options: argparse.Namespace) -> None:
    _quiet()
    from videolens.datasets.shapes import TASKS
    from videolens.model.transformer import HookedVideoTransformer
    from videolens.report.benchmark import shapes_accuracy

    names = options.model or ["shapes", "shapes-image"]
    # a directory is called by its last part, unless two are called alike
    short = [name.rstrip("/").split("/")[-1] for name in names]
    called = short if len(set(short)) == len(short) else names
    models = {call: HookedVideoTransformer.from_pretrained(name) for call, name in zip(called, names, strict=True)}
    result = shapes_accuracy(
        models,
        n=options.n,
        split=options.split,
        seed=options.seed,
        tasks=options.task or TASKS,
        conditions=options.condition or ("as is", "reversed"),
    )
    if options.out:
        result.save(options.out)
    _tell(f"{result.markdown()}\n\nSplit {options.split}, seed {options.seed}.")


def _add_check(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    check = commands.add_parser(
        "check",
        help="compare a checkpoint as it runs here with the original in transformers",
        description="Load a checkpoint both ways, one after the other, ask one question about one clip, and print how "
        "far pixels, residuals and logits are apart. Ends with 1 if they are further apart than rounding explains.",
    )
    check.add_argument("model", metavar="MODEL", help=BUNDLED)
    check.add_argument("--video", metavar="FILE", help="a clip (default: a square that moves)")
    check.add_argument("--n-frames", type=int, default=8, help="frames to sample of it (default: %(default)s)")
    check.add_argument(
        "--dtype",
        default="float32",
        choices=("float32", "bfloat16", "float16"),
        help="of both; half precision takes half the memory and proves less (default: %(default)s)",
    )
    check.set_defaults(run=_check)


def _check(options: argparse.Namespace) -> int:
    _quiet()
    import torch

    from videolens.model.checking import check_model, default_clip
    from videolens.video import Video

    video = (
        Video.from_file(options.video, n_frames=options.n_frames) if options.video else default_clip(options.n_frames)
    )
    found = check_model(options.model, video=video, dtype=getattr(torch, options.dtype))
    _tell(f"{found.markdown()}\n\n{'passed' if found.passed else 'FAILED: see the lines marked “too far”'}")
    return 0 if found.passed else 1


def _add_data(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    data = commands.add_parser("data", help="write a benchmark to disk")
    kinds = data.add_subparsers(title="benchmarks", required=True, metavar="BENCHMARK")
    shapes = kinds.add_parser(
        "shapes",
        help="the procedural benchmark, as mp4 files and questions in TVBench's layout",
        description="Write N questions of each task, each with its own clip: DIR/json/TASK.json and "
        "DIR/video/TASK/*.mp4.",
    )
    shapes.add_argument("directory", metavar="DIR")
    shapes.add_argument(
        "--n", type=int, default=100, metavar="PER_TASK", help="questions per task (default: %(default)s)"
    )
    shapes.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    shapes.add_argument(
        "--split", default="test", choices=("train", "validation", "test"), help="(default: %(default)s)"
    )
    shapes.add_argument("--task", action="append", help="a task; once per task (default: all ten)")
    shapes.set_defaults(run=_data_shapes)


def _data_shapes(options: argparse.Namespace) -> None:
    from videolens.datasets.shapes import TASKS, write_shapes

    tasks = options.task or TASKS
    written = write_shapes(options.directory, n=options.n, seed=options.seed, split=options.split, tasks=tasks)
    _tell(f"{written}: {options.n} questions of each of {len(tasks)} tasks, split {options.split}, seed {options.seed}")


def _size(text: str) -> int:
    """Bytes, as a number or with a unit (K, M, G: of 1024): 500M, 1.5G."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    try:
        return int(float(text[:-1]) * units[text[-1].upper()] if text[-1:].upper() in units else float(text))
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: give bytes, or a number with K, M or G") from None


def _quiet() -> None:
    """Keep other packages' notes off the terminal: what this program has to say should be readable."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _say(text: str) -> None:
    """What is being done, on standard error."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _tell(text: str) -> None:
    """A result, on standard output."""
    sys.stdout.write(f"{text}\n")


def _failed(text: str, code: int = 2) -> int:
    sys.stderr.write(f"videolens: error: {text}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
