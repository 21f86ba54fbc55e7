"""The statistics of a ladder against independent oracles, and studies read from their folders."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import roadmap
from roadmap.checks import RoadmapError
from roadmap.ladders.rungs import ladder
from roadmap.results.statistics import mean_interval
from roadmap.results.study import Study, load_study
from roadmap.results.tables import summarize
from roadmap.store.folder import StudyFolder
from roadmap.store.records import COLUMNS
from roadmap.store.store import Store


def make_rows(scores, regime="resnet50", **values):
    """Rows of a study from ``{step: {seed: top1}}``, where None stands for a run that failed."""
    return [
        {
            "regime": regime,
            "step": step,
            "adopted": ladder(regime)[step].adopted,
            "seed": seed,
            "status": "failed" if top1 is None else "done",
            "reason": "the loss is nan in epoch 3" if top1 is None else None,
            "gmacs": 0.01 * (1 + ladder(regime).names.index(step)),
            "params": 123_456,
            "activations": 1000,
            "top1": top1,
            "top5": top1,
            "loss": 1.0,
            "train_loss": 1.0,
            "epochs": 6,
            "seconds": 10.0 + seed,
            "images_per_second": 1000.0 + seed,
            "data": "cifar10",
            "image_size": 32,
            "width": 16,
            "depth": 0.34,
            "stem_stride": 2,
            "recipe": "classic" if ladder(regime)[step].classic_recipe else "modern",
            "optimizer": "adamw",
            "device": "cpu",
            "device_name": "a processor",
            **values,
        }
        for step, seeds in scores.items()
        for seed, top1 in seeds.items()
    ]


def write_study(folder, rows, history=()):
    """A study's folder that holds these rows as finished runs, each with this history."""
    store = Store(folder.parent / "store")
    store.begin()
    records = []
    for index, row in enumerate(rows):
        row = {**row, "signature": f"{index:016x}"}
        records.append({part: {} for part in COLUMNS.values()})
        for name, part in COLUMNS.items():
            records[-1][part][name] = row.get(name)
    StudyFolder(folder).begin({"runs": [record["run"] for record in records]}, store)
    for record in records:
        record["result"]["retry"] = False
        store.finish(record["run"]["signature"], record, list(history), weights=False)


def make_runs(scores, **values):
    return pd.DataFrame(make_rows(scores, **values))


def full_scores(regime="resnet50", seeds=3):
    generator = np.random.default_rng(1)
    return {
        rung.name: {seed: 2 * rung.printed.top1 - 100 + generator.normal() / 3 for seed in range(seeds)}
        for rung in ladder(regime)
    }


def of_steps(steps, regime="resnet50", seeds=3):
    """Runs of some rungs."""
    scores = full_scores(regime, seeds)
    return make_runs({step: scores[step] for step in ladder(regime).names if step in steps}, regime=regime)


def row_of(summary, step):
    return summary.set_index("step").loc[step]


# --- statistics


def test_interval_by_hand():
    # t(0.975, 2 degrees of freedom) = 4.30265273 in every table of Student's distribution.
    mean, std, low, high = mean_interval([70.0, 71.0, 72.0])
    assert (mean, std) == (71.0, 1.0)
    assert high - mean == pytest.approx(4.30265273 / math.sqrt(3))
    assert mean - low == pytest.approx(4.30265273 / math.sqrt(3))


def test_means_agree_with_scipy_and_their_intervals_have_moderated_variances():
    scores = full_scores(seeds=4)
    summary = summarize(make_runs(scores))
    common = np.mean([stats.tvar([*seeds.values()]) for seeds in scores.values()])
    for step, seeds in scores.items():
        values = list(seeds.values())
        row = row_of(summary, step)
        assert row["top1_mean"] == pytest.approx(np.mean(values))
        assert row["top1_std"] == pytest.approx(stats.tstd(values))
        assert (row["seeds"], row["failed"]) == (4, 0)
        error = math.sqrt((5 * common + 3 * stats.tvar(values)) / 8 / 4)
        # Between the quantiles of the normal distribution and of the network's own three degrees of freedom.
        assert 1.96 * error < row["top1_high"] - row["top1_mean"] < stats.t.ppf(0.975, 3) * error
        assert row["top1_mean"] - row["top1_low"] == pytest.approx(row["top1_high"] - row["top1_mean"])


