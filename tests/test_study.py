"""Studies: what runs, what is written, what is kept, what is refused; through the command line where it has one."""

from __future__ import annotations

import csv
import json
import re
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from commands import Shown, call, once
from folders import make_cifar10, make_image_folder

import roadmap
from roadmap import RoadmapError
from roadmap.cost.counting import count
from roadmap.data.sources import open_data
from roadmap.planning.networks import plan_networks, title_of
from roadmap.planning.reading import load_spec
from roadmap.planning.runs import plan
from roadmap.planning.spec import StudySpec, study_settings
from roadmap.recipes.recipe import SETTINGS

PROJECT = Path(__file__).parents[1]
#: A study of two small networks on small images, as options of the command line.
SMALL = (
    "--only patchify_stem,layer_norm --seeds 2 --epochs 2 --width 4 --batch-size 16 --threads 1 --image-size 16".split()
)


def command(*words, cwd=None):
    """The command line. Where the words name an output folder and no store, the store lies in that folder."""
    return call(*_with_store(words), cwd=cwd)


def _with_store(words):
    if "--out" in words and "--store" not in words:
        return [*words, "--store", Path(words[words.index("--out") + 1]) / "store"]
    return words


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return make_image_folder(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def finished(images, tmp_path_factory):
    """A finished study, what its command printed, and its folder."""

    def make(folder):
        words = ["run", *SMALL, "--data", "folder", "--data-dir", images, "--out", folder / "study"]
        with (folder / "errors").open("w+") as errors, pytest.MonkeyPatch.context() as patched:
            patched.setattr("roadmap.phases.DELAY", 0.0)  # however quick this machine is
            done = call(*_with_store(words), err=errors)
        assert done.code == 0, done.err
        (folder / "shown.json").write_text(json.dumps(done))

    folder = once(tmp_path_factory, "finished", make)
    return Shown(*json.loads((folder / "shown.json").read_text())), folder / "study"


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- a study from end to end


def test_a_study_leaves_table_figure_records_and_weights(finished):
    done, folder = finished
    rows = list(csv.DictReader((folder / "trajectory.csv").open()))
    assert [(row["step"], row["seed"]) for row in rows] == [
        ("patchify_stem", "0"), ("patchify_stem", "1"), ("layer_norm", "0"), ("layer_norm", "1"),
    ]  # fmt: skip
    for row in rows:
        assert (row["status"], row["epochs"], row["device"], row["threads"]) == ("done", "2", "cpu", "1")
        assert 0 <= float(row["top1"]) <= 100 and float(row["seconds"]) > 0 and float(row["images_per_second"]) > 0
        assert row["torch"] == torch.__version__ and "run --only" in row["command"]
        record = json.loads((folder / "store" / "runs" / row["signature"] / "run.json").read_text())
        assert record["run"]["recipe"]["batch_size"] == 16
        assert len(pd.read_csv(folder / "store" / "runs" / row["signature"] / "history.csv")) == 2
    figures = {f"trajectory.{kind}" for kind in ("png", "svg", "pdf", "md", "tex")}
    tables = {"trajectory.csv", "effects.csv", "curves.csv"}
    assert {path.name for path in folder.iterdir()} == figures | tables | {"study.json", "store"}


def test_costs_in_the_table_are_those_of_the_trained_networks(finished):
    _, folder = finished
    study = roadmap.load_study(folder)
    for row in study.runs.itertuples():
        design = roadmap.ladder().scaled(4, 1 / 3, stem_stride=2, num_classes=3)[row.step].design
        cost = count(design, 16)
        assert (row.gmacs, row.params, row.activations) == (cost.gmacs, cost.params, cost.activations)


def test_stored_weights_give_the_stored_accuracy(finished, images):
    _, folder = finished
    from roadmap.data.batches import Batcher
    from roadmap.data.sources import open_data
    from roadmap.network.design import Design
    from roadmap.network.model import RoadmapNet
    from roadmap.recipes.recipe import Recipe

    for row in roadmap.load_study(folder).runs.itertuples():
        run = folder / "store" / "runs" / row.signature
        network = RoadmapNet(Design(**json.loads((run / "run.json").read_text())["run"]["design"]))
        roadmap.load_weights(network, run / "weights.safetensors")
        network.eval()
        right = total = 0
        with torch.no_grad():
            for pictures, labels in Batcher(open_data("folder", images, 16), Recipe("any"), 0).testing():
                right += int((network(pictures).argmax(1) == labels).sum())
                total += len(labels)
        assert row.top1 == pytest.approx(100 * right / total)


def test_a_pipe_gets_plain_lines(finished):
    done, _ = finished
    lines = done.out.splitlines()
    assert lines[0].startswith("4 runs, ")
    runs = {f"{step} seed {seed}" for step in ("patchify_stem", "layer_norm") for seed in (0, 1)}
    told = [re.match(r"\[(\d)/4\] (.*): [\d.]+ %, [\d.]+ s$", line).groups() for line in lines[1:5]]
    assert [number for number, _ in told] == list("1234") and {run for _, run in told} == runs
    phases = [line for line in done.err.splitlines() if not line.startswith("warning: ")]
    assert "\x1b" not in done.out + done.err and all(line.endswith("…") for line in phases)
    assert "building the networks and counting their cost…" in phases and len(set(phases)) == len(phases)


def test_the_same_study_again_trains_nothing(finished, images):
    _, folder = finished
    before = contents(folder / "store")
    for more in ([], ["--resume"]):
        again = command("run", *SMALL, "--data", "folder", "--data-dir", images, "--out", folder, *more)
        assert again.code == 0 and again.out.count("was there already") == 4, again.err
    assert contents(folder / "store") == before


def test_studies_share_runs(finished, images, tmp_path):
    """Another study that wants some of the same trainings finds them, under names of its own."""
    _, folder = finished
    store = shutil.copytree(folder / "store", tmp_path / "store")
    words = [*SMALL, "--data", "folder", "--data-dir", images, "--store", store, "--out", tmp_path / "other"]
    words[words.index("patchify_stem,layer_norm")] = "layer_norm,separate_downsample"
    other = command("run", *words)
    assert other.code == 0 and other.out.count("was there already") == 2, other.err
    mine, theirs = (roadmap.load_study(path).runs for path in (folder, tmp_path / "other"))
    shared = set(mine["signature"]) & set(theirs["signature"])
    assert set(theirs[theirs["signature"].isin(shared)]["step"]) == {"layer_norm"} and len(shared) == 2


def test_a_study_may_grow(finished, images, tmp_path):
    _, folder = finished
    shutil.copytree(folder, tmp_path / "study")
    words = [*SMALL, "--data", "folder", "--data-dir", images, "--out", tmp_path / "study"]
    words[words.index("--seeds") + 1] = "3"
    grown = command("run", *words)
    assert grown.code == 0 and grown.out.count("was there already") == 4, grown.err
    assert len(roadmap.load_study(tmp_path / "study").runs) == 6


def test_retrain_forgets_what_was_there(finished, images, tmp_path):
    _, folder = finished
    shutil.copytree(folder, tmp_path / "study")
    words = ["run", *SMALL, "--data", "folder", "--data-dir", images, "--out", tmp_path / "study", "--retrain"]
    assert command(*words, "failed").out.count("was there already") == 4
    again = command(*words, "all")
    assert again.code == 0 and "was there already" not in again.out
    for path in (folder / "store" / "runs").rglob("weights.safetensors"):
        assert (tmp_path / "study" / path.relative_to(folder)).read_bytes() == path.read_bytes()


def test_another_study_never_touches_the_folder(finished, images):
    _, folder = finished
    before = contents(folder)
    words = ["run", *SMALL, "--data", "folder", "--data-dir", images, "--out", folder, "--lr", "0.5"]
    for more in ([], ["--resume"]):
        other = command(*words, *more)
        assert other.code == 2 and "holds another study's results" in other.err
    assert contents(folder) == before


def test_dry_run_prints_the_plan_and_writes_nothing(images, tmp_path):
    done = command("run", *SMALL, "--data", "folder", "--data-dir", images, "--dry-run", "--lr", "0.125", cwd=tmp_path)
    assert done.code == 0, done.err
    assert "72 training and 24 test images of 16 px, 3 classes" in done.out
    row = next(line for line in done.out.splitlines() if line.startswith("layer_norm")).split()
    assert row[3:10] == ["small", "adamw", "0.125", "16", "2", "8", "0,1"]
    network = roadmap.ladder().scaled(4, 1 / 3, stem_stride=2, num_classes=3)["layer_norm"].design
    assert float(row[10]) == pytest.approx(2 * 2 * 72 * 6 * count(network, 16).gmacs * 1e9 / 1e15, rel=5e-3)
    assert not list(tmp_path.iterdir())


def test_a_diverged_run_is_recorded_and_the_rest_go_on(images, tmp_path):
    done = command(
        *"run --only resnet50,gelu --seeds 1 --epochs 1 --width 4 --depth 1 --batch-size 8 --lr 999".split(),
        "--threads",
        "1",
        *("--data", "folder", "--data-dir", images, "--out", tmp_path / "study"),
    )
    table = pd.read_csv(tmp_path / "study" / "trajectory.csv")
    assert list(table["step"]) == ["resnet50", "gelu"]
    bad = table[table["status"] == "failed"]
    assert len(bad) and bad["top1"].isna().all() and bad["reason"].str.contains("diverged: .* loss is").all()
    assert done.code == 1 and f"{len(bad)} of 2 runs failed" in done.err
    assert (tmp_path / "study" / "trajectory.png").stat().st_size > 1000


def test_cifar10_with_the_paper_overlay(tmp_path):
    make_cifar10(tmp_path / "data")
    words = "--data cifar10 --only large_kernel,kernel_9 --seeds 1 --epochs 1 --width 4 --threads 1 --paper".split()
    done = command("run", *words, "--data-dir", tmp_path / "data", "--out", tmp_path / "study")
    assert done.code == 0, done.err
    assert "ImageNet-1K" in (tmp_path / "study" / "trajectory.svg").read_text()
    drawn = (tmp_path / "study" / "trajectory.svg").read_bytes()
    assert command("plot", tmp_path / "study", "--paper").code == 0
    assert (tmp_path / "study" / "trajectory.svg").read_bytes() == drawn
    assert command("plot", tmp_path / "study").code == 0
    assert (tmp_path / "study" / "trajectory.svg").read_bytes() != drawn


def test_from_python_on_the_embedded_set(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    study = roadmap.run(only=["stage_ratio"], seeds=[3], epochs=1, image_size=16, threads=1)
    assert {path.name for path in Path("results").iterdir()} == {"stage_ratio", "store"}
    assert study.path == Path("results/stage_ratio")
    row = study.runs.iloc[0]
    assert (row["step"], row["seed"], row["recipe"], row["data"]) == ("stage_ratio", 3, "quick", "embedded")
    assert row["command"] == "roadmap.run(only=('stage_ratio',), image_size=16, seeds=(3,), epochs=1, threads=1)"
    assert study.trajectory() is not None and "stage_ratio" in repr(study)

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("ROADMAP_STORE", str(tmp_path / "results" / "store"))
    again = roadmap.run(only=["stage_ratio"], seeds=[3], epochs=1, image_size=16, threads=1, out="study")
    assert [path.name for path in Path().iterdir()] == ["study"]
    assert again.runs["started"].tolist() == study.runs["started"].tolist(), "not trained again"


def test_streamed_images_train_too(images, tmp_path):
    words = (
        "--only gelu --seeds 1 --epochs 1 --width 4 --loading stream --workers 1 --threads 1 --batch-size 16".split()
    )
    done = command("run", *words, "--data", "folder", "--data-dir", images, "--out", tmp_path / "study")
    assert done.code == 0, done.err


# --- what is asked


@pytest.mark.parametrize("path", sorted((PROJECT / "experiments").glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_studies_resolve(path):
    spec = load_spec(path)
    assert plan_networks(spec).networks and len(spec.seeds) >= 2
    assert path.read_text().startswith("#"), "says what it should reach and how long it takes"


def test_file_and_options_mean_the_same(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("from: stage_ratio\nupto: gelu\nroads: true\nseeds: 2\nwidth: 8\ndepth: 0.5\nlr: 0.01\n")
    spec = load_spec(path)
    assert spec == StudySpec(from_="stage_ratio", upto="gelu", roads=True, seeds=(0, 1), width=8, depth=0.5, lr=0.01)
    assert [network.name for network in plan_networks(spec).networks][-5:] == [
        "kernel_5",
        "large_kernel",
        "kernel_9",
        "kernel_11",
        "gelu",
    ]
    assert load_spec(path, upto="patchify_stem", roads=False).upto == "patchify_stem"
    path.write_text("only: resnet50, gelu\nseeds: 0,5\nlr: 4e-3\nprecision: 32\n")
    assert load_spec(path) == StudySpec(only=("resnet50", "gelu"), seeds=(0, 5), lr=0.004, precision="32")


def test_every_setting_is_an_option_with_help():
    shown = command("run", "--help-all").out
    settings = [one.name for one in study_settings().values()]
    words = ("store", "out", "resume", "retrain", "paper", "dry-run")
    for name in (f"--{setting.replace('_', '-')}" for setting in (*settings, *SETTINGS, *words)):
        assert f"  {name}" in shown, name


def test_help_shows_the_options_that_matter_and_where_the_others_are():
    common = "from upto only design steps task data data-dir image-size recipe seeds epochs device out store".split()
    for name, own in (("run", {"resume", "dry-run"}), ("plan", {"again", "json"})):
        lines = command(name, "--help").out.partition("\nNetworks:\n")[2].splitlines()
        options = [line.split()[0].removeprefix("--") for line in lines if re.match("  --", line)]
        assert {*options} == {*common, *own, "help-all"} and "Data:" in lines
    parts = [line for line in command("run", "--help-all").out.splitlines() if re.match(r"[A-Z].*:$", line)]
    assert parts[0] == "Networks:" and parts[-1] == "Other options:" and len(parts) == 7


def test_settings_of_the_recipe_are_settings_of_a_study(images, tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(f"""only: [modern_recipe, gelu]
data: folder
data_dir: {images}
mixup: 2e-1
ema: 0.99
head_scale: none
layer_decay: 0.7
accumulate: 2
min_lr: 1e-7
epochs: 4
warmup_epochs: 1
test_every: 2
name: mine
""")
    spec = load_spec(path, cutmix=0.5, randaugment=None, betas=(0.8, 0.9), schedule="linear")
    assert title_of(spec, None) == "mine" and spec.execution.tested(5, 10, 10) == [2, 4, 5]
    for run in plan(spec, open_data(**spec.opened)):
        recipe = run.recipe
        assert (recipe.mixup, recipe.cutmix, recipe.ema, recipe.layer_decay, recipe.accumulate) == (
            0.2,
            0.5,
            0.99,
            0.7,
            2,
        )
        assert (recipe.min_lr, recipe.warmup_epochs, recipe.betas, recipe.schedule) == (1e-7, 1, (0.8, 0.9), "linear")
        assert recipe.batch_size % 4 == 0
    shown = command("run", path, "--dry-run", "--mixup", "0", "--ema", "none", "--optimizer", "lion")
    assert shown.code == 0 and "lion" in shown.out, shown.err


def test_an_option_turns_a_setting_of_the_file_off(images, tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(f"roads: true\nfrom: large_kernel\nupto: gelu\ndata: folder\ndata_dir: {images}\n")
    assert "kernel_9" in command("run", path, "--dry-run").out
    assert "kernel_9" not in command("run", path, "--dry-run", "--no-roads").out


BAD = [
    ("run --upto gelo", "unknown step 'gelo' (did you mean 'gelu'?)"),
    ("run --from gelu --upto stage_ratio", "'gelu' comes after 'stage_ratio'"),
    ("run --only gelu --upto gelu", "use one or the other"),
    ("run --only gelu --roads", "use one or the other"),
    ("run --only ,", "only is empty: give"),
    ("run --download", "neither downloaded nor streamed"),
    ("run --device cuda:", "device is 'cuda:'"),
    ("run --batch-size 1", "batch_size is 1, but must be between 2 and"),
    ("run --only resnet50 --regime resnet200", "unknown step 'resnet50'"),
    ("run --data folder", "needs --data-dir"),
    ("run --data folder --data-dir nowhere", "there is no folder nowhere"),
    ("run --data imagnet", "did you mean 'imagenet'?"),
    ("run --image-size 0", "image_size is 0"),
    ("run --only separate_downsample --image-size 8", "reduced to nothing by the strides"),
    ("run --epochs 0", "epochs is 0"),
    ("run --epochs -3", "epochs is -3"),
    ("run --epochs many", "epochs is 'many', but must be a whole number"),
    ("run --batch-size 0", "batch_size is 0"),
    ("run --lr -1", "lr is -1"),
    ("run --lr nan", "lr is nan"),
    ("run --seeds 0", "number of seeds is 0"),
    ("run --seeds 1,x", "seeds is '1,x'"),
    ("run --seeds 1,1", "name one seed twice"),
    ("run --seeds -1,2", "seed is -1"),
    ("run --width 1", "width is 1"),
    ("run --width 1000000", "width is 1000000"),
    ("run --depth 0", "depth is 0"),
    ("run --depth 0.1", "would be the same training as"),
    ("run --stem-stride 3", "'3' is not one of"),
    ("run --recipe classic --upto modern_recipe", "has no classic twin"),
    ("run --recipe quik", "did you mean 'quick'"),
    ("run --recipe nowhere.yaml", "there is no file nowhere.yaml"),
    ("run --device cuda:99 --only gelu", "device 'cuda:99' is not there"),
    ("run --device tpu", "device is 'tpu'"),
    ("run --precision 16-mixed --device cpu", "16-mixed needs a GPU"),
    ("run --precision 8", "'8' is not one of"),
    ("run --threads 0", "threads is 0"),
    ("run --resume --only gelu", "holds no study to resume"),
    ("run --jobs 0", "jobs is '0'"),
    ("run --jobs many", "jobs is 'many'"),
    ("run --retries -1", "retries is -1"),
    ("run --engine kubernetes", "'kubernetes' is not one of"),
    ("run --address auto", "--address is for --engine ray"),
    ("run --num-nodes 2", "--num-nodes above 1 needs --engine ray or slurm"),
    ("run --gpus 0.5", "--gpus is for --engine ray or slurm"),
    ("run --slurm partition=gpu", "--slurm is for --engine slurm"),
    ("run --engine slurm --slurm partition", "slurm is 'partition'"),
    ("run --devices 0", "devices is 0"),
    ("run --devices 2 --only resnet50", "normalises over the whole batch"),
    ("run --devices 3 --only gelu --batch-size 32", "cannot be shared out evenly to 3 processes: give another"),
    ("run --devices 2 --device cuda:1", "leave its number out"),
    ("run --logger paper", "'paper' is not one of"),
    ("plan --upto gelo", "unknown step 'gelo' (did you mean 'gelu'?)"),
    ("run nowhere.yaml", "there is no file nowhere.yaml"),
    ("run --bogus", "--bogus"),
    ("rnu", "unknown command 'rnu' (did you mean 'run'?)"),
    ("steps --regime resnet101", "'resnet101' is not one of"),
    ("steps --image-size 8 --width 4 --depth 0.2", "reduced to nothing"),
    ("steps --json --csv", "exclude each other"),
    ("steps --json --why", "exclude each other"),
    ("bench --image-size 8 --from separate_downsample", "reduced to nothing"),
    ("bench --batch-size 0", "batch size is 0"),
    ("bench --upto nothing", "unknown step 'nothing'"),
    ("plot nowhere", "there is no folder nowhere"),
    ("plot .", "holds no study"),
]


@pytest.mark.parametrize(("words", "sentence"), BAD, ids=[words for words, _ in BAD])
def test_bad_input_is_one_sentence_and_exit_code_2(words, sentence, tmp_path, monkeypatch, capsys):
    from roadmap import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["roadmap", *words.split()])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    shown = capsys.readouterr()
    assert stopped.value.code == 2
    assert sentence in shown.err and shown.err.startswith("roadmap: ") and shown.err.count("\n") == 1
    assert not shown.out and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("device: 3", "device is '3', but must be auto, cpu"),
        ("upto: ''", "upto is '', but must be text"),
        ("upto: 2020-13-45", "not valid YAML"),
        ('recipe: "a\\0b.yaml"', "must be text"),
        ("uptoo: gelu", "unknown setting of a study 'uptoo' (did you mean 'upto'?)"),
        ("name: a/b", "name is 'a/b', but must be a name that a folder can have"),
        ("upto: 3", "unknown step '3'"),
        ("epochs: lots", "epochs is 'lots'"),
        ("seeds: []", "seeds is []"),
        ("roads: maybe", "roads is 'maybe', but must be true or false"),
        ("compile: 1", "compile is 1"),
        ("a: b: c", "not valid YAML"),
    ],
)
def test_bad_study_files(tmp_path, text, sentence):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(RoadmapError) as caught:
        plan_networks(load_spec(path))
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"format": 99}',
        '{"format": 1}',
        '{"format": 2, "runs": 5}',
        '{"format": 2, "store": "x", "runs": [5]}',
    ],
)
def test_a_damaged_or_foreign_study_is_refused(tmp_path, content):
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(RoadmapError, match="study.json"):
        roadmap.load_study(tmp_path)


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    done = command("run", "--only", "gelu", "--epochs", "1", "--out", tmp_path)
    assert done.code == 2 and "is not empty and holds no study" in done.err
    assert contents(tmp_path) == {"thesis.tex": b"precious"}
