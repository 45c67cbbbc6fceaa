"""What a search costs by the clock, in docs/search.md: `python docs/numbers/search_cost.py 100`.

So many questions of each task; one level, 98 %, from the last layer down; beside it the same questions by plain
forwards, in batches of 32, in one process.
"""

from __future__ import annotations

import random
import sys
import time

import videolens as vl
from videolens.experiments.search.experiment import search
from videolens.experiments.search.judging import Judge
from videolens.experiments.search.keeping import Keeping
from videolens.experiments.search.memory import Answers
from videolens.experiments.search.orders import ordered

TASKS = ("moving direction", "action antonym", "action sequence", "object count", "scene transition")


def main(n: int) -> None:
    model = vl.HookedVideoTransformer.from_pretrained("shapes")
    some = [one for task in TASKS for one in vl.load_dataset("shapes", task=task, split="validation", n=n)]
    judge = Judge(model, [model.prompt(one) for one in some])
    before = time.process_time()
    assert len(judge.full) == judge.n
    plain = time.process_time() - before  # CPU seconds of all questions by plain forwards
    keeping = Keeping(judge, 0.1)
    units, _ = ordered(judge, "last layer first", random.Random(0))
    before = time.process_time()
    list(search(keeping, units, "last layer first", Answers(None, judge, 0.1), levels=[0.98]))
    seconds, tried = time.process_time() - before + plain, keeping.effort.candidates
    print(f"{judge.n} questions, {tried} candidates: {seconds:.1f} s of CPU, plain forwards {tried * plain:.1f} s")
    print(f"{seconds / (tried * plain):.3f} by time, {keeping.effort.operations / (tried * judge.n):.3f} by operations")


if __name__ == "__main__":
    main(int(sys.argv[1]))
