"""Studies on a Ray cluster and as Slurm jobs end as they end on this machine, also when nodes and processes die."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import sys
import time
from pathlib import Path

import commands
import pytest
from folders import make_image_folder

import roadmap
from roadmap.store.store import Store

#: Two runs, of some seconds each.
SMALL = "--only patchify_stem,layer_norm --seeds 1 --epochs 30 --width 4 --batch-size 16 --image-size 16".split()
#: Plain SGD: AdamW divides by the gradients' size, and makes much of the rounding of small ones.
RECIPE = """
epochs: 3
batch_size: 16
optimizer: sgd
lr: 0.05
lr_batch_size: 16
schedule: cosine
crop: shift
crop_pixels: 2
flip: true
stochastic_depth: 0.0
ema: 0.9
accumulate: 2
"""
TOGETHER = "--only layer_norm --seeds 1 --width 4 --image-size 16 --threads 1 --device cpu --recipe recipe.yaml".split()


HERE = ("--out", "study", "--store", "store")


def run(folder, *words):
    """`roadmap run` in a folder, which takes the study and the store."""
    shown = commands.call("run", *words, *HERE, cwd=folder)
    assert shown.code == 0, shown.out + shown.err


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder that takes the cache, too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    return tmp_path


def weights(folder):
    store = Store(folder / "store")
    return {name: (store.path(name) / "weights.safetensors").read_bytes() for name in store.signatures()}


def attempts(folder):
    store = Store(folder / "store")
    return {name: store.record(name)["origin"]["attempts"] for name in store.signatures()}


def wait_for(look):
    """What ``look`` returns as soon as it is something."""
    until = time.monotonic() + 200
    while not (found := look()):
        assert time.monotonic() < until, "it never came"
        time.sleep(0.02)
    return found


def at_work(folder):
    """Signature -> process number of the runs that have trained an epoch, and not yet half of them."""
    reports = Store(folder / "store").running()
    return {name: facts["pid"] for name, facts in reports.items() if 1 <= facts.get("epoch", 0) < 15}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return commands.once(tmp_path_factory, "images of engines", make_image_folder)


@pytest.fixture(scope="module")
def data(images):
    return ["--data", "folder", "--data-dir", images]


@pytest.fixture(scope="module")
def reference(data, tmp_path_factory):
    """Weights of the small study from this machine, one run after the other."""

    def make(folder):
        run(folder, *SMALL, *data, "--jobs", 1, "--threads", 1)

    return weights(commands.once(tmp_path_factory, "local", make))


# --- Ray


@pytest.fixture
def cluster(place):
    """A Ray cluster of two nodes of a CPU each, both on this machine's loopback interface."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "node_ip_address": "127.0.0.1"}
    made = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    made.add_node(**node)
    yield made
    made.shutdown()


def parent(pid):
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return None


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the node of a process in /proc")
def test_a_study_on_a_ray_cluster_survives_a_dying_node(cluster, data, reference, place):
    process = commands.start("run", *SMALL, *data, "--engine", "ray", "--address", cluster.address, *HERE, cwd=place)
    (node,) = cluster.worker_nodes
    raylet = node.all_processes["raylet"][0].process.pid

    def victim():
        assert process.poll() is None, process.communicate()
        return next((name for name, pid in at_work(place).items() if parent(pid) == raylet), None)

    name = wait_for(victim)
    cluster.remove_node(node, allow_graceful=False)
    shown = commands.end(process)
    assert shown.code == 0, shown.out + shown.err
    assert weights(place) == reference
    assert attempts(place) == dict.fromkeys(reference, 1) | {name: 2}
    assert [line.split()[0] for line in shown.out.splitlines() if line.startswith("[")] == ["[1/2]", "[2/2]"]
    assert not list((place / "store" / "partial").iterdir())


