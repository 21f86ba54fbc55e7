"""What a plan says against its own numbers, before anything is trained; and the defaults of small sets."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from commands import call
from folders import make_image_folder

from roadmap import RoadmapError
from roadmap.data.sources import ImageData, Split, open_data
from roadmap.planning.reading import load_spec
from roadmap.planning.red_flags import FEWEST_STEPS, red_flags
from roadmap.planning.runs import plan
from roadmap.results.statistics import accuracy_interval, mean_interval
from roadmap.running.preparing import prepare


def data_of(train: int, test: int, size: int = 32) -> ImageData:
    """A data set of so many images, whose content nobody looks at."""
    parts = [Split(np.arange(count) % 3, np.zeros((count, 1, 1, 3), np.uint8)) for count in (train, test)]
    normal = (0.5, 0.5, 0.5)
    return ImageData("folder", size, ("a", "b", "c"), *parts, flip=True, mean=normal, std=normal, fingerprint="0" * 16)


def flags_of(data: ImageData, **settings) -> list[str]:
    spec = load_spec(**{"data": "folder", "data_dir": "images", **settings})
    return red_flags(spec, data, plan(spec, data))


SOUND = {"only": "gelu", "batch_size": 10, "epochs": 10, "lr": 1e-3}


def test_a_sound_study_has_no_red_flags():
    assert flags_of(data_of(1000, 2000), **SOUND) == []
    embedded = load_spec()
    data = open_data(**embedded.opened)
    assert red_flags(embedded, data, plan(embedded, data)) == []


@pytest.mark.parametrize("images", [15, 24, 100, 516])
def test_few_test_images_are_told_with_the_error_that_they_cause(images):
    (flag,) = flags_of(data_of(1000, images), **SOUND)
    point, error = map(float, re.search(r"one image is ([\d.]+) points.* up to ([\d.]+) points", flag).groups())
    assert f"{images} test images" in flag and point == pytest.approx(100 / images, abs=0.05)
    draws = np.random.default_rng(0).binomial(images, 0.5, 200_000) / images  # what sampling alone does
    assert error == pytest.approx(100 * draws.std(), abs=0.1)
    (enough,) = map(int, re.findall(r"at least (\d+)", flag))
    assert flags_of(data_of(1000, enough), **SOUND) == []


def test_15_test_images_are_told_in_plain_words():
    (flag,) = flags_of(data_of(1000, 15), **SOUND)
    words = (
        "15 test images: one image is 6.7 points, and their choice alone causes a standard error of up to 12.9 points"
    )
    assert words in flag


def test_too_few_steps_are_told_with_the_epochs_that_would_do():
    (flag,) = flags_of(data_of(1000, 2000), **SOUND | {"epochs": 1, "lr": 1e-2})
    assert "gelu gets 100 optimizer steps (1 epoch of 100)" in flag
    (epochs,) = map(int, re.findall(r"--epochs (\d+)", flag))
    assert epochs == math.ceil(FEWEST_STEPS / 100)
    assert flags_of(data_of(1000, 2000), **SOUND | {"epochs": epochs}) == []


def test_a_learning_rate_that_moves_nothing_is_told_with_one_that_does():
    (flag,) = flags_of(data_of(1000, 2000), **SOUND | {"lr": 3e-5})
    assert "gelu gets 1000 steps at a learning rate of at most 3e-05" in flag and "by no more than 0.03" in flag
    (lr,) = re.findall(r"--lr, such as ([\d.e-]+)", flag)
    assert flags_of(data_of(1000, 2000), **SOUND | {"lr": float(lr)}) == []


def test_one_seed_of_networks_that_are_compared_is_told():
    flags = flags_of(data_of(1000, 2000), **SOUND | {"only": "gelu,layer_norm", "seeds": 1})
    assert len(flags) == 1 and "--seeds 3" in flags[0]
    assert flags_of(data_of(1000, 2000), **SOUND | {"seeds": 1}) == []


def test_45_photographs_get_a_small_network_and_a_learning_rate_that_learns():
    spec = load_spec(data="folder", data_dir="images")
    runs = plan(spec, data_of(45, 15, size=224))
    modern = next(run for run in runs if run.step == "modern_recipe")
    assert modern.width == 16 and modern.recipe.name == "small" and modern.recipe.batch_size == 8
    assert 45 // modern.recipe.batch_size >= 5 and modern.recipe.peak_lr == pytest.approx(4e-3 * 8 / 128)
    many = next(iter(plan(spec, data_of(5000, 15, size=224))))
    assert (many.width, many.depth, many.recipe.name) == (64, 1.0, "classic")


def test_commands_and_python_tell_them_before_anything_starts(tmp_path, monkeypatch):
    images = make_image_folder(tmp_path / "images", train=12, test=5)
    words = ("--only", "gelu", "--seeds", 1, "--width", 4, "--data", "folder", "--data-dir", images)
    shown = [call("run", *words, "--dry-run", cwd=tmp_path), call("plan", *words, "--engine", "slurm", cwd=tmp_path)]
    for one in shown[:1]:
        assert one.code == 0 and "15 test images" in one.err and "optimizer steps" in one.err
        assert all(line.startswith("warning: ") for line in one.err.splitlines())
    prepared = prepare(load_spec(only="gelu", seeds=1, width=4, data="folder", data_dir=str(images)))
    assert [*prepared.remarks] == shown[0].err.splitlines()


def test_no_step_at_all_is_refused(tmp_path):
    images = make_image_folder(tmp_path / "images", train=1, test=1)
    for words in (["run"], ["run", "--dry-run"], ["plan"]):
        done = call(*words, "--only", "gelu", "--data", "folder", "--data-dir", images, "--accumulate", 2, cwd=tmp_path)
        assert done.code == 2 and not done.out, done.out
        assert "gelu would train for 0 steps, since 3 training images do not fill one batch of 4" in done.err
    spec = load_spec(only="gelu", data="folder", data_dir=str(images), accumulate=2)
    with pytest.raises(RoadmapError, match="0 steps"):
        prepare(spec)


def test_the_plan_says_seeds_as_ranges_and_its_json_the_remarks(tmp_path):
    images = make_image_folder(tmp_path / "images", train=12, test=5)
    words = ("run", "--only", "gelu", "--width", 4, "--data", "folder", "--data-dir", images, "--dry-run", "--seeds")
    for given, told in (("300", "0-299"), ("0,4,7,8,9", "0,4,7-9"), ("2", "0,1"), ("5,4,3", "5,4,3")):
        done = call(*words, given, cwd=tmp_path)
        assert done.code == 0 and told in done.out.splitlines()[2].split(), done.err
    from roadmap.running.estimate import plan_ahead
    from roadmap.store.store import Store

    prepared = prepare(load_spec(only="gelu", width=4, data="folder", data_dir=str(images)))
    ahead = plan_ahead(prepared, Store(tmp_path / "store"), measure=False)
    assert json.loads(json.dumps(ahead.to_dict()))["remarks"] == prepared.remarks != []


def test_intervals_of_mean_accuracies_stay_between_0_and_100():
    for values in ([100.0, 93.3, 100.0], [0.0, 6.7], [0.0, 100.0]):
        low, high = mean_interval(values)[2:]
        assert accuracy_interval(values)[2:] == (max(0.0, low), min(100.0, high)) and (low < 0 or high > 100)
    assert accuracy_interval([70.0, 71.0]) == mean_interval([70.0, 71.0])
    assert all(map(math.isnan, accuracy_interval([70.0])[2:]))
