"""`videolens flow`: one question about a clip of one's own."""

from __future__ import annotations

import argparse

from videolens.commands.shared import (
    Commands,
    add_command,
    add_placing,
    add_question,
    asked_question,
    quiet,
    say,
    size,
    tell,
)
from videolens.interventions.layer_sets import STYLES


def add(commands: Commands) -> None:
    """Its options."""
    flow = add_command(
        commands,
        "flow",
        example="videolens flow --model shapes --video clip.mp4 \\\n"
        '  --question "Which way does the red circle move?" \\\n'
        "  --option left --option right --option up --option down --answer left",
        help="map one question about a clip of your own",
        description="Ask one question about one clip, cut every route in every window of layers, and write table, "
        "figures and a page. Without --answer, “true option” is the model's own choice. Without --option, the "
        "question is open-ended.",
    )
    add_question(flow)
    flow.add_argument("--window", type=int, help="layers cut together (default: 9 of 32, to scale)")
    flow.add_argument(
        "--style",
        default="centre",
        choices=tuple(STYLES),
        help="which layers are cut together: a window around each layer, all but that window, each layer and all after "
        "or before it, or half of the layers; only the first two have a window (default: %(default)s)",
    )
    flow.add_argument(
        "--route",
        action="append",
        metavar="ROUTE",
        help='such as "video -> last" or "video -> false options"; once per route (default: the paper\'s eleven)',
    )
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
        type=size,
        metavar="BYTES",
        help="what may be used besides the model, such as 500M or 4G (default: half of what is free)",
    )
    flow.add_argument("--plan", action="store_true", help="print what the map would cost, and stop")
    add_placing(flow)
    flow.add_argument("--out", default="out/flow", metavar="DIR", help="where to write (default: %(default)s)")
    flow.add_argument("--overwrite", action="store_true", help="replace a flow map that is there already")
    flow.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Map the question, or tell what that would cost."""
    quiet()
    from videolens.interventions.knockout import ROUTES
    from videolens.pages.own_clip import map_own_clip, plan_own_clip

    question = asked_question(options)
    cuts = {"routes": options.route or ROUTES, "window": options.window, "style": options.style}
    cuts |= {"device": options.device, "dtype": options.dtype, "max_memory": options.max_memory, "say": say}
    if options.plan:
        tell(str(plan_own_clip(options.model, question, **cuts)))
        return
    found = map_own_clip(
        options.model,
        question,
        options.out,
        **cuts,
        engine=options.engine,
        verify=options.verify,
        overwrite=options.overwrite,
    )
    judged = {True: ", which is right", False: ", which is wrong", None: ""}[found.correct]
    for doubt in found.doubts:
        say(f"warning: {doubt}")
    tell(f"answer: {found.answer}{judged} (probability {found.probability:.2f})\n{found.page}")
