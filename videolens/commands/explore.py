"""`videolens explore`: a page to look into one question about a clip of one's own."""

from __future__ import annotations

import argparse

from videolens.commands.shared import (
    BUNDLED,
    Commands,
    add_command,
    add_placing,
    add_question,
    asked_question,
    quiet,
    say,
    tell,
)
from videolens.errors import VideolensError


def add(commands: Commands) -> None:
    """Its options."""
    explore = add_command(
        commands,
        "explore",
        example="videolens explore --model shapes --video clip.mp4 \\\n"
        '  --question "Which way does the red circle move?" \\\n'
        "  --option left --option right --option up --option down --answer left --block cross-frame",
        help="make a page to look into one question about a clip of your own",
        description="Ask one question about one clip, and write one page on which it can be looked into: the clip, the "
        "prompt's tokens, the flow map, and what every token looks at and reads as. It needs no network.",
    )
    add_question(explore)
    explore.add_argument("--window", type=int, help="layers cut together (default: 9 of 32, to scale)")
    explore.add_argument(
        "--rows",
        action="append",
        metavar="SELECTION",
        help='whose attention is kept, such as "last" or "frame 3"; once per selection (default: every token)',
    )
    explore.add_argument(
        "--block",
        action="append",
        metavar="ROUTE",
        help="beside it, the same with this route cut in all layers; once each",
    )
    explore.add_argument("--beside", metavar="MODEL", help=f"beside it, another model: {BUNDLED}")
    explore.add_argument("--no-words", action="store_true", help="do not read the tokens through the logit lens")
    add_placing(explore)
    explore.add_argument("--out", default="out/explorer.html", metavar="FILE", help="(default: %(default)s)")
    explore.add_argument("--overwrite", action="store_true", help="replace a file that is there already")
    explore.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Run the question, and tell where the page is."""
    quiet()
    if options.beside and options.block:
        raise VideolensError("--beside and --block both say what stands beside: give one of them")
    from videolens.explorer.explore import explore
    from videolens.model.loading import load

    question = asked_question(options)
    placed = {"device": options.device, "dtype": options.dtype, "say": say}
    say(f"loading {options.model}")
    model = load(options.model, **placed)
    beside = load(options.beside, **placed) if options.beside else options.block
    say("running the question")
    found = explore(
        model, question, beside=beside, window=options.window, rows=options.rows, words=not options.no_words
    )
    tell(f"{found.save_html(options.out, overwrite=options.overwrite)}")
