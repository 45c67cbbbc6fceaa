"""The procedural benchmark's ground truth: time is needed, letters are balanced, splits share nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest

from videolens.datasets.shapes import SPLITS, TASKS, TEMPORAL_TASKS, in_split, make_item, write_shapes
from videolens.datasets.shapes_tasks import MAKERS, OPPOSITE, STILL_TASKS, describe
from videolens.datasets.shapes_world import N_FRAMES, SIZE, render
from videolens.errors import DatasetError

SAMPLED = range(1, N_FRAMES, 2)


def state(scene, frame):
    """All there is to know about one frame: where every thing is (on the torus), its look, the background."""
    numbers = []
    for thing in sorted(scene.things, key=lambda t: (t.radius, t.colour)):
        angle = thing.path[frame] * 2 * np.pi / SIZE
        numbers += [*np.cos(angle), *np.sin(angle)]
    numbers += [0.0] * (12 - len(numbers))
    return np.array(numbers)


def label(scene, ask, frame):
    """What is to be predicted; of a scene transition, whether the background in sight is the first one named."""
    if ask.task == "scene transition":
        return str(ask.answer.startswith(scene.backgrounds[frame]))
    return ask.answer


def nearest_neighbours(x, y, x_test, y_test, k=25):
    """Accuracy of the vote of the k nearest training points: close to the best predictor, given enough of them."""
    kinds = sorted(set(y))
    votes = np.eye(len(kinds))[[kinds.index(a) for a in y]]
    distance = (x_test**2).sum(1)[:, None] + (x**2).sum(1)[None] - 2 * x_test @ x.T
    near = np.argpartition(distance, k, axis=1)[:, :k]
    guess = votes[near].sum(1).argmax(1)
    return float(np.mean([kinds[g] == a for g, a in zip(guess, y_test, strict=True)]))


def drawn(task, n, seed):
    rng = np.random.default_rng(seed)
    for _ in range(n):
        scene, asks = MAKERS[task](rng)
        yield scene, asks[int(rng.integers(len(asks)))], rng


def accuracy_from(task, frame_of, features, n=2400):
    data = []
    for seed in (1, 2):
        x, y = [], []
        for scene, ask, rng in drawn(task, n, seed):
            frame = frame_of(rng)
            x.append(np.append(features(scene, frame), 3.0 * ("start" in ask.stem or "first" in ask.stem)))
            y.append(label(scene, ask, frame))
        data += [np.stack(x), y]
    return nearest_neighbours(*data)


def margin(task, n=2400):
    chance = 1 / 2 if task in ("action antonym", "scene transition") else 1 / 4
    return chance, 4 * (chance * (1 - chance) / n) ** 0.5


@pytest.mark.parametrize("task", TEMPORAL_TASKS)
def test_one_frame_does_not_tell(task):
    chance, stray = margin(task)
    assert accuracy_from(task, lambda rng: int(rng.choice(SAMPLED)), state) <= chance + stray


@pytest.mark.parametrize("task", [task for task in TEMPORAL_TASKS if task != "scene transition"])
def test_one_frame_and_its_index_do_not_tell(task):
    chance, stray = margin(task)
    for frame in (SAMPLED[0], SAMPLED[3], SAMPLED[4], SAMPLED[-1]):
        assert accuracy_from(task, lambda rng, frame=frame: frame, state) <= chance + stray, f"frame {frame} tells"


def test_scene_transition_is_exempt_because_the_first_frame_tells():
    assert accuracy_from("scene transition", lambda rng: 1, state) == 1.0


@pytest.mark.parametrize("task", ["moving direction", "action antonym", "action sequence", "object count"])
def test_two_frames_do_tell(task):
    """The control: the same predictor, shown where things go instead of where they are, is far from chance."""

    def motion(scene, frame):
        first, last = (np.concatenate([_step(t.path, a) for t in scene.things[-3:]]) for a in (3, 12))
        turn = np.array([first[0] * last[1] - first[1] * last[0]])
        numbers = (
            np.sort(np.abs(np.stack([first, last])), axis=1) > 1 if task == "object count" else [first[-2:], last[-2:]]
        )
        if task == "action antonym":
            path = scene.things[-1].path
            arm, step = path[4] - SIZE / 2, _step(path, 4)
            numbers = [np.array([np.sign(arm[0] * step[1] - arm[1] * step[0])])]
            turn = 0 * turn
        return np.concatenate([*np.asarray(numbers, float), 0 * turn])

    chance, _ = margin(task)
    assert accuracy_from(task, lambda rng: 3, motion) > min(0.95, chance + 0.5)


def _step(path, at):
    return (path[at + 2] - path[at] + SIZE / 2) % SIZE - SIZE / 2


@pytest.mark.parametrize("task", TASKS)
def test_what_is_asked_is_true_of_the_paths(task):
    """The answers, worked out anew from where things are."""
    rng = np.random.default_rng(6)
    for _ in range(60):
        scene, asks = MAKERS[task](rng)
        for ask in asks:
            assert worked_out(scene, ask) == ask.answer
            assert worked_out(scene.reversed(), ask) == ask.answer_reversed
            assert {ask.answer, ask.answer_reversed} <= set(ask.options)


def worked_out(scene, ask):
    """The answer to a question from the scene's paths alone."""
    by_name = {thing.name: thing for thing in scene.things}
    thing = next((t for name, t in by_name.items() if name in ask.stem), scene.things[-1])
    first, last = _step(thing.path, 1), _step(thing.path, 13)
    match ask.task:
        case "moving direction":
            return direction(first)
        case "action sequence":
            return direction(first if "first" in ask.stem else last)
        case "action antonym":
            arm = thing.path[4] - circle_centre(thing.path[4:7])
            step = _step(thing.path, 4)
            return "clockwise" if arm[0] * step[1] - arm[1] * step[0] > 0 else "anticlockwise"
        case "object count":
            at = 1 if "start" in ask.stem else 13
            return ("none", "one", "two", "three")[sum(np.abs(_step(t.path, at)).max() > 1 for t in scene.things)]
        case "scene transition":
            return f"{scene.backgrounds[0]} to {scene.backgrounds[-1]}"
        case "colour":
            return next(t.colour for t in scene.things if t.shape in ask.stem)
        case "shape":
            return next(t.shape for t in scene.things if t.colour in ask.stem)
        case "place":
            x, y = thing.path[0]
            return f"{'top' if y < SIZE / 2 else 'bottom'} {'left' if x < SIZE / 2 else 'right'}"
        case "number":
            return ("none", "one", "two", "three", "four")[len(scene.things)]
        case "background":
            return scene.backgrounds[0]


