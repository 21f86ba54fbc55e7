"""The tables of a study: their columns and dtypes, from the store and from kept files alike."""

import dataclasses
import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ablations import FACTORS, make_ablation, make_star, own_ladder, reference
from commands import call
from test_analysis import full_scores, make_rows, make_runs, write_study
from test_study import finished, images  # noqa: F401  (a study that was trained)

from roadmap.checks import RoadmapError
from roadmap.plotting.style import Drawn
from roadmap.results.curves import Curves
from roadmap.results.schema import CURVES, EFFECTS, RUNS, TABLES, dtype_of, empty, typed
from roadmap.results.study import Study, load_study, save_results
from roadmap.results.tables import completed
from roadmap.store.folder import StudyFolder
from roadmap.store.records import COLUMNS

PROJECT = Path(__file__).parents[1]
HISTORY = [
    {"epoch": 1, "train_loss": 2 / 3, "train_top1": 10.1, "test_loss": None, "test_top1": None, "test_top5": None,
     "lr_end": 1e-3, "seconds": 1.5, "data_seconds": 0.1, "images": 480},
    {"epoch": 2, "train_loss": 1 / 3, "train_top1": 20.2, "test_loss": 0.1, "test_top1": 40.4, "test_top5": 90.0,
     "lr_end": 1e-3 / 3, "seconds": 1.5, "data_seconds": 0.1, "images": 480},
]  # fmt: skip


def kept(folder, to):
    """What somebody keeps of a study: its folder without the store."""
    save_results(load_study(folder))
    shutil.copytree(folder, to)
    return to


def check_dtypes(study):
    for name, schema in TABLES.items():
        table = getattr(study, name)
        assert {column: table[column].dtype for column in table} == {
            column: dtype_of(schema[column]) for column in schema if column in table
        }, name
        if name != "effects":
            assert list(table) == list(schema)
    assert set(study.effects) <= set(EFFECTS)


def additive(steps, seed):
    return 60.0 + len(steps) + seed / 8


# --- columns and dtypes


def test_the_page_lists_every_column():
    page = (PROJECT / "docs" / "tables.md").read_text(encoding="utf-8")
    for name, schema in TABLES.items():
        section = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)[1]
        rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) ?\| (.*) \|$", section, re.MULTILINE)
        said = [(column, each.dtype, each.unit, each.meaning) for column, each in schema.items()]
        assert rows == said, f"docs/tables.md, {name}"


def test_a_row_of_runs_is_what_the_store_keeps():
    assert list(RUNS) == list(COLUMNS)


STUDIES = {
    "ladder": (make_runs(full_scores()), {"design": "ladder"}),
    "own ladder": own_ladder(),
    "one run": (make_runs({"gelu": {3: 60.0}}), {"design": "ladder"}),
    "all failed": (make_runs({"resnet50": {0: None}, "modern_recipe": {0: None}}), {"design": "ladder"}),
    "leave-one-out": make_ablation("leave-one-out", additive),
    "order": make_ablation("order", additive),
    "factorial": make_ablation("factorial", additive),
    "sweep": make_star(),
}


@pytest.mark.parametrize("name", STUDIES)
def test_every_table_has_the_dtypes_of_the_schema(tmp_path, name):
    runs, described = STUDIES[name]
    runs = pd.concat([runs, pd.DataFrame(reference("resnet18", [60.5, None]))])
    check_dtypes(Study(tmp_path, completed(runs), described))


@pytest.mark.parametrize(("name", "dtypes"), [(name, {c: dtype_of(s[c]) for c in s}) for name, s in TABLES.items()])
def test_a_table_without_rows_has_its_dtypes(name, dtypes):
    assert empty(TABLES[name]).dtypes.to_dict() == dtypes