@pytest.mark.slow
def test_nodes_that_do_not_see_the_store_send_their_runs_back(images, reference, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    from roadmap.running.engines import ray as engine

    begin, adopt, adopted = engine.RayEngine._begin, engine._adopt, []

    def begin_out_of_sight(self, task):
        (Path(task.store) / "partial" / self._token).unlink()
        return begin(self, task)

    monkeypatch.setattr(engine.RayEngine, "_begin", begin_out_of_sight)
    monkeypatch.setattr(engine, "_adopt", lambda task, files: adopted.append(files) or adopt(task, files))
    study = roadmap.run(
        only=["layer_norm"], seeds=1, epochs=30, width=4, batch_size=16, image_size=16,
        data="folder", data_dir=str(images), engine="ray", jobs="1", out=tmp_path / "study", store=tmp_path / "store",
    )  # fmt: skip
    assert list(study.runs["status"]) == ["done"] and [len(files) for files in adopted] == [4]
    ((name, made),) = weights(tmp_path).items()
    assert made == reference[name] and Store(tmp_path / "store").verify(name) is None


# --- Slurm


@pytest.mark.slow
def test_a_study_as_slurm_jobs_survives_a_dying_job(data, reference, place):
    pytest.importorskip("submitit")
    killed = []

    def kill():
        name, pid = wait_for(lambda: next(iter(at_work(place).items()), None))
        os.kill(pid, signal.SIGKILL)
        killed.append(name)

    with commands.meanwhile(kill):
        run(place, *SMALL, *data, "--engine", "slurm", "--slurm", "cluster=local,time=30")
    assert weights(place) == reference
    assert attempts(place) == dict.fromkeys(reference, 1) | dict.fromkeys(killed, 2)
    assert not list((place / "store").rglob("*.pkl"))
    (exchange,) = (place / "cache" / "roadmap" / "slurm").iterdir()
    assert exchange.stat().st_mode & 0o777 == 0o700, "kept, for the dead job's log is there"


@pytest.mark.slow
def test_a_job_that_finds_other_images_says_so(images, tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    from roadmap.planning.spec import StudySpec
    from roadmap.running.engines import slurm
    from roadmap.running.preparing import prepare

    monkeypatch.setattr(slurm.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(slurm.signal, "signal", lambda *handler: None)
    other = make_image_folder(tmp_path / "other", train=12)
    spec = StudySpec(only=("layer_norm",), seeds=(0,), data="folder", data_dir=str(images), engine="slurm")
    study, store = prepare(spec), Store(tmp_path / "store")
    store.begin()
    for place, said in ((other, "holds other images"), (tmp_path / "nowhere", "there is no folder")):
        task = study.task(study.runs[0], store)
        task.origin.update({"command": "", "attempts": 1, "estimated_seconds": None})
        slurm.execute_job(task, spec.opened | {"directory": str(place)})
        assert said in store.record(study.runs[0].signature)["result"]["reason"]


def test_settings_of_slurm_reach_submitit(monkeypatch, tmp_path):
    submitit = pytest.importorskip("submitit")
    from roadmap.planning.spec import StudySpec
    from roadmap.running.engines import slurm

    monkeypatch.setattr(slurm.shutil, "which", lambda name: f"/bin/{name}")
    words = "partition=gpu,time=600,mem_gb=1.5,mem_per_cpu=2G,exclusive=true,setup=module load cuda"
    spec = StudySpec(engine="slurm", slurm=words, device="cuda", devices=4, num_nodes=2, threads=6)
    cluster, parameters = slurm.job_settings(spec)
    executor = submitit.AutoExecutor(tmp_path, cluster)
    executor.update_parameters(**parameters)
    script = executor._executor._make_submission_file_text("COMMAND", "")
    for line in (
        "partition=gpu", "time=600", "mem=1536MB", "mem-per-cpu=2G", "exclusive", "gpus-per-node=4", "nodes=2",
        "ntasks-per-node=4", "cpus-per-task=6", "job-name=roadmap",
    ):  # fmt: skip
        assert f"#SBATCH --{line}\n" in script, script
    assert "\nmodule load cuda\n" in script


@pytest.mark.parametrize(
    ("words", "settings", "gpus"),
    [
        ("partition=big", {}, 4),
        ("", {}, None),  # the partition that jobs go to has none
        ("partition=plain", {}, None),
        ("partition=big", {"device": "cpu"}, None),
        ("partition=big", {"gpus": 0}, None),
        ("partition=plain", {"device": "cuda"}, 4),
        ("partition=big,gres=gpu:a100:2", {}, None),  # as they say
    ],
)
def test_a_run_asks_slurm_for_a_gpu_where_its_partition_has_some(tmp_path, monkeypatch, words, settings, gpus):
    pytest.importorskip("submitit")
    from roadmap.planning.spec import StudySpec
    from roadmap.running.engines.slurm import job_settings

    table = {"plain": "plain* (null)", "big": "big (null)\\nbig gpu:a100:8(S:0-1)"}
    for name, script in {
        "sbatch": "", "srun": "",
        "sinfo": f'case "$*" in *--partition=plain*) printf "{table["plain"]}\\n";; *--partition=big*) '
                 f'printf "{table["big"]}\\n";; *) printf "{table["plain"]}\\n{table["big"]}\\n";; esac',
    }.items():  # fmt: skip
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    spec = StudySpec(**{"engine": "slurm", "slurm": words or None, "devices": 4, **settings})
    assert job_settings(spec)[1]["gpus_per_node"] == gpus


def test_without_an_answer_of_slurm_no_gpu_is_asked_for(monkeypatch, tmp_path):
    pytest.importorskip("submitit")
    from roadmap.planning.spec import StudySpec
    from roadmap.running.engines import slurm

    monkeypatch.setattr(slurm.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert slurm.job_settings(StudySpec(engine="slurm"))[1]["gpus_per_node"] is None


# --- several processes train one run


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    """The weights of a run that one process trained."""

    def make(folder):
        (folder / "recipe.yaml").write_text(RECIPE)
        run(folder, *TOGETHER, *data)

    return commands.once(tmp_path_factory, "alone", make)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "ray", "slurm"])
def test_two_processes_train_what_one_does(alone, data, place, engine):
    from safetensors.torch import load

    more = {"local": "--jobs 1", "ray": "--engine ray", "slurm": "--engine slurm --slurm cluster=local"}[engine]
    if engine != "local":
        pytest.importorskip({"ray": "ray", "slurm": "submitit"}[engine])
    (place / "recipe.yaml").write_text(RECIPE)
    run(place, *TOGETHER, *data, "--devices", 2, *more.split())
    (row,) = roadmap.load_study(place / "study").runs.itertuples()
    assert (row.status, row.devices, row.threads) == ("done", 2, 1)
    assert row.top1 == roadmap.load_study(alone / "study").runs["top1"][0]
    told = [Path(next((root / "store").glob("runs/*/correct.bits"))).read_bytes() for root in (alone, place)]
    assert told[0] == told[1]
    ((name, together),) = weights(place).items()
    one, two = load(weights(alone)[name]), load(together)
    worst = max(float((one[key] - two[key]).abs().max()) for key in one)
    assert worst < 3e-6  # 3e-7 measured: 12 steps, each of which rounds weights below 2 to 1e-7
    cache = place / "cache" / "roadmap" / "slurm"
    assert not cache.exists() or not list(cache.iterdir())


# --- what is refused


BAD = [
    ("--address auto", "--address is for --engine ray"),
    ("--engine ray --address 127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1"),
    ("--engine ray --address ray://127.0.0.1:1", "must be auto or HOST:PORT"),
    ("--slurm partition=gpu", "--slurm is for --engine slurm"),
    ("--engine slurm", "there is no Slurm"),
    ("--engine slurm --slurm cluster=debug", "slurm setting cluster is 'debug'"),
    ("--engine slurm --slurm cluster=local,partion=gpu", "unknown slurm setting 'partion' (did you mean 'partition'?)"),
    ("--engine slurm --slurm cluster=local,nodes=2", "is what --num-nodes says"),
    ("--engine slurm --slurm cluster=local,time=soon", "slurm setting time is 'soon'"),
    ("--engine slurm --slurm cluster=local --gpus 0.5", "Slurm hands out whole ones"),
    ("--engine slurm --slurm cluster=local --num-nodes 2", "needs Slurm"),
]


def refused(words, monkeypatch, capsys):
    """The one sentence that a command is refused with."""
    from roadmap import cli

    monkeypatch.setattr(sys, "argv", ["roadmap", "run", "--only", "layer_norm", *words.split()])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    shown = capsys.readouterr()
    assert stopped.value.code == 2 and not shown.out and commands.one_sentence(shown.err)
    return shown.err


@pytest.mark.parametrize(("words", "sentence"), BAD, ids=[words for words, _ in BAD])
def test_bad_input_is_one_sentence_and_exit_code_2(words, sentence, tmp_path, monkeypatch, capsys):
    if "--engine" in words:
        pytest.importorskip("ray" if "ray" in words else "submitit")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert sentence in refused(words, monkeypatch, capsys)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("engine", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_an_engine_without_its_package_says_how_to_get_it(engine, package, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == package else find(name, *more))
    said = refused(f"--engine {engine}", monkeypatch, capsys)
    assert f"--engine {engine} needs the package {package}: pip install 'roadmap-ablation[{engine}]'" in said
