"""Processes that work for this one, on machines as they are: what they import, and what surrounds them."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import pytest
from commands import end, start
from folders import make_image_folder

from roadmap import files, imports, provenance
from roadmap.checks import RoadmapError
from roadmap.data.batches import Batcher
from roadmap.files import temporary_folder, whole_file
from roadmap.imports import import_path
from roadmap.planning.reading import load_spec
from roadmap.processes import short_folder
from roadmap.running.preparing import prepare
from roadmap.running.work import execute
from roadmap.store.store import Store
from roadmap.training import fit

STUDY = "--only layer_norm --width 4 --image-size 16 --device cpu --threads 1 --jobs 1 --epochs 1".split()
ONE_RUN = "--seeds 1 --batch-size 8 --data folder --data-dir".split()
#: Names of modules, ours, of those we need, and of Python's own, that a user's folder may have.
NAMES = ("random", "numpy", "queue", "socket", "inspect", "tempfile", "torch", "yaml", "submitit")
#: What a Slurm or LSF job, torchrun, MPI and Kubeflow leave in the environment of the third of four processes.
CLUSTER = {
    "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_PROCID": "2", "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_NODELIST": "node[1-2]",
    "LSB_JOBID": "7", "LSB_DJOB_RANKFILE": "/nowhere/ranks", "JSM_NAMESPACE_RANK": "2", "JSM_NAMESPACE_SIZE": "4",
    "RANK": "2", "LOCAL_RANK": "1", "GROUP_RANK": "1", "NODE_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2",
    "TORCHELASTIC_RUN_ID": "7", "TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_ADDR": "10.255.255.1",
    "MASTER_PORT": "1", "OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "4", "PMI_RANK": "2",
    "KUBERNETES_PORT": "tcp://10.0.0.1:443",
}  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return make_image_folder(tmp_path_factory.mktemp("images"), train=16, size=(20, 16))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def hostile(tmp_path):
    """A folder whose modules end every process that imports one."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text(f"raise SystemExit('imported {name} of the working directory')\n")
    for name in ("timm", "multiprocessing", "pytorch_lightning"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(f"raise SystemExit('imported {name} of the working directory')\n")
    return folder


@pytest.mark.parametrize("devices", ["1", "2"])
def test_a_study_where_folder_temporary_folder_and_environment_are_against_it(hostile, images, tmp_path, devices):
    long = tmp_path / ("t" * 140)
    long.mkdir()
    surroundings = os.environ | CLUSTER | {"TMPDIR": str(long), "PYTHONPATH": os.pathsep}
    command = ["run", *STUDY, *ONE_RUN, images, "--devices", devices, "--logger", "csv", "--out", "results/layer_norm"]
    code, _, errors = end(start(*command, cwd=hostile, env=surroundings))
    assert code == 0, errors
    store = Store(hostile / "results" / "store")
    (record,) = (store.record(signature) for signature in store.signatures())
    assert record["result"]["status"] == "done" and record["environment"]["devices"] == int(devices)
    assert record["origin"]["source"] == provenance.source()
    assert list(hostile.glob("results/layer_norm/logs/**/metrics.csv"))


def test_jobs_of_submitit_do_not_import_from_the_working_directory(hostile, images, tmp_path):
    command = ["run", *STUDY, *ONE_RUN, images, "--engine", "slurm", "--slurm", "cluster=local"]
    code, _, errors = end(start(*command, cwd=hostile, env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}))
    assert code == 0, errors


NOTEBOOK = """
import json, os, pkgutil, sys
import roadmap, roadmap.processes
os.chdir(sys.argv[1])
sys.path[0] = ""  # as Jupyter has it
sys.path.insert(1, sys.argv[2])
before = list(sys.path), dict(os.environ), os.getcwd()
tell = lambda name: roadmap.processes.in_clean_process(pkgutil.resolve_name, name)
print(json.dumps([tell("timm:__file__"), tell("chosen:__file__"), tell("helpers:__file__")]))
assert before == (sys.path, dict(os.environ), os.getcwd()) and tell("roadmap:__file__") == roadmap.__file__
"""


def test_a_notebooks_processes_import_what_it_chose_and_its_own_folder_last(hostile, tmp_path):
    chosen = tmp_path / "chosen-by-the-user"
    for folder, name in ((chosen, "chosen"), (hostile, "helpers"), (hostile, "chosen")):
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.py").touch()
    (hostile / "roadmap").mkdir()
    (hostile / "roadmap" / "__init__.py").write_text("raise SystemExit('another roadmap')\n")
    words = [sys.executable, "-c", NOTEBOOK, hostile, chosen]
    told = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    timm = find_spec("timm").origin
    assert json.loads(told.stdout) == [timm, str(chosen / "chosen.py"), str(hostile / "helpers.py")]


