"""The ladder is the paper's: its rungs, their printed costs, and how they follow from each other."""

from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path

import independent
import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

import roadmap
from roadmap import RoadmapError
from roadmap.network.model import RoadmapNet

TABLES = {"resnet50": "table10-resnet50.csv", "resnet200": "table11-resnet200.csv"}
EVERY_RUNG = [(regime, step) for regime in TABLES for step in roadmap.ladder(regime).names]

PARAMETERS = {
    "resnet50": {
        "resnet50": 25_557_032,
        "modern_recipe": 25_557_032,
        "stage_ratio": 28_628_520,
        "patchify_stem": 28_622_120,
        "depthwise_conv": 15_722_600,
        "increase_width": 33_760_936,
        "inverted_bottleneck": 25_851_400,
        "move_up_depthwise": 25_625_416,
        "kernel_5": 25_720_648,
        "large_kernel": 25_863_496,
        "kernel_9": 26_053_960,
        "kernel_11": 26_292_040,
        "gelu": 25_863_496,
        "fewer_activations": 25_863_496,
        "fewer_norms": 25_797_256,
        "layer_norm": 25_836_328,
        "separate_downsample": 28_582_504,
    },
    "resnet200": {
        "resnet200": 64_673_832,
        "modern_recipe": 64_673_832,
        "stage_ratio": 83_066_332,
        "patchify_stem": 83_057_932,
        "depthwise_conv": 42_585_472,
        "increase_width": 96_526_568,
        "inverted_bottleneck": 83_700_072,
        "move_up_depthwise": 83_094_632,
        "kernel_5": 83_369_064,
        "large_kernel": 83_780_712,
        "kernel_9": 84_329_576,
        "kernel_11": 85_015_656,
        "gelu": 83_780_712,
        "fewer_activations": 83_780_712,
        "fewer_norms": 83_600_232,
        "layer_norm": 83_707_624,
        "separate_downsample": 88_573_416,
    },
}


def on_meta(design: roadmap.Design) -> RoadmapNet:
    with torch.device("meta"):
        return RoadmapNet(design).eval()


def counted_gmacs(network: torch.nn.Module) -> float:
    """By torch's own counter, which counts two operations a multiply-accumulate, of convolutions and linear layers."""
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, 224, 224, device="meta"))
    return counter.get_total_flops() / 2e9


def parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def printed_rows(regime: str) -> list[dict[str, str]]:
    path = Path(roadmap.__file__).parent / "reference" / TABLES[regime]
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("regime", TABLES)
def test_rungs_are_the_printed_rows_in_their_order(regime):
    rows = [row for row in printed_rows(regime) if row["adopted"] != "reference"]
    ladder = roadmap.ladder(regime)
    assert ladder.names == [row["step"].removesuffix("_classic_recipe") for row in rows]
    assert len(ladder) == 17
    for rung, row in zip(ladder, rows, strict=True):
        assert rung.adopted == (row["adopted"] == "yes")
        assert (rung.printed.top1, rung.printed.gflops) == (float(row["top1"]), float(row["gflops"]))
        assert rung.printed.top1_std == (float(row["top1_std"]) if row["top1_std"] else None)
    assert ladder.start.name == regime
    assert [rung.name for rung in ladder.between()] == [row["step"].removesuffix("_classic_recipe")
                                                        for row in rows if row["adopted"] == "yes"]  # fmt: skip


@pytest.mark.parametrize(("regime", "step"), EVERY_RUNG)
def test_counted_cost_is_the_printed_one(regime, step):
    rung = roadmap.ladder(regime)[step]
    assert f"{counted_gmacs(on_meta(rung.design)):.2f}" == f"{rung.printed.gmacs:.2f}"


def test_exactly_two_printed_costs_contradict_the_network():
    contradicted = {
        (regime, step): rung.printed.gmacs
        for regime, step in EVERY_RUNG
        if (rung := roadmap.ladder(regime)[step]).printed.gmacs != rung.printed.gflops
    }
    assert contradicted == {("resnet50", "layer_norm"): 4.15, ("resnet50", "separate_downsample"): 4.46}


@pytest.mark.parametrize("regime", TABLES)
def test_parameters_of_every_rung(regime):
    counted = {rung.name: parameters(on_meta(rung.design)) for rung in roadmap.ladder(regime)}
    assert counted == PARAMETERS[regime]