def test_costs_are_counted_and_measured(tmp_path):
    rows = make_rows({"resnet50": {0: 60.0, 1: 61.0, 2: None}, "modern_recipe": {0: 65.0}, "stage_ratio": {0: None}})
    rows[1]["device_name"] = "another"
    costs = Study(tmp_path, pd.DataFrame(rows)).costs.set_index("step")
    speeds = [1000.0, 1001.0]
    start = costs.loc["resnet50"]
    assert start["images_per_second"] == np.mean(speeds) and start["seconds"] == 10.5, "failed runs do not enter"
    assert start["images_per_second_std"] == pytest.approx(np.std(speeds, ddof=1))
    assert start["device_name"] == "a processor / another"
    assert (start["gmacs"], start["params"], start["activations"]) == (0.01, 123_456, 1000)
    assert math.isnan(costs.loc["modern_recipe", "images_per_second_std"])
    assert costs.loc["stage_ratio", ["images_per_second", "seconds", "device_name"]].isna().all()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("seed", "first", "the column seed has 'first', which is no whole number"),
        ("params", 1.5, "the column params has 1.5, which is no whole number"),
        ("top1", "high", "the column top1 has 'high', which is no number"),
        ("compile", "perhaps", "the column compile has 'perhaps', which is no true or false"),
        ("started", "yesterday evening", "the column started has 'yesterday evening', which is no time of day"),
        ("image_size", None, "the column image_size has no value in one of its rows"),
    ],
)
def test_values_of_another_type(column, value, message):
    with pytest.raises(RoadmapError, match=re.escape(message)):
        typed(pd.DataFrame({column: pd.Series([value], dtype=object)}), RUNS)


@pytest.mark.parametrize("top1", [math.nan, math.inf])
def test_a_run_that_is_done_has_an_accuracy(tmp_path, top1):
    runs = make_runs({"resnet50": {0: 60.0, 1: top1}, "modern_recipe": {0: 65.0, 1: 66.0}})
    runs.to_csv(tmp_path / "trajectory.csv", index=False)
    with pytest.raises(RoadmapError, match="the run of 'resnet50' with seed 1 is done, but has no top1"):
        load_study(tmp_path)


# --- from the store and from kept files


def check_equal(one, other):
    for name in TABLES:
        pd.testing.assert_frame_equal(pd.DataFrame(getattr(one, name)), pd.DataFrame(getattr(other, name)), obj=name)


def test_kept_files_give_the_tables_of_the_store(finished, tmp_path):  # noqa: F811
    study = load_study(finished[1])
    shutil.copytree(study.path, tmp_path / "kept", ignore=shutil.ignore_patterns("store", "*.png", "*.svg", "*.pdf"))
    assert {path.suffix for path in (tmp_path / "kept").iterdir()} == {".json", ".csv", ".md", ".tex"}
    check_dtypes(study)
    # Kept files hold no records of single test images, of which intervals from the store speak as well.
    check_equal(dataclasses.replace(study, store=None), load_study(tmp_path / "kept"))
    assert len(study.curves) == 8 and study.curves["epoch"].tolist() == [1, 2] * 4
    last = study.curves.groupby(["step", "seed"])["test_top1"].last()
    assert last.to_dict() == study.runs.set_index(["step", "seed"])["top1"].to_dict()
    assert study.runs["started"].between(pd.Timestamp("2020-01-01", tz="UTC"), pd.Timestamp.now("UTC")).all()


@pytest.mark.parametrize("name", ["cifar10", "cifar10-leave-one-out", "cifar10-order"])
def test_curves_of_kept_studies_end_where_their_runs_do(name):
    study = load_study(PROJECT / "results" / name)
    last = study.curves.groupby(["step", "seed"]).last()
    runs = study.runs.set_index(["step", "seed"]).loc[last.index]
    assert len(runs) == len(study.runs)
    assert last["test_top1"].tolist() == runs["top1"].tolist() and last["epoch"].tolist() == runs["epochs"].tolist()


