"""The statistics against independent oracles, the figure by what it shows, the notebook by running it."""

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from scipy import stats

import roadmap
from roadmap.analysis.figure import PAPER, draw_trajectory, save_trajectory
from roadmap.analysis.statistics import mean_interval
from roadmap.analysis.study import Study, load_study
from roadmap.analysis.tables import summarize
from roadmap.checks import RoadmapError
from roadmap.rungs import ladder
from roadmap.study.folder import StudyFolder
from roadmap.study.store import COLUMNS, Store


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


# --- the figure


def axes_of(figure):
    return {axes.get_label(): axes for axes in figure.axes}


def lines_of(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def means_in(axes):
    """Step -> plotted mean, in the order drawn."""
    return {
        bars.get_label().removeprefix("mean of "): float(bars.lines[0].get_xdata()[0])
        for bars in axes.containers
        if bars.get_label().startswith("mean of ")
    }


def test_rows_of_the_figure_are_the_rungs_from_top_to_bottom():
    axes = axes_of(draw_trajectory(make_runs(full_scores())))["accuracy"]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["ResNet-50"] + [name.replace("_", " ") for name in ladder().names[1:]]
    bottom, top = axes.get_ylim()
    assert bottom > top
    assert "kernel_size 3 → 7" in {text.get_text() for text in axes.texts}


def test_dots_whiskers_and_path_are_the_summary():
    runs = make_runs(full_scores())
    summary = summarize(runs).set_index("step")
    axes = axes_of(draw_trajectory(runs))["accuracy"]
    assert means_in(axes) == pytest.approx(summary["top1_mean"].to_dict())
    for bars in axes.containers:
        step = summary.loc[bars.get_label().removeprefix("mean of ")]
        (left, _), (right, _) = bars.lines[2][0].get_segments()[0]
        assert (left, right) == pytest.approx((step["top1_low"], step["top1_high"]))
    path = lines_of(axes)["path"]
    assert list(path.get_xdata()) == pytest.approx(list(summary.loc[summary["adopted"], "top1_mean"]))
    seeds = lines_of(axes)["seeds of gelu"].get_xdata()
    assert sorted(seeds) == pytest.approx(sorted(runs.loc[runs["step"] == "gelu", "top1"]))


def test_numbers_of_a_row_are_printed():
    runs = make_runs({"gelu": {0: 60.0, 1: 62.0}, "fewer_norms": {0: 65.0, 1: 67.5}})
    texts = {text.get_text() for text in axes_of(draw_trajectory(runs))["accuracy"].texts}
    assert {"61.00 ± 1.41", "66.25 ± 1.77", "+5.25 [+2.07, +8.43]"} <= texts


def test_bars_are_gmacs_from_zero_and_hatched_for_roads_alone():
    runs = make_runs(full_scores())
    figure = draw_trajectory(runs)
    bars = {bar.get_label(): bar.patches[0] for bar in axes_of(figure)["cost"].containers}
    assert {step: bar.get_width() for step, bar in bars.items()} == pytest.approx(
        summarize(runs).set_index("step")["gmacs"].to_dict()
    )
    assert axes_of(figure)["cost"].get_xlim()[0] == 0
    assert {step for step, bar in bars.items() if bar.get_hatch()} == {"kernel_5", "kernel_9", "kernel_11"}


def test_a_cut_axis_is_marked_and_a_whole_one_is_not():
    cut = axes_of(draw_trajectory(make_runs({"gelu": {0: 60.0}, "fewer_norms": {0: 61.0}})))["accuracy"]
    whole = axes_of(draw_trajectory(make_runs({"gelu": {0: 1.0}, "fewer_norms": {0: 99.0}})))["accuracy"]
    assert cut.get_xlim()[0] > 0 and "does not begin at 0" in cut.get_xlabel()
    assert whole.get_xlim()[0] == 0 and "does not begin at 0" not in whole.get_xlabel()


def test_the_path_breaks_where_a_rung_diverged():
    runs = make_runs({"gelu": {0: 60.0}, "fewer_activations": {0: None}, "fewer_norms": {0: 61.0}})
    axes = axes_of(draw_trajectory(runs))["accuracy"]
    assert np.isnan(lines_of(axes)["path"].get_xdata()[1])
    (text,) = (text for text in axes.texts if text.get_text() == "failed")
    assert text.get_position()[1] == 1


@pytest.mark.parametrize("regime", ["resnet50", "resnet200"])
def test_paper_overlay_is_the_printed_table(regime):
    runs = make_runs(full_scores(regime), regime=regime)
    axes = axes_of(draw_trajectory(runs, paper=True))
    printed = [rung.printed.top1 for rung in ladder(regime)]
    points = lines_of(axes["paper"])["paper"]
    assert list(points.get_xdata()) == printed
    assert to_rgba(points.get_markeredgecolor()) == to_rgba(PAPER)
    assert "ImageNet-1K" in axes["paper"].get_xlabel()
    assert "paper" not in axes_of(draw_trajectory(runs))


def test_printed_cost_is_shown_only_at_the_size_of_the_paper():
    size = {"image_size": 224, "width": 64, "depth": 1.0, "stem_stride": 4}
    printed = [rung.printed.gflops for rung in ladder()]
    lines = lines_of(axes_of(draw_trajectory(make_runs(full_scores(), **size), paper=True))["cost"])
    assert list(lines["paper"].get_xdata()) == printed
    for name, other in {"image_size": 160, "width": 32, "depth": 0.5}.items():
        runs = make_runs(full_scores(), **{**size, name: other})
        assert not axes_of(draw_trajectory(runs, paper=True))["cost"].get_lines()


def test_both_scales_are_one_where_the_numbers_are_alike():
    near = make_runs({rung.name: {0: rung.printed.top1 + 0.2} for rung in ladder()})
    axes = axes_of(draw_trajectory(near, paper=True))
    assert axes["accuracy"].get_xlim() == axes["paper"].get_xlim()
    assert "same scale" in axes["paper"].get_xlabel()
    far = axes_of(draw_trajectory(make_runs({"gelu": {0: 40.0}, "fewer_norms": {0: 41.0}}), paper=True))
    assert far["accuracy"].get_xlim()[1] < 50 < far["paper"].get_xlim()[0]
    assert "own scale" in far["paper"].get_xlabel()


def test_caption_says_what_was_trained():
    figure = draw_trajectory(make_runs({"resnet50": {0: 1.0}, "gelu": {0: 50.0, 1: 51.0}}))
    caption = " ".join(re.sub(r"\s+", " ", text.get_text()) for text in figure.texts)
    for part in ("cifar10 at 32 px", "base width 16", "epochs 6", "seeds per rung 1 to 2", "classic / modern",
                 "a processor", "multiply-accumulates"):  # fmt: skip
        assert part in caption


@pytest.mark.parametrize("paper", [False, True])
@pytest.mark.parametrize(
    "scores",
    [
        full_scores(),
        {"gelu": {0: 50.0}},
        {"gelu": {0: 50.0, 1: 50.0}, "fewer_norms": {0: 50.0, 1: 50.0}},
        {"resnet50": {0: None}, "gelu": {0: None}},
        {"resnet50": {0: 0.0, 1: 100.0}, "gelu": {0: None, 1: 100.0}},
    ],
    ids=["full", "one rung", "all alike", "all diverged", "extremes"],
)
def test_nothing_is_clipped(scores, paper):
    """All text lies within the picture, also with long names of data and device."""
    runs = make_runs(scores, data="/somewhere/" + "folder/" * 12, device_name="a processor with a long name " * 4)
    figure = draw_trajectory(runs, paper=paper)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    width, height = figure.get_size_inches() * figure.dpi
    texts = [*figure.texts, figure._suptitle, *(text for axes in figure.axes for text in axes.texts)]
    texts += [label for axes in figure.axes for label in (*axes.get_yticklabels(), axes.xaxis.label)]
    for text in texts:
        if text.get_text() and text.get_visible():
            box = text.get_window_extent(canvas.get_renderer())
            assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, text.get_text()


def test_files_are_whole_deterministic_and_alone(tmp_path):
    runs = make_runs(full_scores())
    (tmp_path / "trajectory.svg").write_text("an older one")
    paths = save_trajectory(runs, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trajectory.pdf", "trajectory.png", "trajectory.svg"]
    assert sorted(paths) == sorted(tmp_path.iterdir())
    png, svg, pdf = (path.read_bytes() for path in paths)
    assert png.startswith(b"\x89PNG") and int.from_bytes(png[16:20], "big") == 1800
    save_trajectory(runs, tmp_path)
    assert [(tmp_path / f"trajectory.{kind}").read_bytes() for kind in ("svg", "pdf")] == [svg, pdf]
    other = make_runs({**full_scores(), "gelu": {0: 50.0}})
    save_trajectory(other, tmp_path)
    assert (tmp_path / "trajectory.svg").read_bytes() != svg


def test_a_failed_drawing_leaves_the_old_file(tmp_path, monkeypatch):
    runs = make_runs({"gelu": {0: 50.0}})
    save_trajectory(runs, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("roadmap.analysis.figure.Path.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_trajectory(make_runs({"gelu": {0: 60.0}}), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# --- a study and its notebook


def test_a_study_shows_itself(tmp_path):
    study = Study(tmp_path / "mine", make_runs({"gelu": {0: 60.0, 1: 62.0}, "fewer_norms": {0: 65.0, 1: 67.5}}))
    assert repr(study).startswith("Study mine (ladder): 2 steps, 4 runs, all done\n")
    assert "fewer_norms" in repr(study) and "66.25" in repr(study)
    assert "<table" in study._repr_html_() and "66.25" in study._repr_html_()
    assert study.trajectory(title="mine")._repr_png_().startswith(b"\x89PNG")
    assert study.trajectory(title="mine")._suptitle.get_text() == "mine"


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
    assert len(study.runs) == 51 and study.runs["data_seconds"].isna().all(), "which older tables lack"
    assert study.steps["step"].tolist()[0] == "resnet50" and study.trajectory()
    (tmp_path / "trajectory.csv").write_text("step,seed\ngelu,0\n")
    with pytest.raises(RoadmapError, match="is no table of runs: it has no regime"):
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
