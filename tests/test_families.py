"""A family of networks is a value: one more of them is counted, trained, kept and tested as the first two are."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from folders import make_image_folder
from torch import nn

import roadmap
from roadmap import Design, RoadmapError
from roadmap.cost.counting import count, count_params
from roadmap.data.sources import open_data
from roadmap.network import families
from roadmap.network.building import build_network, classifier_names, design_from_dict, normalises_over_batch
from roadmap.network.description import Description, read_description
from roadmap.network.families import FAMILIES, LADDER, TIMM, Family, family_in, family_of, on_ladder
from roadmap.network.timm_model import TimmModel
from roadmap.network.weights import open_weights, save_weights
from roadmap.recipes.recipe import Recipe
from roadmap.training.fit import fit_run
from roadmap.training.spec import Execution, RunSpec
from roadmap.training.start import StartingWeights


@dataclass(frozen=True)
class Plain:
    """Two convolutions and a linear layer."""

    hidden: int
    num_classes: int
    stochastic_depth: float = 0.0
    padding: str = "zeros"
    in_channels: ClassVar[int] = 3
    stem_stride: ClassVar[int] = 1
    layers: ClassVar[tuple] = ()

    def replace(self, **changes):
        return dataclasses.replace(self, **changes)

    def feature_sizes(self, size):
        if size < 4:
            raise RoadmapError("too small")

    def build(self):
        network = nn.Sequential(
            nn.Conv2d(3, self.hidden, 3, 2, 1, padding_mode=self.padding),
            nn.BatchNorm2d(self.hidden),
            nn.ReLU(),
            nn.Conv2d(self.hidden, 8, 3, 2, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, self.num_classes),
        )
        network.design, network.num_classes = self, self.num_classes
        return network


PLAIN = Family(
    source="plainlib",
    settings=Plain,
    key="hidden",
    build=Plain.build,
    normalises_over_batch=lambda _: True,
    classifiers=lambda _: ("6",),
    name=lambda design: f"plain{design.hidden}",
    later={"padding": "zeros"},
)


@pytest.fixture
def third(monkeypatch):
    monkeypatch.setattr(families, "FAMILIES", (PLAIN, *FAMILIES))


def run_of(design, data):
    recipe = Recipe("test", epochs=1, batch_size=16, lr=1e-2, lr_batch_size=16, optimizer="adamw", weight_decay=0.05)
    return RunSpec(
        regime="resnet50",
        step="plain4",
        adopted=False,
        width=8,
        depth=1.0,
        design=design,
        recipe=recipe,
        data=data.name,
        data_fingerprint=data.identity,
        image_size=data.image_size,
        seed=0,
    )


@pytest.mark.parametrize(
    ("design", "family"), [(Design(), LADDER), (TimmModel("resnet18", 3, 32), TIMM)], ids=["ladder", "timm"]
)
def test_a_network_has_the_family_of_its_settings(design, family):
    assert family_of(design) is family and family_in(dataclasses.asdict(design)) is family
    assert on_ladder(design) == (family is LADDER)
    assert design_from_dict(json.loads(json.dumps(dataclasses.asdict(design)))) == design


def test_a_third_family_is_counted_and_described(third):
    design = Plain(4, 5)
    # 2 * 2 outputs of stride 2 on 8 pixels twice: 16 x 4 x 27 + 4 x 8 x 36 + 8 x 5
    assert count(design, 8).gmacs * 1e9 == 16 * 4 * 27 + 4 * 8 * 36 + 8 * 5
    assert count_params(design) == sum(parameter.numel() for parameter in build_network(design).parameters())
    assert normalises_over_batch(design) and classifier_names(design) == ("6",)
    assert read_description(Description(design).to_text()).design == design
    older = {"design": {"hidden": 4, "num_classes": 5, "stochastic_depth": 0.0}}
    assert read_description(json.dumps(older)).design == design
    with pytest.raises(RoadmapError, match="its design lacks num_classes"):
        read_description(json.dumps({"design": {"hidden": 4}}))
    with pytest.raises(RoadmapError, match="unknown flag of the design 'blocks'"):
        read_description(json.dumps({"design": dataclasses.asdict(design) | {"blocks": [1]}}))


def test_a_third_family_is_trained_kept_and_tested(third, tmp_path):
    images = make_image_folder(tmp_path / "images", size=(16, 16))
    data = open_data("folder", images, image_size=16)
    classes = len(data.class_names)
    run = run_of(Plain(4, classes), data)
    assert RunSpec.from_dict(json.loads(json.dumps(run.to_dict()))) == run
    assert (
        run.signature == RunSpec.from_dict({**run.to_dict(), "design": {"hidden": 4, "num_classes": classes}}).signature
    ), "a setting that came later renames no run"
    with pytest.raises(RoadmapError, match="plain4 normalises over the whole batch"):
        Execution(device="cpu", devices=2).check_shares(run, "cpu")

    result = fit_run(run, data, tmp_path / "run", Execution(device="cpu", threads=1))
    weights = tmp_path / "weights.safetensors"
    save_weights(result.network, weights, class_names=data.class_names, image_size=16, mean=data.mean, std=data.std)
    tested = roadmap.evaluate(weights, data="folder", data_dir=images, threads=1, device="cpu")
    assert tested.top1 == result.metrics["top1"]
    with pytest.raises(RoadmapError, match="its network is plainlib's plain4, not a rung: leave out --step"):
        roadmap.evaluate(weights, data="folder", data_dir=images, step="gelu")

    start = StartingWeights(open_weights(weights), Plain(4, classes + 1))
    fresh = build_network(Plain(4, classes + 1))
    before = fresh[6].weight.clone()
    start.load_into(fresh, start.digest(classifier=False), head_scale=0.5)
    assert torch.equal(fresh[6].weight, 0.5 * before) and torch.equal(fresh[3].weight, result.network[3].weight)
    with pytest.raises(RoadmapError, match="does not say that it is for timm's resnet18"):
        StartingWeights(open_weights(weights), TimmModel("resnet18", 3, 32))
