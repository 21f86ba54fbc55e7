"""Counted costs against torch's own counter and hooks; measured ones for what they must satisfy."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys

import known_costs
import pytest
import torch
from commands import call
from torch.utils.flop_counter import FlopCounterMode

import roadmap
from roadmap.cost import tracing
from roadmap.cost.counting import count
from roadmap.cost.measuring import measure
from roadmap.ladders.ladder import REGIMES
from roadmap.network.families import digest
from roadmap.network.model import RoadmapNet


def torch_counts(design, size):
    """(MACs, activations, parameters) by torch's counter and forward hooks, on the meta device."""
    outputs = []
    with torch.device("meta"):
        network = RoadmapNet(design).eval()
        for module in network.modules():
            if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
                module.register_forward_hook(lambda module, inputs, output: outputs.append(output.numel()))
        with FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, design.in_channels, *size))
    return counter.get_total_flops() // 2, sum(outputs), sum(p.numel() for p in network.parameters())


#: Those at 224 pixels are shipped.
SIZED = [(regime, step, 224, 224) for regime in REGIMES for step in roadmap.ladder(regime).names] + [
    ("resnet50", step, 65, 97) for step in roadmap.ladder().names
]


@pytest.mark.parametrize(("regime", "step", "height", "width"), SIZED)
def test_counts_are_torchs(regime, step, height, width):
    design = roadmap.ladder(regime)[step].design
    cost = count(design, (height, width))
    macs, activations, params = torch_counts(design, (height, width))
    assert cost.gmacs == pytest.approx(macs / 1e9, rel=1e-9)
    assert cost.activations == activations
    assert cost.params == params
    assert cost.macs_by_operator["conv"] + cost.macs_by_operator["linear"] == macs


@pytest.mark.parametrize("step", ["resnet50", "depthwise_conv", "separate_downsample"])
def test_shipped_costs_are_what_is_counted(step):
    shipped = count(roadmap.ladder()[step].design)
    assert shipped == tracing.trace(roadmap.ladder()[step].design, (224, 224))


def test_shipped_costs_are_those_of_both_ladders():
    with known_costs.FILE.open(encoding="utf-8") as file:
        shipped = [(row["regime"], row["step"], row["design"]) for row in csv.DictReader(file)]
    assert shipped == [(name, rung.name, digest(rung.design)) for name in REGIMES for rung in roadmap.ladder(name)]


def test_counts_of_other_channels_groups_and_no_classifier():
    design = roadmap.Design(blocks=(1, 2), widths=(32, 64), groups=8, in_channels=5, num_classes=0, stem_stride=1)
    assert count(design, 40).gmacs == pytest.approx(torch_counts(design, (40, 40))[0] / 1e9, rel=1e-9)


@pytest.mark.parametrize("layer", ["grn", "se", "replknet_kernels", "resnet_d_stem"])
def test_counts_of_plug_in_layers(layer):
    design = roadmap.ladder().scaled(16, 1 / 3)["gelu"].design.replace(layers=[layer])
    cost = count(design, 65)
    assert cost.gmacs == pytest.approx(torch_counts(design, (65, 65))[0] / 1e9, rel=1e-9)
    assert cost.params == sum(p.numel() for p in RoadmapNet(design).parameters())


def test_norms_are_split_off_and_not_in_gmacs():
    cost = count(roadmap.ladder()["layer_norm"].design)
    assert cost.macs_by_operator["layer_norm"] > 0
    counted = cost.macs_by_operator["conv"] + cost.macs_by_operator["linear"]
    assert cost.gmacs == pytest.approx(counted / 1e9, rel=1e-12)


def steps(*words):
    shown = call("steps", *words)
    assert shown.code == 0, shown.err
    return shown.out


def test_steps_prints_counted_beside_printed_figures():
    shown = steps()
    lines = {line.split()[0].strip("()"): line for line in shown.splitlines()}
    for rung in roadmap.ladder():
        assert f" {rung.printed.gmacs:.2f} " in lines[rung.name] and f"{rung.printed.top1:.2f}" in lines[rung.name]
    assert "4.46*" in lines["layer_norm"] and "4.49*" in lines["separate_downsample"] and shown.count("*") == 3
    assert "multiply-accumulates" in shown


def test_steps_says_why():
    shown = " ".join(steps("--why").split())
    for rung in roadmap.ladder():
        assert f"{rung.name} ({rung.section}): {rung.change} {rung.why}" in shown


def test_steps_as_json_and_csv_at_another_size():
    words = ("--regime", "resnet200", "--image-size", "32", "--width", "8", "--depth", "0.2", "--stem-stride", "2")
    records = json.loads(steps(*words, "--json"))
    rows = list(csv.DictReader(io.StringIO(steps(*words, "--csv"))))
    ladder = roadmap.ladder("resnet200").scaled(8, 0.2, stem_stride=2)
    assert [record["step"] for record in records] == [row["step"] for row in rows] == ladder.names
    for record, row, rung in zip(records, rows, ladder, strict=True):
        cost = count(rung.design, 32)
        assert record["gmacs"] == float(row["gmacs"]) == cost.gmacs
        assert record["macs_by_operator"] == cost.macs_by_operator
        assert record["printed_gflops"] == rung.printed.gflops and record["why"] == rung.why


def test_measured_speed_and_memory_are_of_the_right_kind():
    design = roadmap.ladder().scaled(8, 1 / 3, stem_stride=2)["gelu"].design
    small, large = (measure(design, 32, batch, "cpu", seconds=0.05, threads=1) for batch in (2, 128))
    for speed in (small, large):
        assert speed.inference_images_per_second > speed.training_images_per_second > 0
    # training keeps what inference lets go
    assert large.training_memory_mib > large.inference_memory_mib > 0
    assert large.training_memory_mib > small.training_memory_mib


def test_bench_prints_ratios_to_the_start():
    words = (
        "bench --from patchify_stem --upto patchify_stem --image-size 32 --width 8 --batch-size 2 --seconds 0.05 --json"
    )
    done = call(*words.split())
    assert done.code == 0, done.err
    start, rung = json.loads(done.out)["measurements"]
    assert (start["step"], rung["step"]) == ("resnet50", "patchify_stem")
    assert start["training_images_per_second_ratio"] == 1
    ratio = rung["training_images_per_second"] / start["training_images_per_second"]
    assert rung["training_images_per_second_ratio"] == pytest.approx(ratio)


def test_help_is_instant_because_it_imports_nothing_heavy():
    code = (
        "import sys; from roadmap.cli.main import cli\n"
        "for name in cli.commands: cli.main([name, '--help'], standalone_mode=False)\n"
        "assert not {'torch', 'timm', 'numpy', 'pandas', 'pytorch_lightning', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_counting_does_not_import_lightning():
    code = "import sys\nimport roadmap.cost.tracing\nassert 'pytorch_lightning' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