def test_the_path_of_workers(tmp_path, monkeypatch):
    here, other, package = tmp_path / "here", tmp_path / "other", tmp_path / "package"
    for folder in (here, other / "roadmap", package / "roadmap"):
        folder.mkdir(parents=True)
    for folder in (other, package):
        (folder / "roadmap" / "__init__.py").touch()
    here, other, package = map(str, (here, other, package))
    monkeypatch.chdir(here)
    monkeypatch.setattr(imports, "PACKAGE", f"{package}/roadmap")

    def path(entries, told=None):
        monkeypatch.setattr(sys, "path", entries)
        monkeypatch.setenv("PYTHONPATH", told or "")
        return import_path()

    assert path(["", "/lib", package]) == ["/lib", package, here]
    assert path([here, "/lib", package], f":{other}") == ["/lib", package, here]
    assert path([".", "/lib", package], ".") == ["/lib", package, here]
    assert path(["/bin", here, "/lib", package], f"{here}:") == ["/bin", here, "/lib", package]
    assert path(["/bin", "/lib", package]) == ["/bin", "/lib", package]
    assert path(["/lib", other]) == ["/lib", package, other]  # the package that is at work is that of its processes
    assert path(["", "/lib"]) == ["/lib", here, package]
    monkeypatch.chdir(package)  # an unpacked package, from its own folder
    assert path(["", "/lib"]) == ["/lib", package]
    assert path(["", "/lib", other]) == ["/lib", package, other]


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_temporary_folder_that_cannot_be_used_is_named(tmp_path, monkeypatch, kind):
    place = tmp_path / kind
    if kind == "file":
        place.touch()
    monkeypatch.setenv("TMPDIR", str(place))
    with pytest.raises(RoadmapError, match=f"TMPDIR names {place}, but there is no such folder"):
        temporary_folder()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda folder, mode: False)
    with pytest.raises(RoadmapError, match=f"TMPDIR names {tmp_path}, but that folder cannot be written"):
        temporary_folder()


def test_a_long_path_of_the_temporary_folder_has_a_short_one_in_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert short_folder(len(str(tmp_path))) == str(tmp_path)
    assert short_folder(len(str(tmp_path)) - 1) == "/tmp"
    with pytest.raises(RoadmapError, match="too long a path: TMPDIR names another"):
        short_folder(3)


def test_writers_with_one_process_id_do_not_meet(tmp_path, monkeypatch):
    """As two containers have it, in which every process is number 1."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with whole_file(tmp_path / "a.txt") as one, whole_file(tmp_path / "a.txt") as two:
        one.write_text("one")
        two.write_text("two")
        assert one != two
    assert (tmp_path / "a.txt").read_text() == "one" and names(tmp_path) == ["a.txt"]
    for number in range(20):
        store = Store(tmp_path / f"store-{number}")
        with ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(store.begin) for _ in range(8)]:
                done.result()
        assert names(store.folder) == ["locks", "partial", "runs", "store.json"]


def test_a_small_shared_memory_is_named_and_not_the_store(images, tmp_path):
    words = ["run", *STUDY, *ONE_RUN, images, *"--loading stream --workers 1 --retries 0 --image-size 64".split()]
    words = [sys.executable, "-m", "roadmap", *map(str, words)]
    mount = 'mount -t tmpfs -o size=64k tmpfs /dev/shm || exit 77; exec "$@"'
    told = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "sh", *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    if told.returncode == 77 or "unshare" in told.stderr:
        pytest.skip("may not mount here")
    assert told.returncode == 1, told.stderr
    store = Store(tmp_path / "results" / "store")
    (record,) = (store.record(signature) for signature in store.signatures())
    assert "shared memory (/dev/shm" in record["result"]["reason"] and "--shm-size" in record["result"]["reason"]
    assert record["result"]["retry"] and "cannot be written" not in told.stdout + told.stderr


@pytest.fixture(scope="module")
def study():
    return prepare(
        load_spec(None, only="patchify_stem", seeds=1, width=4, image_size=16, device="cpu", threads=1, epochs=2)
    )


def outcome(study, folder):
    store = Store(folder)
    store.begin()
    origin = {"command": "a test", "attempts": 1, "estimated_seconds": None}
    task = dataclasses.replace(study.task(study.runs[0], store), origin=origin)
    return execute(task, study.data), store.record(task.run.signature)


@pytest.mark.parametrize(
    "error, sentence",
    [
        (OSError(errno.ENOSPC, "No space left on device", "/somewhere"), "the disk is full"),
        (OSError(errno.EMFILE, "Too many open files"), "too many open files"),
        (RuntimeError("unable to write to file </torch_1_2>: No space left on device (28)"), "No space left on device"),
    ],
    ids=["disk", "files", "library"],
)
def test_an_error_is_the_stores_where_it_arose_there(study, tmp_path, monkeypatch, error, sentence):
    def fail(*arguments, **options):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(fit.TaskModule, "training_step", fail)
        done, record = outcome(study, tmp_path / "in-training")
        assert done.kind == "finished" and record["result"]["status"] == "failed"
        assert sentence in record["result"]["reason"]
    with monkeypatch.context() as patched:
        patched.setattr("roadmap.network.weights.save_weights", fail)
        done, record = outcome(study, tmp_path / "in-store")
        assert done.kind == "storage" and sentence in done.reason
        assert record is None and "[Errno" not in done.reason
    with monkeypatch.context() as patched:
        patched.setattr(fit, "CHECKPOINT_INTERVAL", 0.0)
        patched.setattr(fit.pl.Trainer, "save_checkpoint", fail)
        done, record = outcome(study, tmp_path / "at-a-checkpoint")
        assert done.kind == "storage" and record is None and "[Errno" not in done.reason


def test_loaders_that_the_system_ends_for_want_of_shared_memory(study):
    killed = RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that ...")

    def batches():
        yield 1, 2
        raise RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly") from killed

    loaded = Batcher(study.data, study.runs[0].recipe, 0).training(0)
    loaded.source, loaded.mix = batches(), None
    with pytest.raises(MemoryError, match="--shm-size"):
        list(loaded)
