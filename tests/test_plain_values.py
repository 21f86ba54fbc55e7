"""Numbers of NumPy and torch, paths, ranges and arrays are taken wherever text and numbers are, and kept as those."""

from __future__ import annotations

import collections
import dataclasses
import enum
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import roadmap
from roadmap import Design, RoadmapError
from roadmap.data.sources import open_data
from roadmap.ladders.steps import Step
from roadmap.network.timm_model import TimmModel
from roadmap.network.weights import save_weights
from roadmap.planning.reading import load_spec, yaml_text
from roadmap.planning.runs import plan
from roadmap.planning.spec import StudySpec
from roadmap.recipes.recipe import Recipe, load_recipe
from roadmap.training.spec import Execution


class Activation(str, enum.Enum):
    GELU = "gelu"


DESIGN = (
    {
        "blocks": range(1, 3),
        "widths": np.array([8, 16]),
        "stem_width": torch.tensor(8),
        "kernel_size": np.int64(7),
        "norm": np.str_("layer"),
        "activation": Activation.GELU,
        "fewer_norms": np.bool_(True),
        "layer_scale": np.float32(0.1),
        "stochastic_depth": np.array(0.25),
        "num_classes": np.uint8(5),
        "layers": {"se": {"ratio": np.float16(0.1)}},
    },
    {
        "blocks": (1, 2),
        "widths": (8, 16),
        "stem_width": 8,
        "kernel_size": 7,
        "norm": "layer",
        "activation": "gelu",
        "fewer_norms": True,
        "layer_scale": 0.1,
        "stochastic_depth": 0.25,
        "num_classes": 5,
        "layers": {"se": {"ratio": 0.1}},
    },
)
RECIPE = (
    {
        "epochs": np.int32(10),
        "lr": np.float32(1e-3),
        "betas": np.array([0.9, 0.99], dtype=np.float32),
        "schedule": "step",
        "milestones": range(3, 9, 3),
        "flip": np.bool_(False),
        "mixup": np.array(0.8),
        "stochastic_depth": {"resnet50": np.float64(0.1)},
    },
    {
        "epochs": 10,
        "lr": 1e-3,
        "betas": (0.9, 0.99),
        "schedule": "step",
        "milestones": (3, 6),
        "flip": False,
        "mixup": 0.8,
        "stochastic_depth": {"resnet50": 0.1},
    },
)
STUDY = (
    {
        "only": np.array(["gelu", "layer_norm"]),
        "seeds": range(1, 3),
        "epochs": np.int64(2),
        "width": np.int16(8),
        "depth": np.float32(0.3),
        "lr": np.float32(0.01),
        "batch_size": torch.tensor(64),
        "jobs": np.int64(2),
        "precision": np.int64(32),
        "mixup": np.float32(0.3),
        "betas": collections.deque([np.float64(0.9), 0.99]),
        "data_dir": None,
        "retries": np.int8(1),
        "roads": np.bool_(False),
        "order_seed": np.int64(0),
    },
    {
        "only": ["gelu", "layer_norm"],
        "seeds": [1, 2],
        "epochs": 2,
        "width": 8,
        "depth": 0.3,
        "lr": 0.01,
        "batch_size": 64,
        "jobs": "2",
        "mixup": 0.3,
        "betas": (0.9, 0.99),
        "retries": 1,
    },
)


def assert_plain(value) -> None:
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple)):
        for item in value:
            assert_plain(item)
    else:
        assert value is None or type(value) in (bool, int, float, str), repr(value)


@pytest.mark.parametrize(
    ("make", "values"),
    [
        (Design, DESIGN),
        (lambda **flags: roadmap.build("gelu", **flags).design, DESIGN),
        (lambda **settings: Recipe("mine", **settings), RECIPE),
        (load_spec, STUDY),
        (Execution, ({"threads": np.int64(2), "compile": np.bool_(True)}, {"threads": 2, "compile": True})),
        (
            lambda **words: Step.from_mapping({"name": "wide", **words}),
            (
                {"width_factor": np.int64(2), "blocks": np.array([1, 2]), "mixup": np.float32(0.2)},
                {"width_factor": 2, "blocks": (1, 2), "mixup": 0.2},
            ),
        ),
        (
            lambda **size: roadmap.ladder().scaled(**size),
            (
                {"width": np.int64(16), "depth": np.float32(0.3), "stem_stride": np.int64(2)},
                {"width": 16, "depth": 0.3, "stem_stride": 2},
            ),
        ),
        (
            TimmModel,
            (
                {"timm_model": np.str_("vit_tiny"), "num_classes": np.int64(3), "image_size": torch.tensor(32)},
                {"timm_model": "vit_tiny", "num_classes": 3, "image_size": 32},
            ),
        ),
    ],
    ids=["design", "build", "recipe", "study", "execution", "step", "ladder", "timm model"],
)
def test_kept_as_plain_values(make, values):
    found, expected = make(**values[0]), make(**values[1])
    assert found == expected
    if not isinstance(found, roadmap.ladders.ladder.Ladder):
        assert_plain(dataclasses.asdict(found))
        assert json.dumps(dataclasses.asdict(found)) == json.dumps(dataclasses.asdict(expected))


