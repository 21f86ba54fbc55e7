"""Latency: measured in turns, kept with the study, and joined to its tables, effects and figures."""

from __future__ import annotations

import shutil
import time

import pandas as pd
import pytest
import torch
from commands import call, once
from test_exporting import train

import roadmap
from roadmap import RoadmapError
from roadmap.cli.results import parse_budget
from roadmap.cost.measuring import latencies
from roadmap.network.building import build_network
from roadmap.results.latency import TABLE

TABLE_OF = (
    "step,signature,latency,latency_p95,latency_error,calls,batch_size,image_size,device_name,threads,torch,measured"
)


@pytest.fixture
def study(tmp_path_factory, tmp_path):
    """A copy of a study of three networks, and of its store."""
    shutil.copytree(once(tmp_path_factory, "exporting", train), tmp_path / "copy")
    return tmp_path / "copy" / "study"


def keep(folder, latency, error=0.1):
    """A table of latencies in a study's folder, as the program writes it."""
    runs = roadmap.load_study(folder).runs
    names = dict(zip(runs["step"], runs["signature"], strict=True))
    rows = [
        f"{step},{names[step]},{ms},{ms + 1},{error},9,1,32,some machine,1,2.14,2026-01-01T00:00:00+00:00"
        for step, ms in latency.items()
    ]
    (folder / TABLE).write_text("\n".join([TABLE_OF, *rows, ""]))


def test_a_larger_network_takes_longer_and_as_long_as_a_bare_loop_says():
    small, large = (roadmap.ladder().scaled(width, 1 / 3, stem_stride=2)["gelu"].design for width in (4, 64))
    found = latencies({"small": small, "large": large}, 64, 1, "cpu", seconds=0.5, threads=1)
    assert found["large"].percentile_95 >= found["large"].median > 2 * found["small"].median > 0
    network, image = build_network(large).eval(), torch.randn(1, 3, 64, 64)
    before, threads = [], torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        for _ in range(20):
            begin = time.perf_counter()
            network(image)
            before.append(1e3 * (time.perf_counter() - begin))
    torch.set_num_threads(threads)
    assert 1 / 4 < found["large"].median / sorted(before)[10] < 4  # the machine may be busy


def test_bench_measures_one_image():
    words = "bench --upto modern_recipe --image-size 32 --width 4 --inference --batch-size 1 --seconds 0.05 --json"
    shown = call(*words.split())
    assert shown.code == 0 and '"batch_size": 1' in shown.out and '"latency_p95"' in shown.out, shown.err


def test_a_study_knows_of_its_latency(study):
    plain = roadmap.load_study(study)
    assert plain.costs["latency"].isna().all() and "latency" not in plain.effects
    first, second, *others = plain.steps["step"]
    keep(study, {first: 10.0, second: 12.0, **dict.fromkeys(others, 12.0)})
    loaded = roadmap.load_study(study)
    assert dict(zip(loaded.costs["step"], loaded.costs["latency"], strict=True))[second] == 12.0
    row = loaded.effects.set_index("effect").loc[second]
    assert row["latency"] == 2.0 and row["points_per_ms"] == pytest.approx(row["estimate"] / 2)
    same = loaded.effects[loaded.effects["against"].eq(second)]
    assert same["latency"].eq(0).all() and same["points_per_ms"].isna().all(), "nothing is divided by noise"
    pd.testing.assert_frame_equal(loaded.effects[plain.effects.columns], plain.effects)
    shown = call("effects", study).out
    assert "points/ms" in shown and "ms: some machine, 1 thread, one image of 32 px." in shown
    # of other runs by now, as after another width in the same folder
    (study / TABLE).write_text((study / TABLE).read_text().replace(loaded.runs["signature"].iloc[-1], "0" * 16))
    last = loaded.runs["step"].iloc[-1]
    assert roadmap.load_study(study).costs.set_index("step")["latency"].isna()[last]


def test_the_figure_says_what_is_best_within_a_budget(study):
    means = roadmap.load_study(study).steps.set_index("step")["top1_mean"]
    slow = means.idxmax()
    keep(study, {step: 30.0 if step == slow else 10.0 + place for place, step in enumerate(means.index)})
    loaded = roadmap.load_study(study)
    best = means.drop(slow).idxmax()
    drawn = loaded.pareto("latency", budget=20.0)
    assert drawn.headline.startswith("Median latency (ms) at most 20: ") and f"{means[best]:.1f} %" in drawn.headline
    assert "no network" in loaded.pareto("latency", budget=1.0).headline and "some machine, 1 thread" in drawn.caption
    assert loaded.pareto("latency_p95").headline
    shown = call("plot", study, "--figure", "pareto", "--x", "latency", "--budget", "20ms", "--out", study / "drawn")
    assert shown.code == 0 and "at most 20: " in (study / "drawn" / "pareto.md").read_text()


@pytest.mark.parametrize(
    ("text", "cost", "value"),
    [("20ms", "latency", 20.0), ("0.02 s", "latency", 20.0), ("4.5", "gmacs", 4.5), ("800M", "gmacs", 0.8),
     ("28M", "params", 28e6), ("1e3", "activations", 1000.0)],  # fmt: skip
)  # fmt: skip
def test_budgets(text, cost, value):
    assert parse_budget(text, cost) == pytest.approx(value)


def test_what_cannot_be(study, tmp_path):
    (tmp_path / "broken").mkdir()
    for words, sentence in (
        (("plot", study, "--figure", "pareto", "--x", "latency"), "roadmap bench --study measures it"),
        (("plot", study, "--figure", "pareto", "--budget", "20ms"), "--budget is '20ms', but must be a number"),
        (("plot", study, "--budget", "20ms"), "--budget is for --figure pareto"),
        (("plot", study, "--figure", "pareto", "--budget", "1e999"), "budget"),
        (("plot", study, "--figure", "pareto", "--budget", ""), "--budget is ''"),
        (("plot", study, "--figure", "pareto", "--x", "device_name"), "unknown cost 'device_name'"),
        (("bench", "--study", study), "add --inference"),
        (("bench", "--study", study, "--inference", "--upto", "gelu"), "--upto is for a ladder"),
        (("bench", "--study", tmp_path / "none", "--inference"), "none"),
        (("bench", "--study", study, "--inference", "--batch-size", 0), "batch size"),
        (("bench", "--batch-size", 1, "--upto", "modern_recipe", "--width", 4), "one is for --inference"),
    ):
        shown = call(*words)
        assert shown.code == 2 and sentence in shown.err and "Traceback" not in shown.err, (words, shown)
    (study / TABLE).write_text("step,latency\ngelu,soon\n")
    with pytest.raises(RoadmapError, match="roadmap bench --study .* measures it anew"):
        _ = roadmap.load_study(study).effects