@pytest.mark.parametrize(
    ("regime", "step", "published"),
    [
        ("resnet50", "resnet50", "resnet50"),
        ("resnet50", "separate_downsample", "convnext_tiny"),
        ("resnet200", "resnet200", "resnet200"),
        ("resnet200", "separate_downsample", "convnext_base"),
    ],
)
def test_ends_have_the_parameters_of_the_published_networks(regime, step, published):
    with torch.device("meta"):
        counterpart = timm.create_model(published)
    layer_scales = sum(p.numel() for name, p in counterpart.named_parameters() if name.endswith("gamma"))
    assert PARAMETERS[regime][step] == parameters(counterpart) - layer_scales
    assert (layer_scales > 0) == published.startswith("convnext")


#: What the paper's text says each rung changes, in the regime of ResNet-50.
CHANGES = {
    "resnet50": {},
    "modern_recipe": {},
    "stage_ratio": {"blocks": (3, 3, 9, 3)},
    "patchify_stem": {"stem": "patchify"},
    "depthwise_conv": {"groups": "depthwise"},
    "increase_width": {"widths": (96, 192, 384, 768)},
    "inverted_bottleneck": {"block": "inverted"},
    "move_up_depthwise": {"spatial_position": "first"},
    "kernel_5": {"kernel_size": 5},
    "large_kernel": {"kernel_size": 7},
    "kernel_9": {"kernel_size": 9},
    "kernel_11": {"kernel_size": 11},
    "gelu": {"activation": "gelu"},
    "fewer_activations": {"fewer_activations": True},
    "fewer_norms": {"fewer_norms": True},
    "layer_norm": {"norm": "layer"},
    "separate_downsample": {"separate_downsample": True},
}
CHANGES_200 = CHANGES | {
    "stage_ratio": {"blocks": (3, 3, 27, 3), "widths": (84, 168, 336, 672)},
    "increase_width": {"widths": (128, 256, 512, 1024)},
}


@pytest.mark.parametrize("regime", TABLES)
def test_each_rung_changes_what_the_paper_says_and_nothing_else(regime):
    expected = CHANGES if regime == "resnet50" else CHANGES_200
    changes = {rung.name.replace(regime, "resnet50"): rung.changes for rung in roadmap.ladder(regime)}
    assert changes == expected
    for before, after in pairwise(roadmap.ladder(regime).between()):
        assert after.before == before.design
        assert after.design == before.design.replace(**after.changes)
        assert before.classic_recipe == (after.name == "modern_recipe")  # the start alone, which has no predecessor
    assert not after.classic_recipe


def test_changes_are_told_in_words():
    told = {rung.name: rung.change for rung in roadmap.ladder()}
    assert told["modern_recipe"] == "recipe classic → modern"
    assert told["stage_ratio"] == "blocks 3-4-6-3 → 3-3-9-3"
    assert told["kernel_9"] == "kernel_size 3 → 9"
    assert told["fewer_norms"] == "fewer_norms no → yes"


@pytest.mark.parametrize("regime", TABLES)
def test_roads_not_taken_differ_from_the_adopted_one_only_in_their_kernel(regime):
    ladder = roadmap.ladder(regime)
    adopted = ladder["large_kernel"].design
    roads = {rung.name: rung.design for rung in ladder if not rung.adopted}
    assert roads == {f"kernel_{size}": adopted.replace(kernel_size=size) for size in (5, 9, 11)}
    assert adopted.kernel_size == 7


@pytest.mark.parametrize(("regime", "step"), EVERY_RUNG)
def test_every_rung_says_why_and_where(regime, step):
    rung = roadmap.ladder(regime)[step]
    assert rung.why.endswith(".") and len(rung.why.split()) > 8
    assert rung.section.startswith("§2")


