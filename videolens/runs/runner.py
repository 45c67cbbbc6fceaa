"""Running a config: experiments over questions in parts that last, and results at the end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from videolens.errors import utf8
from videolens.experiments.common.experiment import Experiment
from videolens.progress import progress_bar
from videolens.question import Question
from videolens.runs.asking import ask_chunk, cut, pictured_before
from videolens.runs.config import RunConfig, digest, read_config
from videolens.runs.directory import CONFIG, RunDirectory
from videolens.runs.identity import check_config, check_identity, identity_of, machine
from videolens.runs.making import Say, experiments_of, model_of, questions_of, torch_threads
from videolens.runs.outcome import Run, write_results
from videolens.runs.parts import FORMAT, Chunk, DamagedPartError, Part, read_part, write_part
from videolens.runs.workers import Workers, check_workers
from videolens.runs.writing import make_directory, write_atomic

Work = list[tuple[Experiment[Any], Chunk, list[Question]]]


def run(
    config: Mapping[str, Any] | str | Path | RunConfig,
    out: str | Path,
    *,
    workers: int | None = None,
    ray: str | None = None,
    progress: bool = True,
    say: Say = lambda text: None,
) -> Run:
    """Ask every experiment of a config every question, in a directory that survives anything.

    1. Read the config and check all of it.
    2. Lock the directory, and take away what an interrupted write has left. Refuse one that holds something else, or a
       run with another config, model, data set or software. If the run is finished, that is all.
    3. Load the model and make the experiments, which check their options. From here on the directory is this run's.
    4. Cut the questions of every experiment into chunks. A chunk whose part is there is done; a part that is damaged
       is made anew; one of something else is an error.
    5. Ask what is left, chunk by chunk; write each part whole or not at all. A question that cannot be asked (its clip
       is damaged, say; whatever goes wrong with it, of any type) is recorded with its error, and the next one is asked.
    6. Put the parts together; write results and summary into a folder, and give it its name when all is in it.

    Killed at any moment, the same call goes on where it was: no finished part is made again, at most one is lost, and
    on the same machine, with the threads it was begun with, every file below `results/` is the same to the byte.

    >>> run({"model": "shapes", "dataset": {"name": "shapes", "n": 4}, "experiments": ["flow"]}, "out/flow").results

    Args:
        config: a YAML file, or the same as a mapping.
        out: the run's directory.
        workers: how many processes ask, on Ray (the extra `videolens[ray]`), each with the model and, where there are
            GPUs, one of them for itself; None: this process asks. Only this process writes, so on machines of one kind
            parts and results are the same to the byte. A worker that dies is replaced, and its chunk asked again.
        ray: address of a Ray cluster to join ("host:port", "auto"); None: one is started here, and ends with the run.
        progress: show a bar with the time that is left.
        say: called with what is being done, in words.

    Raises:
        VideolensError: the config, the directory, the model or the data set is not as it should be; nothing but
            errors, or nothing left, in every experiment; more workers than chunks, or a cluster that does not answer.
    """
    # 1.
    config = read_config(config)
    check_workers(workers, ray)
    # 2.
    with RunDirectory(out) as directory:
        there = directory.manifest()
        if there is not None:
            check_config(directory.path, there, config)
        questions = questions_of(config)
        identity = identity_of(config, questions)
        if there is not None:
            check_identity(directory.path, there, identity)
            if directory.finished:
                say(f"the run in {directory.path} is finished")
                return Run.load(directory.path).checked()
        # 3.
        threads = there["threads"] if there is not None else config.threads or torch.get_num_threads()
        with torch_threads(threads):
            model = model_of(config, say)
            experiments = experiments_of(config, model)
            if there is None:
                directory.begin({"format": FORMAT, "identity": identity, "threads": threads, "machine": machine()})
            elif there["machine"] != machine():
                say(f"begun on {there['machine']}, goes on on {machine()}: numbers can differ in their last bits")
            write_atomic(directory.path / CONFIG, utf8(config.yaml()))
            # 4.
            done, work = _done(directory, digest(identity), experiments, questions, config.chunk, say)
            n_chunks = len(done) + len(work)
            directory.log("begun" if there is None else "resumed", chunks=n_chunks, done=len(done), threads=threads)
            if done:
                say(f"{directory.path}: {len(done)} of {n_chunks} parts are there already")
            # 5.
            total = sum(len(some) for _, _, some in work)
            # the bar counts what was left to do when it began, so that the time it gives is that of this process
            with progress_bar("asking", total=total, leave=True, shown=progress and bool(work)) as bar:
                if workers is None or not work:
                    _ask(directory, work, done, bar)
                else:
                    with Workers(workers, ray, config, threads, digest(identity), n_chunks) as pool:
                        _ask_workers(directory, work, done, bar, pool)
            # 6.
            write_results(directory.path, config, identity, experiments, questions, done)
            directory.log("finished")
        return Run.load(directory.path).checked()


def _done(
    directory: RunDirectory,
    identity: str,
    experiments: Mapping[str, Experiment[Any]],
    questions: Sequence[Question],
    size: int,
    say: Say,
) -> tuple[dict[tuple[str, int], Part], Work]:
    """Step 4: parts that are there, by experiment and number, and what is left to ask."""
    done: dict[tuple[str, int], Part] = {}
    work: Work = []
    for label, experiment in experiments.items():
        for chunk, some in cut(identity, label, questions, size):
            path = directory.part(chunk)
            make_directory(path.parent)
            if path.exists():
                try:
                    done[label, chunk.index] = read_part(path, chunk)
                    continue
                except DamagedPartError as error:
                    say(f"{error}: it is made anew")
                    directory.log("damaged", part=str(path.relative_to(directory.path)))
            work.append((experiment, chunk, some))
    return done, work


def _ask(directory: RunDirectory, work: Work, done: dict[tuple[str, int], Part], bar: Any) -> None:
    """Step 5, in this process."""
    asked = 0
    for experiment, chunk, some in work:
        began = time.monotonic()
        bar.set_description_str(chunk.label, refresh=False)

        def tell(n: float, asked: int = asked) -> None:
            bar.update(max(asked + n - bar.n, 0.0))

        # parts before this one are there: as many questions have pictures as in a run that nothing has happened to
        pictured = pictured_before(chunk, experiment, done)
        assert pictured is not None, "what comes before is asked before"
        part = ask_chunk(experiment, some, tell, pictured=pictured)
        asked += len(some)
        done[chunk.label, chunk.index] = _kept(directory, chunk, part, time.monotonic() - began)


def _ask_workers(
    directory: RunDirectory, work: Work, done: dict[tuple[str, int], Part], bar: Any, pool: Workers
) -> None:
    """Step 5, in processes of their own; only this one writes."""

    def keep(chunk: Chunk, part: Part, seconds: float) -> None:
        done[chunk.label, chunk.index] = _kept(directory, chunk, part, seconds)
        bar.update(len(chunk.questions))

    def lost(chunk: Chunk | None) -> None:
        directory.log("worker lost", **({"experiment": chunk.label, "index": chunk.index} if chunk else {}))

    pool.ask([(chunk, experiment) for experiment, chunk, _ in work], done, keep, lost)


def _kept(directory: RunDirectory, chunk: Chunk, part: Part, seconds: float) -> Part:
    """Write a part, say so in the log, and give what will be read back."""
    path = directory.part(chunk)
    write_part(path, chunk, part)
    about = {"index": chunk.index, "n": len(chunk.questions), "seconds": round(seconds, 3)}
    directory.log("part", experiment=chunk.label, **about)
    for failure in part.failures:
        directory.log("error", **vars(failure))
    return read_part(path, chunk)
