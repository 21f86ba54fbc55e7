"""Each network of a study starts from its own run in another one, of the same task or of another."""

from __future__ import annotations

import pytest
import torch
from commands import call, once
from folders import make_image_folder
from safetensors.torch import load_file

import roadmap
from roadmap.checks import RoadmapError
from roadmap.data.sources import open_data
from roadmap.planning.reading import load_spec
from roadmap.running.preparing import prepare
from roadmap.store.store import Store
from roadmap.tasks import task_named
from roadmap.training.fit import make_fit
from roadmap.training.spec import Execution

SMALL = {"width": 4, "stem_stride": 2, "threads": 1, "jobs": "1", "image_size": 32, "device": "cpu"}
STEPS = ["patchify_stem", "layer_norm"]


def train(folder):
    """Two networks with two seeds each, trained to classify."""
    images = make_image_folder(folder / "images", train=8, test=4, size=(32, 32))
    places = {"data_dir": str(images), "out": folder / "study", "store": folder / "store"}
    roadmap.run(only=STEPS, data="folder", epochs=1, seeds=2, **places, **SMALL)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return once(tmp_path_factory, "carrying", train)


def weights(source, step, seed):
    (run,) = (
        row
        for row in roadmap.load_study(source / "study").runs.to_dict("records")
        if (row["step"], row["seed"]) == (step, seed)
    )
    return load_file(source / "store" / "runs" / run["signature"] / "weights.safetensors")


@pytest.mark.parametrize("task", ["segment", "detect"])
def test_a_dense_network_begins_with_the_weights_of_its_own_classifier(task, source, tmp_path):
    study = prepare(
        load_spec(only=STEPS, task=task, start_from=str(source / "study"), seeds=2, epochs=1, **SMALL),
        Store(source / "store"),
    )
    assert len(study.runs) == 4 == len({run.initial for run in study.runs}) == len({*study.initial.values()})
    assert study.title.endswith("-from-study")
    fresh = prepare(load_spec(only=STEPS, task=task, seeds=2, epochs=1, **SMALL), Store(source / "store"))
    assert {run.signature for run in fresh.runs}.isdisjoint(run.signature for run in study.runs)
    for run in study.runs:
        initial = study.initial[run.signature]
        module, _ = make_fit(run, study.data, tmp_path, Execution("cpu", threads=1), None, initial=initial)
        inner = task_named(task).make_runtime().backbone(module.network).state_dict()
        kept = weights(source, run.step, run.seed)
        assert inner and all(torch.equal(tensor, kept[name]) for name, tensor in inner.items())


def test_a_study_of_segmentation_is_trained_so_and_can_be_made_again(source, tmp_path):
    words = f"run --task segment --only gelu --start-from {source / 'study'}".replace("gelu", STEPS[0])
    small = "--width 4 --stem-stride 2 --threads 1 --jobs 1 --epochs 1 --seeds 1 --device cpu --image-size 32".split()
    places = ("--out", tmp_path / "study", "--store", tmp_path / "store")
    shown = call(*words.split(), *small, *places)
    assert shown.code == 0, shown.err
    (signature,) = Store(tmp_path / "store").signatures()
    record = Store(tmp_path / "store").record(signature)
    assert record["run"]["initial"] and record["origin"]["initial"].startswith(str(source / "store"))
    assert call("reproduce", signature, "--store", tmp_path / "store").code == 0


def test_a_classifier_of_the_same_classes_goes_on(source):
    how = {"data": "folder", "data_dir": str(source / "images"), "start_from": str(source / "study")}
    study = prepare(load_spec(only=STEPS, seeds=1, epochs=1, **how, **SMALL), Store(source / "store"))
    run = study.runs[0]
    module, _ = make_fit(run, study.data, source, Execution("cpu"), None, initial=study.initial[run.signature])
    kept = weights(source, run.step, 0)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in module.network.state_dict().items())
    assert open_data(**study.spec.opened).class_names == study.data.class_names


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"seeds": 3}, "no run of patchify_stem with seed 2 to start from: of patchify_stem it has the seeds 0 and 1"),
        ({"only": ["gelu"]}, "no run of gelu with seed 0 to start from: it has no gelu"),
        ({"width": 8}, "patchify_stem cannot start from its run, whose widths is"),
        ({"start_from": "{source}"}, "holds no study"),
    ],
)
def test_what_cannot_start(settings, sentence, source):
    known = {"only": STEPS, "task": "segment", "start_from": str(source / "study"), "seeds": 1, "epochs": 1}
    given = {name: value.format(source=source) if isinstance(value, str) else value for name, value in settings.items()}
    with pytest.raises(RoadmapError) as caught:
        prepare(load_spec(**{**SMALL, **known, **given}), Store(source / "store"))
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        "export-weights {run} {here}/out --store {store}",
        "export {run} --to torch-export --store {store}",
        "eval {run} --on corrupted --store {store}",
        "bench --study {study} --inference",
        "demo {study}",
    ],
)
def test_what_is_for_classifiers_says_so(words, tmp_path_factory, tmp_path):
    def segment(folder):
        places = {"out": folder / "study", "store": folder / "store"}
        roadmap.run(only=STEPS[:1], task="segment", epochs=1, seeds=1, **places, **SMALL)

    root = once(tmp_path_factory, "segmented", segment)
    (run,) = Store(root / "store").signatures()
    places = {"run": run, "here": tmp_path, "store": root / "store", "study": root / "study"}
    shown = call(*(word.format(**places) for word in words.split()), cwd=tmp_path)
    assert shown.code == 2 and shown.err.count("\n") == 1 and not any(tmp_path.iterdir()), shown
    assert "image classification" in shown.err or "another task" in shown.err