def test_runs_have_the_signatures_of_plain_values():
    data = open_data("embedded", image_size=np.int64(16))
    given, plain = (plan(load_spec(**values), data) for values in STUDY)
    assert [run.signature for run in given] == [run.signature for run in plain] and len(plain) == 4
    assert json.dumps([run.to_dict() for run in given]) == json.dumps([run.to_dict() for run in plain])
    seeded = dataclasses.replace(plain[0], seed=np.int64(plain[0].seed), image_size=np.int64(plain[0].image_size))
    assert seeded.signature == plain[0].signature
    assert_plain(seeded.to_dict())


def test_the_file_of_a_study(tmp_path):
    asked = dataclasses.asdict(load_spec(**STUDY[0]))
    (tmp_path / "study.yaml").write_text(yaml_text(json.loads(json.dumps(asked))))
    read, plain = load_spec(tmp_path / "study.yaml"), load_spec(**STUDY[1])
    assert json.dumps(dataclasses.asdict(read)) == json.dumps(dataclasses.asdict(plain))


@pytest.mark.parametrize("kind", [list, tuple, np.array, pd.Series, pd.Index, collections.deque])
def test_lists_of_every_kind(kind):
    spec = load_spec(design="sweep", sweep={"kernel_size": kind([3, 7])}, seeds=kind([4, 5]), upto=np.str_("gelu"))
    assert spec == load_spec(design="sweep", sweep={"kernel_size": (3, 7)}, seeds=(4, 5), upto="gelu")


def test_paths_are_text(tmp_path):
    recipe, plugin = tmp_path / "mine.yaml", tmp_path / "wide.py"
    recipe.write_text("epochs: 3\n")
    plugin.write_text("import roadmap, numpy\nroadmap.step('twice', why='more', width_factor=numpy.float64(2))\n")
    spec = StudySpec(
        recipe=recipe, plugin=[plugin], data_dir=tmp_path, data="folder", steps=["twice"], seeds=np.int64(2)
    )
    assert (spec.recipe, spec.plugin, spec.data_dir) == (str(recipe), (str(plugin),), str(tmp_path))
    assert StudySpec(plugin=plugin).plugin == (str(plugin),)
    assert spec.seeds == (0, 1) and load_recipe(recipe).epochs == 3


def test_weights_are_tested_with_numbers_of_numpy(tmp_path):
    network, path = roadmap.build("gelu", widths=range(8, 12), blocks=(1,) * 4, num_classes=10), tmp_path / "abcdef"
    save_weights(network, path, image_size=np.int64(16), mean=np.full(3, 0.5, np.float32), std=[np.float64(0.25)] * 3)
    options = {"data": np.str_("embedded"), "batch_size": np.int64(500), "threads": np.int64(1)}
    found = roadmap.evaluate(path, image_size=np.int64(24), **options)
    assert_plain({name: value for name, value in found.to_dict().items() if name not in ("classes", "mistakes")})
    assert json.loads(json.dumps(found.to_dict()))["image_size"] == 24
    assert found.top1 == roadmap.evaluate(str(path), data="embedded", image_size=24, threads=1).top1


def test_explanations_take_numbers_of_numpy():
    rungs = roadmap.ladder().scaled(np.int64(8), np.float64(0.3))
    told = roadmap.explain(np.str_("gelu"), rungs, image_size=np.int64(64)).as_dict()
    assert json.dumps(told) == json.dumps(roadmap.explain("gelu", rungs, image_size=64).as_dict())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"kernel_size": np.float64(7)}, "kernel_size is 7.0, but must be a whole number"),
        ({"kernel_size": np.int64(4)}, "kernel_size is 4, but must be odd"),
        ({"stochastic_depth": np.float32("nan")}, "stochastic_depth is nan, but must be a finite number"),
        ({"widths": np.zeros((2, 2))}, "widths is"),
        ({"fewer_norms": np.int64(1)}, "fewer_norms is 1, but must be true or false"),
        ({"norm": Path("batch_")}, "norm is 'batch_', but must be one of batch, layer"),
    ],
)
def test_mistakes_are_told_in_plain_values(flags, words):
    with pytest.raises(RoadmapError, match=words):
        roadmap.build("gelu", **flags)