def test_an_interval_of_an_accuracy_ends_at_0_and_100():
    row = row_of(summarize(make_runs({"gelu": {0: 99.0, 1: 91.0}, "layer_norm": {0: 0.5, 1: 9.0}})), "gelu")
    assert row["top1_high"] == 100 and row["top1_low"] > 0


def test_gains_are_differences_of_means():
    scores = full_scores()
    summary = summarize(make_runs(scores))
    for step, before in (("gelu", "large_kernel"), ("kernel_9", "move_up_depthwise"), ("modern_recipe", "resnet50")):
        row = row_of(summary, step)
        assert row["against"] == before
        assert row["gain"] == pytest.approx(np.mean([*scores[step].values()]) - np.mean([*scores[before].values()]))
        assert row["gain_low"] < row["gain"] < row["gain_high"]


@pytest.mark.parametrize("regime", ["resnet50", "resnet200"])
def test_every_rung_is_compared_with_the_adopted_one_before_it(regime):
    summary = summarize(make_runs(full_scores(regime), regime=regime))
    against = dict(zip(summary["step"], summary["against"], strict=True))
    adopted = [rung.name for rung in ladder(regime) if rung.adopted]
    assert pd.isna(against.pop(regime))
    for road in ("kernel_5", "kernel_9", "kernel_11"):
        assert against.pop(road) == "move_up_depthwise"
    assert against == dict(zip(adopted[1:], adopted[:-1], strict=True))


def test_missing_rungs_leave_the_gain_of_all_changes_between():
    runs = make_runs({"stage_ratio": {0: 60.0}, "kernel_11": {0: 63.0}, "gelu": {0: 65.0}, "layer_norm": {0: 64.0}})
    summary = summarize(runs)
    assert list(summary["against"].fillna("")) == ["", "stage_ratio", "stage_ratio", "gelu"]
    assert list(summary["gain"].fillna(0)) == [0, 3, 5, -1]


def test_one_seed_has_a_mean_and_a_gain_but_no_spread():
    row = row_of(summarize(make_runs({"gelu": {7: 60.0}, "fewer_norms": {7: 61.5}})), "fewer_norms")
    assert (row["seeds"], row["top1_mean"], row["gain"]) == (1, 61.5, 1.5)
    assert row[["top1_std", "top1_low", "top1_high", "gain_low", "gain_high"]].isna().all()


def test_seeds_need_not_be_the_same():
    row = row_of(summarize(make_runs({"gelu": {0: 60.0, 1: 62.0}, "fewer_norms": {1: 64.0, 2: 66.0}})), "fewer_norms")
    assert row["gain"] == 4 and row["gain_low"] < 4 < row["gain_high"]


def test_diverged_runs_are_counted_and_do_not_enter_means():
    runs = make_runs({
        "gelu": {0: 60.0, 1: 62.0},
        "fewer_activations": {0: None, 1: None},
        "fewer_norms": {0: 65.0, 1: None},
    })  # fmt: skip
    summary = summarize(runs)
    assert list(summary["failed"]) == [0, 2, 1]
    assert list(summary["seeds"]) == [2, 0, 1]
    lost, half = row_of(summary, "fewer_activations"), row_of(summary, "fewer_norms")
    assert lost[["top1_mean", "gain", "gain_low"]].isna().all()
    assert (half["top1_mean"], half["against"], half["gain"]) == (65.0, "gelu", 4.0), "with the seeds that are left"
    assert math.isnan(half["gain_low"])


def test_a_study_in_which_everything_diverged_still_has_a_table():
    summary = summarize(make_runs({"resnet50": {0: None}, "gelu": {0: None}}))
    assert list(summary["failed"]) == [1, 1]
    assert summary["top1_mean"].isna().all()


def test_rows_come_in_the_order_of_the_ladder():
    runs = make_runs(full_scores()).sample(frac=1, random_state=0)
    assert list(summarize(runs)["step"]) == ladder().names