def direction(step):
    x, y = step
    return ("left" if x < 0 else "right") if abs(x) > abs(y) else ("up" if y < 0 else "down")


def circle_centre(points):
    """Centre of the circle through three points."""
    a, b, c = points
    matrix = 2 * np.stack([b - a, c - a])
    return np.linalg.solve(matrix, [(b @ b - a @ a), (c @ c - a @ a)])


@pytest.mark.parametrize("task", TASKS)
def test_items_depend_on_their_index_alone_and_letters_are_balanced(task):
    items = [make_item(task, split="test", seed=3, index=i) for i in range(40)]
    again = make_item(task, split="test", seed=3, index=17)
    assert again.ask == items[17].ask and again.scene.fingerprint() == items[17].scene.fingerprint()
    k = len(items[0].ask.options)
    places = [item.ask.options.index(item.ask.answer) for item in items]
    assert np.bincount(places, minlength=k).tolist() == [40 // k] * k


@pytest.mark.parametrize("task", TASKS)
def test_splits_never_share_a_clip_even_backwards_and_across_seeds(task):
    seen: dict[bytes, str] = {}
    for split in SPLITS:
        for seed in (0, 1):
            for i in range(15):
                scene = make_item(task, split=split, seed=seed, index=i).scene
                assert [in_split(scene, s) for s in SPLITS].count(True) == 1
                assert in_split(scene.reversed(), split)
                for clip in (scene, scene.reversed()):
                    assert seen.setdefault(clip.fingerprint(), split) == split


def test_nothing_moves_in_still_clips_and_a_wrapped_thing_is_drawn_at_both_edges():
    scene = make_item("colour", split="train", seed=0, index=0).scene
    frames = render(scene)
    assert (frames == frames[0]).all() and frames.shape == (N_FRAMES, SIZE, SIZE, 3)
    moving = make_item("moving direction", split="train", seed=0, index=0).scene
    assert all(((t.path >= 0) & (t.path < SIZE)).all() for t in moving.things)
    thing = moving.things[-1]
    thing.path[0] = [0.0, 32.0]
    image = render(moving, np.array([0]))[0].astype(int)
    assert np.abs(image[32, 1] - image[32, -2]).sum() < 60


def test_reversal_swaps_directions():
    assert all(OPPOSITE[OPPOSITE[d]] == d for d in OPPOSITE)


def test_description_of_a_clip_offers_what_is_in_sight_first():
    rng = np.random.default_rng(0)
    scene, _ = MAKERS["object count"](rng)
    colour = describe(scene, scene.things[0], rng)[0]
    assert {t.colour for t in scene.things} <= set(colour.options) and len(set(colour.options)) == 4


def test_written_as_tvbench_and_read_back(tmp_path):
    import videolens as vl

    write_shapes(tmp_path, n=2, seed=1, tasks=["moving direction", "colour"])
    entries = json.loads((tmp_path / "json" / "moving_direction.json").read_text())
    assert {"video", "question", "candidates", "answer"} <= set(entries[0])
    questions = vl.load_dataset(tmp_path, task="moving direction")
    assert len(questions) == 2 and questions[0].answer in questions[0].options
    truth = make_item("moving direction", split="test", seed=1, index=0)
    shown = questions[0].video.frames.numpy().astype(int)
    assert shown.shape == (8, SIZE, SIZE, 3)
    assert np.abs(shown - render(truth.scene, np.arange(1, 17, 2))).mean() < 6, "the mp4 shows another clip"
    back = questions[0].reversed()
    assert back.answer == truth.ask.answer_reversed
    assert (back.video.frames == questions[0].video.frames.flip(0)).all()
    assert {q.task for q in vl.load_dataset(tmp_path)} == {"moving direction", "colour"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"task": "moving directions"}, "moving direction"),
        ({"split": "val"}, "validation"),
        ({"n": 0}, "n = 0: give a whole number from 1 on"),
        ({"seed": -1}, "seed = -1: give a whole number from 0 on"),
    ],
)
def test_misuse_is_named(arguments, said):
    import videolens as vl

    with pytest.raises(DatasetError, match=said):
        vl.load_dataset("shapes", **({"n": 1} | arguments))


def test_a_directory_that_is_no_data_set(tmp_path):
    import videolens as vl

    with pytest.raises(DatasetError, match="shapes"):
        vl.load_dataset(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="TVBench"):
        vl.load_dataset(tmp_path)
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "a_task.json").write_text('[{"video": "x.mp4", "question": "?"}]')
    with pytest.raises(DatasetError, match="entry 0: no candidates, answer"):
        vl.load_dataset(tmp_path)
    (tmp_path / "json" / "a_task.json").write_text("[")
    with pytest.raises(DatasetError, match="not JSON"):
        vl.load_dataset(tmp_path)
    with pytest.raises(DatasetError, match="a task"):
        vl.load_dataset(tmp_path, task="b task")


def test_still_tasks_are_about_still_clips():
    for task in STILL_TASKS:
        scene = make_item(task, split="test", seed=0, index=0).scene
        assert all((thing.path == thing.path[0]).all() for thing in scene.things)
