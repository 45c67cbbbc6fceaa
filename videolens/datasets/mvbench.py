"""MVBench's layout on disk: TVBench's listings for twenty tasks, with the videos in folders by where they come from.

As published (OpenGVLab/MVBench), each archive in `video/` unpacked there: tasks that share a source share a folder.
Start and end, in seconds, are in action sequence, action prediction, object interaction, action localization and
episodic reasoning. `video/{task}/`, as TVBench has it, is read as well.

The videos of episodic reasoning are published as folders of pictures, three a second, which are not read: they are
reported as missing until videos are made of them, `{video}.mp4` beside the folders or in `video/tvqa/video_fps3_hq/`.
"""

from __future__ import annotations

from pathlib import Path

from videolens.datasets.benchmark import register
from videolens.datasets.tvbench import TASKS, TVBench

_STAR = ("star/Charades_v1_480", "data0613/star/Charades_v1_480")
_CLEVRER = ("clevrer/video_validation", "data0613/clevrer/video_validation")
_PERCEPTION = ("perception/videos",)

FOLDERS: dict[str, tuple[str, ...]] = {
    "action_antonym": ("ssv2_video",),
    "action_count": _PERCEPTION,
    "action_localization": ("sta/sta_video",),
    "action_prediction": _STAR,
    "action_sequence": _STAR,
    "character_order": _PERCEPTION,
    "counterfactual_inference": _CLEVRER,
    "egocentric_navigation": ("vlnqa",),
    "episodic_reasoning": ("tvqa/frames_fps3_hq",),
    "fine_grained_action": ("Moments_in_Time_Raw/videos",),
    "fine_grained_pose": ("nturgbd",),
    "moving_attribute": _CLEVRER,
    "moving_count": _CLEVRER,
    "moving_direction": _CLEVRER,
    "object_existence": _CLEVRER,
    "object_interaction": _STAR,
    "object_shuffle": _PERCEPTION,
    "scene_transition": ("scene_qa/video",),
    "state_change": _PERCEPTION,
    "unexpected_action": ("FunQA_test/test",),
}
"""Task, as in file names → the folders below `video/` that hold its videos. The archive data0613, added later, brings
the part of two sources that the others lack, below a folder of its own name."""


class MVBench(TVBench):
    """`json/{task}.json` and `video/{source}/…`, or `video/{task}/`."""

    name = "MVBench"
    looks = "json/{task}.json and video/{source}/…, its archives unpacked in video/, or video/{task}/"

    def paths(self, root: Path, task: str, name: str) -> list[Path]:
        """Where a task's video may lie: in the folders of its source, or as TVBench has it."""
        found = [root / "video" / folder / name for folder in FOLDERS.get(task, ())]
        if task == "episodic_reasoning":  # published as pictures, which are found last, and reported
            made = [root / "video/tvqa" / folder / f"{name}.mp4" for folder in ("video_fps3_hq", "frames_fps3_hq")]
            found = [*made, *found]
        return [*found, *super().paths(root, task, name)]

    def fits(self, root: Path) -> int:
        """Its listings look like TVBench's: a task or a folder of videos that only MVBench has tells them apart."""
        own = {task.replace("_", " ") for task in FOLDERS} - set(TASKS)
        folders = {folder for each in FOLDERS.values() for folder in each}
        listings = self.listings(root)
        found = own & set(listings) or any((root / "video" / folder).is_dir() for folder in folders)
        return 2 if listings and found else 0


BENCHMARK = register(MVBench())
