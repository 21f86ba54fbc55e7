"""What a study will take and how it is laid over the machine: estimates, schedules, places, loggers."""

from __future__ import annotations

import dataclasses
import json
import os
import sys

import pandas as pd
import pytest
from folders import make_image_folder

import roadmap
from roadmap import RoadmapError
from roadmap.cost.counting import count
from roadmap.data.sources import open_data
from roadmap.planning.reading import load_spec
from roadmap.planning.runs import plan
from roadmap.running import packing
from roadmap.running.forecast import Forecast, schedule
from roadmap.running.loggers import check_logger
from roadmap.store.store import Store

SMALL = {
    "only": ("patchify_stem", "layer_norm"), "seeds": 2, "epochs": 2, "width": 4, "batch_size": 16, "threads": 1,
    "image_size": 16, "data": "folder", "jobs": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return str(make_image_folder(tmp_path_factory.mktemp("images")))


@pytest.fixture
def machine(monkeypatch):
    """A machine of so many cores and bytes of memory."""

    def be(cores, memory=2**40):
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
        monkeypatch.setattr(packing, "memory", lambda: memory)

    return be


# --- places


@pytest.mark.parametrize(
    ("cores", "jobs", "threads", "runs", "expected"),
    [
        (4, None, None, 27, [(1, (0,)), (1, (1,)), (1, (2,)), (1, (3,))]),
        (4, None, None, 2, [(2, (0, 1)), (2, (2, 3))]),
        (4, None, None, 1, [(4, ())]),
        (4, None, 2, 27, [(2, (0, 1)), (2, (2, 3))]),
        (4, 2, None, 27, [(2, (0, 1)), (2, (2, 3))]),
        (4, 2, 1, 27, [(1, ()), (1, ())]),  # the machine is not full: the system knows better where there is room
        (4, 1, None, 27, [(4, ())]),
        (1, None, None, 27, [(1, ())]),
        (2, 3, None, 27, [(1, ())] * 3),
        (6, 4, None, 27, [(1, ())] * 4),
    ],
)
def test_runs_are_laid_over_the_cores(machine, cores, jobs, threads, runs, expected):
    machine(cores)
    found = packing.places(jobs, threads, "cpu", runs, need=2**30)
    assert [(place.threads, place.cores) for place in found] == expected


def test_runs_do_not_share_a_machine_that_has_no_memory_for_them(machine):
    machine(8, memory=10 * 2**30)
    assert len(packing.places(None, None, "cpu", 27, need=3 * 2**30)) == 2
    assert len(packing.places(None, None, "cpu", 27, need=30 * 2**30)) == 1
    assert len(packing.places(5, None, "cpu", 27, need=30 * 2**30)) == 5, "who says a number gets it"


def test_processes_that_train_together_have_cores_each(machine):
    machine(8)
    places = packing.places(None, None, "cpu", 27, need=2**20, processes=2)
    assert [(place.threads, place.cores) for place in places] == [(1, (0, 1)), (1, (2, 3)), (1, (4, 5)), (1, (6, 7))]


def test_the_memory_that_is_planned_for_is_enough(images):
    """Against the peak of real trainings, each in a process of its own."""
    from roadmap.running.engines.local import LocalEngine, Place
    from roadmap.running.estimate import Rehearse, execute_rehearsal

    spec = load_spec(only=("resnet50", "separate_downsample"), seeds=1, width=24, batch_size=128)
    data = open_data("embedded")
    for run in plan(spec, data):
        with LocalEngine(data, [Place("cpu", 1)], work=execute_rehearsal, fresh=True) as engine:
            engine.submit(Rehearse(run, spec.execution, 128, 0.1))
            while not (ended := engine.wait(1.0)):
                pass
        planned = packing.cpu_need(run, count(run.design, 32))
        assert 0.2 * (planned - packing.PROCESS_BYTES) < ended[0][1].memory_bytes < planned, run.step


# --- how long it takes


def test_a_schedule_fills_slots_as_they_fall_free():
    assert schedule([3, 1, 1, 2], [0, 0]) == [(0, 0, 3), (1, 0, 1), (1, 1, 2), (1, 2, 4)]
    assert schedule([1], [2, 5]) == [(0, 2, 3)]


def test_a_forecast_learns_from_the_runs_that_are_done(images):
    runs = plan(load_spec(**SMALL, data_dir=images), open_data("folder", images, 16))
    petaflops = {run.signature: 2.0 if run.step == "layer_norm" else 1.0 for run in runs}
    forecast = Forecast(petaflops)
    assert forecast.left(runs, [], 2) is None, "nothing is known yet"
    forecast.learn(runs[0], 10.0)
    assert [forecast.seconds(run) for run in runs] == [10, 10, 20, 20]
    assert forecast.left(runs[1:], [5.0], 2) == 30
    assert Forecast(petaflops, {runs[2].signature: 7.0}).seconds(runs[2]) == 7


def call(capsys, monkeypatch, *words):
    from roadmap.cli import main

    monkeypatch.setattr(sys, "argv", ["roadmap", *map(str, words)])
    main()
    return capsys.readouterr().out


NOT_A_NUMBER = """
from torch import nn
from roadmap.network.layers import layer

class NotANumber(nn.Module):
    def forward(self, x):
        return x * float("nan") if self.training else x

@layer("not_a_number", place="branch", why="Diverges in its first step.")
def build(site):
    return NotANumber()
"""


def test_a_network_that_diverges_at_once_is_timed_as_any_other(images, tmp_path, capsys, monkeypatch):
    (tmp_path / "diverges.py").write_text(NOT_A_NUMBER)
    words = "--design one-at-a-time --steps not_a_number --seeds 1 --width 4 --image-size 16 --batch-size 16".split()
    words += "--threads 1 --jobs 1 --plugin diverges.py --data folder --store store --data-dir".split()
    monkeypatch.chdir(tmp_path)
    told = json.loads(call(capsys, monkeypatch, "plan", *words, images, "--json"))
    assert all(row["seconds"] > 0 for row in told["schedule"]) and len(told["schedule"]) == 2


def test_a_plan_is_measured_kept_and_compared_with_what_came(images, tmp_path, capsys, monkeypatch):
    path = tmp_path / "study.yaml"
    path.write_text("\n".join(f"{name}: {list(value) if isinstance(value, tuple) else value}"
                              for name, value in {**SMALL, "data_dir": images}.items()))  # fmt: skip
    place = ["--store", tmp_path / "store", "--out", tmp_path / "study"]
    before = json.loads(call(capsys, monkeypatch, "plan", path, *place, "--json"))
    assert (before["runs"], before["to_train"], before["in_store"], before["slots"]) == (4, 4, 0, 2)
    assert not (tmp_path / "study").exists() and not list((tmp_path / "store" / "runs").iterdir())
    data = open_data("folder", images, 16)
    for run, row in zip(plan(load_spec(path), data), before["schedule"], strict=True):
        assert (row["step"], row["seed"], row["signature"]) == (run.step, run.seed, run.signature)
        assert row["petaflops"] == pytest.approx(2 * 72 * 6 * count(run.design, 16).gmacs / 1e6)
        assert row["seconds"] > 0 and row["memory_bytes"] > 4 * count(run.design, 16).params
        assert row["ends_after"] - row["starts_after"] == pytest.approx(row["seconds"])
    assert before["ends_after"] == max(row["ends_after"] for row in before["schedule"])

    measured = (tmp_path / "store" / "measured.json").read_text()
    text = call(capsys, monkeypatch, "plan", path, *place)
    assert (tmp_path / "store" / "measured.json").read_text() == measured, "it is not measured twice"
    assert "4 to train" in text and "2 runs side by side with 1 thread each" in text and "would end at" in text

    study = roadmap.run(path, out=tmp_path / "study", store=tmp_path / "store")
    estimated = {row["signature"]: row["seconds"] for row in before["schedule"]}
    for row in study.runs.itertuples():
        assert row.estimated_seconds == pytest.approx(estimated[row.signature]) and row.wall_seconds > 0
    capsys.readouterr()
    after = json.loads(call(capsys, monkeypatch, "plan", path, *place, "--json"))
    assert (after["to_train"], after["in_store"], after["ends_after"]) == (0, 4, None)


def test_large_batches_are_measured_in_part_on_the_cpu():
    from roadmap.running import estimate
    from roadmap.running.preparing import prepare

    study = prepare(load_spec(only="resnet50", seeds=1, width=64, depth=1.0, image_size=128, batch_size=512))
    assert estimate.FEWEST_IMAGES <= estimate._batch(study, study.runs[0]) < 512


# --- loggers


@pytest.mark.parametrize("logger", ["csv", "tensorboard"])
def test_loggers_write_one_log_a_run(images, tmp_path, logger):
    pytest.importorskip("tensorboard")
    study = roadmap.run(
        out=tmp_path / "study", store=tmp_path / "store", data_dir=images, logger=logger, **{**SMALL, "seeds": 1}
    )
    for row in study.runs.itertuples():
        folder = tmp_path / "study" / "logs" / "study" / f"{row.step}-seed0-{row.signature[:6]}"
        history = Store(tmp_path / "store").history(row.signature)
        if logger == "csv":
            table = pd.read_csv(folder / "metrics.csv")
            assert list(table["train_loss"].dropna()) == pytest.approx([epoch["train_loss"] for epoch in history])
            assert list(table["test_top1"].dropna()) == pytest.approx(
                [epoch["test_top1"] for epoch in history if "test_top1" in epoch]
            )
        else:
            from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

            events = EventAccumulator(str(folder))
            events.Reload()
            losses = [event.value for event in events.Scalars("train_loss")]
            assert losses == pytest.approx([epoch["train_loss"] for epoch in history])
            assert events.Scalars("test_top1")[-1].value == pytest.approx(row.top1)


def test_a_logger_that_is_not_installed_is_named(monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check_logger(None), check_logger("csv")
    with pytest.raises(RoadmapError, match="--logger wandb needs the package wandb: pip install wandb"):
        check_logger("wandb")


def test_where_a_run_is_executed_is_not_in_its_signature(images):
    data = open_data("folder", images, 16)
    one = plan(load_spec(**SMALL, data_dir=images), data)
    other = plan(load_spec(**{**SMALL, "jobs": 1, "threads": 3, "retries": 7}, logger="csv", workers=2,
                           data_dir=images), data)  # fmt: skip
    assert [run.signature for run in one] == [run.signature for run in other]
    assert [dataclasses.replace(run) for run in one] == other
