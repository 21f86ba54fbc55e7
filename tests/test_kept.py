"""Studies of which only the folder was kept: read, shown and saved."""

import json

import pandas as pd
import pytest
from ablations import make_ablation, make_sweep, own_ladder, reference
from test_effects import additive, interacting, noisy

from roadmap.checks import RoadmapError
from roadmap.plotting.style import CAPTIONS, KINDS
from roadmap.results.study import load_study, save_results
from roadmap.store.folder import FORMAT

STUDIES = {
    "leave-one-out": make_ablation("leave-one-out", noisy(additive)),
    "order": make_ablation("order", noisy(interacting)),
    "factorial": make_ablation("factorial", noisy(interacting)),
    "sweep": make_sweep({"kernel_size": [3, 5, 7]}, noisy(lambda *_: 70.0)),
}


def files_of(figures):
    return [f"{figure}.{kind}" for figure in figures for kind in (*KINDS, *CAPTIONS)]


def write_table(folder, runs, ablation, store="nowhere"):
    """The folder of a kept study: a table, and what was asked, without a store."""
    folder.mkdir()
    runs.assign(signature="0" * 16).to_csv(folder / "trajectory.csv", index=False)
    content = {"format": FORMAT, "store": store, "runs": [{"signature": "0" * 16}], "ablation": ablation}
    (folder / "study.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("name", STUDIES)
def test_a_kept_study_is_read_shown_and_saved(tmp_path, name):
    runs, ablation = STUDIES[name]
    runs = pd.concat([runs, pd.DataFrame(reference("resnet18", [71.0, 72.5]))])
    study = load_study(write_table(tmp_path / "study", runs, ablation))
    assert f"Study study ({ablation['design']}): {len(study.steps)} networks, {len(runs)} runs" in repr(study)
    assert study.effects["effect"].iloc[0] in repr(study) and "<table" in study._repr_html_()
    paths = save_results(study)
    files = [*files_of(study.figures), "effects.csv"]
    assert [path.name for path in paths] == files == study.file_names
    again = {path: path.read_bytes() for path in save_results(load_study(study.path))}
    assert again == {path: path.read_bytes() for path in paths}
    written = pd.read_csv(study.path / "effects.csv")
    assert list(written) == list(study.effects)
    assert written["estimate"].to_list() == pytest.approx(study.effects["estimate"].to_list())
    assert {path.name for path in study.path.iterdir()} == {*files, "trajectory.csv", "study.json"}


def test_a_ladder_is_saved_as_its_trajectory(tmp_path):
    study = load_study(write_table(tmp_path / "study", *own_ladder()))
    assert [path.name for path in save_results(study)] == [*files_of(["trajectory"]), "effects.csv"]
    assert "squeeze_more" in repr(study) and study.effects["against"].tolist()[-1] == "squeeze"
    with pytest.raises(OSError, match="disk full"), pytest.MonkeyPatch.context() as patched:
        before = {path: path.read_bytes() for path in study.path.iterdir()}
        patched.setattr("pathlib.Path.replace", _fail)
        save_results(study)
    assert {path: path.read_bytes() for path in study.path.iterdir()} == before


def _fail(*_):
    raise OSError("disk full")


def test_a_table_without_its_description(tmp_path):
    runs, ablation = make_ablation("leave-one-out", additive)
    folder = write_table(tmp_path / "study", pd.concat([pd.DataFrame(reference("resnet18", [70.0])), runs]), ablation)
    (folder / "study.json").unlink()
    with pytest.raises(RoadmapError, match="the runs of a leave-one-out study, but no study.json"):
        load_study(folder)


def test_a_description_without_a_design_or_steps(tmp_path):
    runs, _ = make_ablation("leave-one-out", additive)
    with pytest.raises(RoadmapError, match="its ablation has no design"):
        load_study(write_table(tmp_path / "study", runs, []))
    step = {"name": "gelu", "section": "", "change": ""}
    steps = (None, [3], [{}], [step | {"name": ["a"]}], [step, step | {"settings": 5}])
    wrong = [{"steps": one} for one in steps] + [{"base": 5}, {"factors": [None]}]
    for number, said in enumerate(wrong):
        with pytest.raises(RoadmapError, match="its ablation does not say what its steps are"):
            load_study(write_table(tmp_path / str(number), runs, {"design": "leave-one-out", **said}))


def test_a_kept_study_without_runs(tmp_path):
    runs, ablation = make_ablation("leave-one-out", additive)
    with pytest.raises(RoadmapError, match="no finished run"):
        load_study(write_table(tmp_path / "study", runs[:0], ablation))
