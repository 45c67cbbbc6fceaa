"""Which model and which questions: digests by which a resumed run knows that both are what they were."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from videolens.errors import DatasetError
from videolens.model.checkpoints.files import find
from videolens.question import Question
from videolens.runs.config import digest

_READ = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
_ENDS = 2**16


def model_fingerprint(
    name: str, *, base: str | None = None, revision: str | None = None, trust_remote_code: bool
) -> dict[str, Any]:
    """SHA-256 of a checkpoint: of every byte of every file that loading may read, of an adapter also of its base's.

    Returns:
        `sha256` of all, and of each file under `files`; names of a base's begin with "base/".

    Raises:
        ModelError: there is no such checkpoint.
    """
    located = find(name, base=base, revision=revision, trust_remote_code=trust_remote_code)
    patterns = (*_READ, "*.py") if trust_remote_code else _READ
    found = {}
    for directory in located.directories:
        of_base = "base/" if located.adapter is not None and directory == located.directory else ""
        files = sorted({path for pattern in patterns for path in directory.glob(pattern) if path.is_file()})
        for path in files:
            with path.open("rb") as stream:
                found[of_base + path.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"sha256": digest(found), "files": found}


def question_digests(questions: Sequence[Question]) -> list[dict[str, str]]:
    """Task, id and digest of every question, in their order.

    A digest covers the words (stem, options, answers, completion), which frames are looked at, and the video: of a file
    its length and its first and last 64 KiB, of an array all of its frames. A video that is not there has a digest too.

    Raises:
        DatasetError: a question without an id, or two of one task with the same.
    """
    found, seen = [], set()
    for i, question in enumerate(questions):
        if not question.id:
            raise DatasetError(f"question {i} ({question.stem!r}) has no id: a run needs one for every question")
        if (question.task, question.id) in seen:
            raise DatasetError(
                f"question {question.id!r} of task {question.task!r} is there twice: give every question its own id"
            )
        seen.add((question.task, question.id))
        video = question.video
        path = video.path
        request = getattr(video.source, "request", None)
        content = {
            "stem": question.stem,
            "choices": list(question.choices),
            "shown": bool(question.options),
            "answer": question.answer,
            "reversed_answer": question.reversed_answer,
            "completion": question.completion,
            "edits": [str(edit) for edit in video.edits],
            "frames": [str(each) for each in (request.n_frames, request.start, request.end, request.sampling)]
            if request is not None
            else [],
            "video": hashlib.sha256(video.frames.numpy().data).hexdigest() if path is None else _ends(Path(path)),
        }
        found.append({"task": question.task, "id": question.id, "digest": digest(content)})
    return found


def _ends(path: Path) -> list[str]:
    """Length of a file, and a digest of its first and last 64 KiB: enough to tell clips apart, and quick for hours of
    them."""
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            seen = hashlib.sha256()
            for start in (0, max(size - _ENDS, 0)):
                stream.seek(start)
                seen.update(stream.read(_ENDS))
    except OSError as error:
        return [error.strerror or type(error).__name__]
    return [str(size), seen.hexdigest()]