def test_kept_files_keep_awkward_values(tmp_path):
    rows = make_rows({"resnet50": {0: 200 / 3, 1: None}, "modern_recipe": {0: 65.1, 1: 0.1 + 0.2}})
    awkward = {"reason": 'it said "no, never",\nthen NA', "source": "0012e456", "command": "NA", "data": "null",
               "commit": "1234567890", "dirty": True, "started": "2026-01-02T03:04:05+02:00"}  # fmt: skip
    write_study(tmp_path / "study", [{**rows[0], "threads": 2}, {**rows[1], **awkward}, *rows[2:]], HISTORY)
    study = load_study(tmp_path / "study")
    StudyFolder(study.path).write_table()
    again = load_study(kept(study.path, tmp_path / "elsewhere" / "kept"))
    check_dtypes(study)
    check_equal(study, again)
    failed = again.runs.iloc[1]
    for name in ("reason", "source", "command", "data", "commit"):
        assert failed[name] == awkward[name]
    assert (
        failed["started"] == pd.Timestamp("2026-01-02T01:04:05Z") and failed["dirty"] and failed["status"] == "failed"
    )
    assert again.curves[again.curves["status"] == "failed"]["epoch"].tolist() == [1, 2]
    assert again.curves["test_top1"].isna().tolist() == [True, False] * 4


def test_a_kept_folder_without_curves(tmp_path):
    study = load_study(PROJECT / "results" / "embedded")
    shutil.copy(study.path / "trajectory.csv", tmp_path)
    study = load_study(tmp_path)
    assert study.curves.empty and study.curves.dtypes.to_dict() == empty(CURVES).dtypes.to_dict()
    with pytest.raises(RoadmapError, match="no learning curves: neither the study's store is here nor a curves.csv"):
        study.curves()
    assert "curves.csv" not in study.file_names
    assert call("plot", tmp_path, "--figure", "curves").code == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("train_top1", "training", "is not a table of learning curves: it has no column train_top1"),
        (
            "resnet50,0,1,",
            "resnet50,7,1,",
            "has a run of 'resnet50' with seed 7, of which the table of runs knows nothing",
        ),
        ("resnet50,0,1,", "resnet50,0,one,", "is damaged: the column epoch has 'one', which is no whole number"),
        ("resnet50,0,2,", "resnet50,0,1,", "is damaged: it has epoch 1 of 'resnet50' with seed 0 twice"),
        ("resnet50,0,2,", 'resnet50,"0,2,', "cannot be read"),
    ],
)
def test_damaged_curves(tmp_path, old, new, message):
    write_study(tmp_path / "study", make_rows({"resnet50": {0: 60.0}}), HISTORY)
    StudyFolder(tmp_path / "study").write_table()
    folder = kept(tmp_path / "study", tmp_path / "elsewhere" / "kept")
    text = (folder / "curves.csv").read_text()
    assert old in text
    (folder / "curves.csv").write_text(text.replace(old, new, 1))
    with pytest.raises(RoadmapError, match=message) as raised:
        load_study(folder)
    assert "curves.csv" in str(raised.value) and "\n" not in str(raised.value)


def test_a_damaged_history(tmp_path):
    write_study(tmp_path / "study", make_rows({"resnet50": {0: 60.0}}), HISTORY)
    (history,) = (tmp_path / "store" / "runs").glob("*/history.csv")
    history.write_text(history.read_text().replace("480", "all"))
    with pytest.raises(RoadmapError, match="the history of run 0000000000000000 cannot be read"):
        load_study(tmp_path / "study")


# --- the curves, which are a table and a figure


def test_curves_are_a_table_and_called_a_figure(tmp_path):
    write_study(tmp_path / "study", make_rows({"resnet50": {0: 60.0}, "modern_recipe": {0: 65.0}}), HISTORY)
    curves = load_study(tmp_path / "study").curves
    assert isinstance(curves, Curves)
    part = curves[curves["epoch"] > 1]
    assert type(part) is pd.DataFrame and len(part) == 2
    figure = curves(steps=["modern_recipe"], quantity="train_loss", title="mine")
    assert isinstance(figure, Drawn) and figure.headline == "mine"
    assert curves.groupby("step")["train_top1"].max().tolist() == pytest.approx([20.2, 20.2])