def test_between_takes_both_ends_and_leaves_out_roads():
    ladder = roadmap.ladder()
    names = [rung.name for rung in ladder.between("move_up_depthwise", "gelu")]
    assert names == ["move_up_depthwise", "large_kernel", "gelu"]
    names = [rung.name for rung in ladder.between("move_up_depthwise", "gelu", roads=True)]
    assert names == ["move_up_depthwise", "kernel_5", "large_kernel", "kernel_9", "kernel_11", "gelu"]
    assert [rung.name for rung in ladder.between("kernel_5", "large_kernel")] == ["kernel_5", "large_kernel"]
    assert [rung.name for rung in ladder.between("gelu", "gelu")] == ["gelu"]
    assert [rung.name for rung in ladder.between(last="stage_ratio")] == ["resnet50", "modern_recipe", "stage_ratio"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: roadmap.ladder()["large_kernal"], "did you mean 'large_kernel'"),
        (lambda: roadmap.ladder().between("patchify"), "did you mean 'patchify_stem'"),
        (lambda: roadmap.ladder().between(last="gelus"), "did you mean 'gelu'"),
        (lambda: roadmap.ladder().between("gelu", "stage_ratio"), "'gelu' comes after 'stage_ratio'"),
        (lambda: roadmap.ladder("resnet5"), "did you mean 'resnet50'"),
        (lambda: roadmap.build("layer_nrom"), "did you mean 'layer_norm'"),
        (lambda: roadmap.build("gelu", kernelsize=5), "did you mean 'kernel_size'"),
        (lambda: roadmap.build("gelu", regime="resnet"), "resnet200"),
        (lambda: roadmap.ladder().scaled(width=0), "width is 0"),
        (lambda: roadmap.ladder().scaled(width=16.0), "whole number"),
        (lambda: roadmap.ladder().scaled(depth=0), "depth is 0"),
        (lambda: roadmap.ladder().scaled(stem_strides=2), "did you mean 'stem_stride'"),
    ],
)
def test_mistakes_are_told_in_one_sentence(call, words):
    with pytest.raises(RoadmapError) as caught:
        call()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("regime", TABLES)
@pytest.mark.parametrize(("width", "depth"), [(8, 1 / 3), (16, 1 / 3), (32, 0.5), (128, 2)])
def test_scaled_ladder_keeps_ratios(regime, width, depth):
    full, scaled = roadmap.ladder(regime), roadmap.ladder(regime).scaled(width, depth, stem_stride=2, num_classes=10)
    assert scaled.names == full.names and scaled.regime == regime
    for before, after in zip(full, scaled, strict=True):
        base = after.design.widths[0]
        assert abs(base - before.design.widths[0] * width / 64) <= 0.5
        assert after.design.widths == (base, 2 * base, 4 * base, 8 * base)
        for full_count, count in zip(before.design.blocks, after.design.blocks, strict=True):
            assert count == 1 or abs(count - full_count * depth) <= 0.5
        assert (after.design.stem_stride, after.design.num_classes) == (2, 10)
        assert after.changes.keys() == before.changes.keys()
        assert all(getattr(after.design, flag) == value for flag, value in after.changes.items())
        same = after.design.replace(
            widths=before.design.widths, blocks=before.design.blocks, stem_stride=4, num_classes=1000
        )
        assert same == before.design


def test_scaling_by_nothing_changes_nothing():
    assert roadmap.ladder().scaled() == roadmap.ladder()


SMALL = roadmap.ladder().scaled(width=8, depth=1 / 3, num_classes=5)


@pytest.mark.parametrize("step", SMALL.names)
@pytest.mark.parametrize("size", [(64, 64), (97, 71)])
def test_rung_equals_an_independent_implementation(step, size):
    network = independent.randomize(RoadmapNet(SMALL[step].design).double(), seed=SMALL.names.index(step))
    base = 8 if step in ("resnet50", "modern_recipe", "stage_ratio", "patchify_stem", "depthwise_conv") else 12
    blocks = (1, 1, 2, 1) if step in ("resnet50", "modern_recipe") else (1, 1, 3, 1)
    weights = network.state_dict()
    reference = independent.Reference(step, blocks, base, weights)
    images = torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        expected, logits = reference(images), network(images)
    assert expected.std(dim=0).min() > 1e-3  # the images do matter
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)
    assert reference.used == {name for name in weights if not name.endswith("num_batches_tracked")}


@pytest.mark.parametrize(
    ("regime", "step", "words"),
    [
        ("resnet50", "resnet50", "blocks 3-4-6-3, width 64"),
        ("resnet50", "modern_recipe", "recipe classic → modern"),
        ("resnet50", "stage_ratio", "blocks 3-4-6-3 → 3-3-9-3"),
        ("resnet50", "increase_width", "width 64 → 96"),
        ("resnet50", "kernel_11", "kernel_size 3 → 11"),
        ("resnet50", "large_kernel", "kernel_size 3 → 7"),
        ("resnet50", "fewer_norms", "fewer_norms no → yes"),
        ("resnet200", "stage_ratio", "blocks 3-24-36-3 → 3-3-27-3, width 64 → 84"),
    ],
)
def test_changes_in_words(regime, step, words):
    assert roadmap.ladder(regime)[step].change == words


def test_changes_in_words_are_those_of_the_trained_size():
    small = roadmap.ladder().scaled(16, 0.1)
    assert small["increase_width"].change == "width 16 → 24"
    assert small["stage_ratio"].change == "changes nothing at this size"