def test_printed_and_measured_columns():
    summary = summarize(make_runs(full_scores("resnet200"), regime="resnet200"))
    row = row_of(summary, "kernel_5")
    assert (row["printed_top1"], row["printed_gflops"]) == (82.32, 14.70)
    assert (row["adopted"], row["params"], row["gmacs"]) == (False, 123_456, pytest.approx(0.09))


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (pd.DataFrame(), "no runs"),
        (
            pd.concat([make_runs({"gelu": {0: 1.0}}), make_runs({"gelu": {0: 1.0}}, regime="resnet200")]),
            "resnet200 and resnet50",
        ),
        (make_runs({"gelu": {0: 1.0}}).assign(step="gleu"), "did you mean 'gelu'"),
    ],
)
def test_tables_that_cannot_be_summarised(runs, message):
    with pytest.raises(RoadmapError, match=message):
        summarize(runs)


# --- a study and its notebook


def test_a_study_shows_itself(tmp_path):
    study = Study(tmp_path / "mine", make_runs({"gelu": {0: 60.0, 1: 62.0}, "fewer_norms": {0: 65.0, 1: 67.5}}))
    assert repr(study).startswith("Study mine (ladder): 2 steps, 4 runs, all done\n")
    assert "fewer_norms" in repr(study) and "66.25" in repr(study)
    assert "<table" in study._repr_html_() and "66.25" in study._repr_html_()
    assert study.trajectory(title="mine")._repr_png_().startswith(b"\x89PNG")
    assert study.trajectory(title="mine").headline == "mine"


@pytest.mark.parametrize("table", ["runs", "steps", "costs", "effects", "curves"])
def test_a_change_in_a_table_does_not_change_the_study(tmp_path, table):
    write_study(tmp_path / "study", make_rows({"resnet50": {0: 60.0, 1: 61.0}, "modern_recipe": {0: 65.0, 1: 66.0}}))
    study, untouched = (roadmap.load_study(tmp_path / "study") for _ in range(2))
    for _ in range(2):  # the second time, one that is computed once is there already
        mine = getattr(study, table)
        assert type(mine) is type(getattr(untouched, table))
        mine["mine"] = 1
        mine.iloc[:, 0] = None
    for name in ("runs", "steps", "costs", "effects", "curves"):
        pd.testing.assert_frame_equal(getattr(study, name), getattr(untouched, name))
    assert repr(study) == repr(untouched)


def test_a_study_is_read_from_its_folder(tmp_path):
    scores = {"resnet50": {0: 60.0, 1: 61.0}, "modern_recipe": {0: 65.0, 1: None}}
    write_study(tmp_path / "study", make_rows(scores))
    study = roadmap.load_study(tmp_path / "study")
    assert study.path == tmp_path / "study"
    assert list(study.runs["step"]) == ["resnet50", "resnet50", "modern_recipe", "modern_recipe"]
    assert list(study.steps["top1_mean"]) == [60.5, 65.0]
    assert list(study.steps["failed"]) == [0, 1]


def test_a_kept_table_is_a_study(tmp_path):
    kept = Path(__file__).parents[1] / "results" / "embedded"
    study = load_study(kept)
    assert len(study.runs) == 85 and study.runs["data_seconds"].notna().all()
    assert study.steps["step"].tolist()[0] == "resnet50" and study.trajectory()
    table = pd.read_csv(kept / "trajectory.csv").drop(columns="data_seconds")
    table.to_csv(tmp_path / "trajectory.csv", index=False)
    older = load_study(tmp_path)
    assert len(older.runs) == 85 and older.runs["data_seconds"].isna().all(), "which older tables lack"
    (tmp_path / "trajectory.csv").write_text("step,seed\ngelu,0\n")
    with pytest.raises(RoadmapError, match="is not a table of runs: it has no column regime"):
        load_study(tmp_path)
    (tmp_path / "trajectory.csv").write_text("")
    with pytest.raises(RoadmapError, match="cannot be read"):
        load_study(tmp_path)


def test_a_folder_without_a_study(tmp_path):
    with pytest.raises(RoadmapError, match="no folder"):
        load_study(tmp_path / "nowhere")
    with pytest.raises(RoadmapError, match="holds no study"):
        load_study(tmp_path)
    write_study(tmp_path / "begun", [])
    with pytest.raises(RoadmapError, match="no finished run"):
        load_study(tmp_path / "begun")