@pytest.mark.parametrize("scores", [{"gelu": {0: 60.0, 1: 61.0}}, {"resnet50": {0: None}, "modern_recipe": {0: None}}])
def test_a_study_without_effects_says_so(tmp_path, scores):
    write_study(tmp_path / "study", make_rows(scores))
    shown = call("effects", tmp_path / "study")
    assert (shown.code, shown.out) == (2, "") and shown.err.endswith("has fewer than two networks to compare\n")
    assert json.loads(call("effects", tmp_path / "study", "--json").out) == []


# --- a study shown


class Page(HTMLParser):
    """Rows of cells, and all text."""

    def __init__(self, html):
        super().__init__()
        self.rows, self.text, self.tags = [], "", set()
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        self.text += data
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def test_a_study_in_a_notebook(tmp_path):
    name = "<script>alert(1)</script>"
    scores = {"resnet50": {0: 60.0, 1: 61.0, 2: 62.0}, "modern_recipe": {0: 65.0, 1: 66.0, 2: 67.01},
              "kernel_9": {0: 65.0, 1: None}}  # fmt: skip
    study = Study(tmp_path / name, make_runs(scores, data=name))
    page = Page(study._repr_html_())
    assert "script" not in page.tags and name in page.text
    assert "3 steps, 8 runs: 7 done, 1 failed, 1 missing" in page.text
    assert "Failed: kernel_9 seed 1." in page.text and "Missing: kernel_9 seed 2." in page.text
    head, start, second, road = page.rows
    assert head[:5] == ["step", "top-1 ± std, %", "gain [interval], points", "verdict", "GMACs"]
    assert start[:4] == ["resnet50", "61.00 ± 1.00", "", ""]
    shown = "+5.00 [{gain_low:+.2f}, {gain_high:+.2f}]".format(**study.steps.set_index("step").loc["modern_recipe"])
    assert second[1:4] == ["66.00 ± 1.01", shown, "gain"]
    assert road[0] == "kernel_9 (not taken)" and road[-1] == "1, 1 failed, 1 missing"
    lines = repr(study).splitlines()
    assert [line.split("  ")[0] for line in lines[-4:]] == ["step", "resnet50", "modern_recipe", "kernel_9 (not taken)"]
    assert shown in lines[-2]


def test_what_is_still_missing_is_said(tmp_path):
    rows = make_rows({"resnet50": {0: 60.0, 1: 61.0}, "modern_recipe": {0: 65.0}})
    write_study(tmp_path / "study", rows)
    said = json.loads((tmp_path / "study" / "study.json").read_text())
    for step, seed in (("modern_recipe", 1), ("stage_ratio", 0), ("stage_ratio", 1)):
        said["runs"].append({**said["runs"][0], "step": step, "seed": seed, "signature": f"{len(said['runs']):016x}"})
    (tmp_path / "study" / "study.json").write_text(json.dumps(said))
    study = load_study(tmp_path / "study")
    assert study.missing == [("modern_recipe", 1), ("stage_ratio", 0), ("stage_ratio", 1)]
    assert "3 runs: 3 done, 3 missing" in repr(study) and "stage_ratio seed 1" in repr(study)


def test_effects_of_other_designs_are_shown(tmp_path):
    study = Study(tmp_path / "mine", *make_ablation("factorial", additive))
    page = Page(study._repr_html_())
    assert page.text.startswith("Study mine (factorial): 8 networks, 24 runs, all done")
    assert [row[0] for row in page.rows[1:]] == study.effects["effect"].tolist()
    assert len(page.rows) == 1 + len(FACTORS) * (len(FACTORS) + 1) / 2
