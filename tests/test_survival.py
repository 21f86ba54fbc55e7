"""A study survives whatever happens to it: it is killed, damaged, stopped, crowded and starved, and ends all the same.

"Equal" means: the same bytes of weights for every run as in a study that was never disturbed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pickle
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from commands import call, end, meanwhile, once, one_sentence, start
from folders import make_image_folder

from roadmap.planning.reading import load_spec
from roadmap.running.display import PlainDisplay
from roadmap.running.engines.local import LocalEngine, Place
from roadmap.running.preparing import prepare
from roadmap.running.runner import run_study
from roadmap.running.task import Outcome
from roadmap.running.work import execute
from roadmap.store.store import Store

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kills by Linux's means")

#: Everything random that a recipe has; some seconds a run.
RECIPE = """
epochs: 12
batch_size: 8
lr: 0.004
warmup_epochs: 1
label_smoothing: 0.1
mixup: 0.8
cutmix: 1.0
crop: shift
flip: true
randaugment: rand-m9-mstd0.5-inc1
random_erasing: 0.25
stochastic_depth: 0.1
clip_gradient: 1.0
"""
STUDY = "--only patchify_stem,layer_norm --seeds 2 --width 4 --image-size 16 --device cpu --threads 1 --jobs 2".split()
STUDY += ["--workers", "1"]
RUNS = 4
LITTLE = 120_000  # bytes: more than the data and a record, less than the weights


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A folder with all that the study needs."""

    def make(folder):
        make_image_folder(folder / "images", train=16, size=(20, 16))
        (folder / "everything.yaml").write_text(RECIPE)

    return once(tmp_path_factory, "given", make)


@pytest.fixture(scope="module")
def reference(given, tmp_path_factory):
    """The folder of the study, undisturbed, of a user who shows others nothing."""

    def make(folder):
        code, _, errors = end(start(*study(given, folder), umask=0o077))
        assert code == 0, errors
        assert len(weights(folder / "store")) == RUNS

    return once(tmp_path_factory, "undisturbed", make)


@pytest.fixture
def mounted(tmp_path):
    """A function that mounts a file system of some bytes, and later takes it away."""
    folder = tmp_path / "mounted"
    folder.mkdir()

    def mount(options):
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip("may not mount here")
        return folder

    yield mount
    subprocess.run(["umount", "-l", folder], capture_output=True, check=False)


def study(given, folder, *more):
    """Words of the command."""
    words = ["run", *STUDY, "--recipe", given / "everything.yaml", "--data", "folder", "--data-dir", given / "images"]
    return [str(word) for word in [*words, "--out", folder / "table", "--store", folder / "store", *more]]


def weights(store):
    return {path.parent.name: path.read_bytes() for path in store.glob("runs/*/weights.safetensors")}


def identities(store):
    """What changes when a run is finished anew."""
    return {path.parent.name: path.stat().st_ino for path in store.glob("runs/*/run.json")}


def assert_equal(folder, reference):
    assert weights(folder / "store") == weights(reference / "store")
    assert not list((folder / "store" / "partial").iterdir())
    table = pd.read_csv(folder / "table" / "trajectory.csv")
    assert list(table["status"]) == ["done"] * RUNS
    scores = pd.read_csv(reference / "table" / "trajectory.csv")
    assert list(table["top1"]) == list(scores["top1"]) and list(table["loss"]) == list(scores["loss"])


def alive(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def at_work(store, count=2, epoch=2):
    """Signature -> progress of ``count`` runs or more that living workers train, some epochs on; waits for it."""

    def look():
        reports = {name: Store(store).progress(name) for name in Store(store).running()}
        found = {name: report for name, report in reports.items() if report and alive(report["pid"])}
        return {name: report for name, report in found.items() if report["epoch"] >= epoch}

    return wait_until(lambda: len(look()) >= count and look())


def wait_until(condition, seconds=120):
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "it did not come to that"
        time.sleep(0.02)
    return found


# --- processes die


def test_killed_workers_and_a_killed_runner(given, reference, tmp_path):
    words, store = study(given, tmp_path), tmp_path / "store"
    runner = start(*words)
    first, second = at_work(store)
    Store(store).ask_to_stop(first)  # so that there is a checkpoint
    wait_until(lambda: (store / "partial" / first / "epoch.ckpt").exists())
    os.kill(at_work(store)[second]["pid"], signal.SIGKILL)
    wait_until(lambda: identities(store))
    workers = [report["pid"] for report in at_work(store, count=1).values()]
    runner.kill()
    finished = identities(store)
    assert "died: its process was ended by signal SIGKILL" in runner.communicate()[0]
    wait_until(lambda: not any(map(alive, workers)))
    code, output, errors = call(*words)
    assert code == 0, errors
    assert output.count("was there already") >= len(finished) > 0
    assert finished.items() <= identities(store).items()
    assert_equal(tmp_path, reference)


def test_without_retries_a_dead_run_is_named_and_the_rest_go_on(given, reference, tmp_path):
    words, store, victim = study(given, tmp_path, "--retries", "0"), tmp_path / "store", None

    def kill_one():
        nonlocal victim
        victim, report = next(iter(at_work(store).items()))
        os.kill(report["pid"], signal.SIGKILL)

    with meanwhile(kill_one):
        code, _, errors = call(*words)
    assert code == 1 and "1 of 4 runs failed" in errors and f"({victim}): died: its process was ended" in errors
    assert sorted(Store(store).signatures()) == sorted(weights(reference / "store"))
    before = identities(store)
    code, output, errors = call(*words)
    assert code == 0 and output.count("was there already") == 3, errors
    assert {name for name, identity in identities(store).items() if before[name] != identity} == {victim}
    assert_equal(tmp_path, reference)


# --- somebody stops it


def test_ctrl_c_once_and_twice_and_a_request_to_terminate(given, reference, tmp_path):
    store, bomb = tmp_path / "store", tmp_path / "it went off"

    def stopped(shown):
        code, _, errors = shown
        assert code == 130 and "Traceback" not in errors and not identities(store)
        return shlex.split(errors.partition("To continue: roadmap ")[2])

    def saved():
        return sorted(store.glob("partial/*/epoch.ckpt"))

    runner = start(*study(given, tmp_path))
    at_work(store)
    os.killpg(runner.pid, signal.SIGINT)  # as a terminal does
    again = stopped(end(runner))
    assert len(saved()) == 2 and again[-1] == "--resume"
    saved()[0].write_bytes(saved()[0].read_bytes()[:-5000])  # one is cut off

    def terminate():
        at_work(store, epoch=1)  # the one goes on where it was, the other begins anew
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        os.kill(os.getpid(), signal.SIGTERM)

    with meanwhile(terminate):
        again = stopped(call(*again))
    assert len(saved()) == 2
    saved()[0].write_bytes(b"")
    saved()[1].write_bytes(pickle.dumps(Bomb(str(bomb))))

    runner = start(*again)
    at_work(store, epoch=1)
    os.killpg(runner.pid, signal.SIGINT)
    os.killpg(runner.pid, signal.SIGINT)
    again = stopped(end(runner))

    code, _, errors = call(*again)
    assert code == 0, errors
    assert not bomb.exists()
    assert_equal(tmp_path, reference)


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


# --- the disk


def test_files_that_cannot_be_written_and_then_three_at_once(given, reference, tmp_path):
    words, store = study(given, tmp_path), tmp_path / "store"
    limited = start(*words, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (LITTLE, LITTLE)))
    code, _, errors = end(limited)
    assert code == 2 and one_sentence(errors) and "File too large" in errors, errors
    assert not list((store / "runs").iterdir())

    elsewhere = [word.replace(str(tmp_path / "table"), str(tmp_path / "other")) for word in words]
    runners, seen = [start(*words), start(*elsewhere)], set()

    def watch():
        while len(identities(store)) < RUNS or any(runner.poll() is None for runner in runners):
            with contextlib.suppress(FileNotFoundError):
                seen.update(identities(store).items())
            time.sleep(0.02)

    at_work(store, count=1)
    with meanwhile(watch):
        third = call(*words)
    for code, output, errors in (third, *map(end, runners)):
        assert code == 0 and "[4/4]" in output, errors
    assert len(seen) == RUNS, "a run was trained twice"
    assert_equal(tmp_path, reference)
    assert (tmp_path / "other" / "trajectory.csv").read_bytes() == (tmp_path / "table" / "trajectory.csv").read_bytes()


def test_a_full_disk(given, reference, mounted, tmp_path):
    folder = mounted("size=600k")
    words = study(given, folder)
    code, _, errors = call(*words)
    assert code == 2 and one_sentence(errors) and "No space left on device" in errors, errors
    finished = identities(folder / "store")
    assert all(Store(folder / "store").verify(name) is None for name in finished)
    mounted("remount,size=64m")
    code, _, errors = call(*words)
    assert code == 0, errors
    assert finished.items() <= identities(folder / "store").items()
    assert_equal(folder, reference)


@pytest.mark.parametrize("what", ["store", "table"])
def test_a_folder_that_may_only_be_read(given, mounted, tmp_path, what):
    readable = tmp_path / "readable"
    if os.geteuid() == 0:
        readable = mounted("ro")
    else:
        readable.mkdir(mode=0o555)
    words = study(given, tmp_path)
    words[words.index(str(tmp_path / what))] = str(readable / what)
    code, _, errors = call(*words)
    assert code == 2 and one_sentence(errors)
    assert not list(readable.iterdir())


def test_files_are_for_the_user_alone_where_the_umask_says_so(reference):
    assert all(path.stat().st_mode & 0o077 == 0 for path in reference.rglob("*"))


@pytest.mark.parametrize("share", [0.5, 0.0])
def test_finished_runs_that_lost_a_part_are_trained_again(given, reference, tmp_path, share):
    shutil.copytree(reference, tmp_path, dirs_exist_ok=True)
    store = tmp_path / "store"
    before = identities(store)
    damaged = dict(zip(sorted(before), ["run.json", "history.csv", "weights.safetensors"], strict=False))
    for name, file in damaged.items():
        path = store / "runs" / name / file
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    code, output, errors = call(*study(given, tmp_path))
    assert code == 0 and output.count("was there already") == RUNS - len(damaged), errors
    for name, file in damaged.items():
        assert f"{name}/{file} is cut off or overwritten: it is trained again" in output
    changed = {name for name, identity in identities(store).items() if identity != before[name]}
    assert changed == set(damaged)
    assert_equal(tmp_path, reference)


def test_edited_records_reach_nothing_outside_and_pickles_are_never_run(given, reference, tmp_path):
    shutil.copytree(reference, tmp_path, dirs_exist_ok=True)
    store, bomb = tmp_path / "store", tmp_path / "it went off"
    first, second, third, _ = sorted(identities(store))
    precious = tmp_path / "precious"
    precious.write_text("precious")
    record = json.loads((store / "runs" / first / "run.json").read_text())
    record["files"]["../../../precious"] = {"bytes": precious.stat().st_size, "sha256": ""}
    (store / "runs" / first / "run.json").write_text(json.dumps(record))
    shutil.copy(store / "runs" / first / "run.json", store / "runs" / second / "run.json")
    (store / "runs" / third / "weights.safetensors").write_bytes(pickle.dumps(Bomb(str(bomb))))
    code, output, errors = call(*study(given, tmp_path))
    assert code == 0 and output.count("it is trained again") == 3, errors
    assert precious.read_text() == "precious" and not bomb.exists()
    assert_equal(tmp_path, reference)

    asked = json.loads((tmp_path / "table" / "study.json").read_text())
    asked["runs"][0]["signature"] = "../../precious"
    (tmp_path / "table" / "study.json").write_text(json.dumps(asked))
    for words in (study(given, tmp_path), ["plot", str(tmp_path / "table")]):
        code, _, errors = call(*words)
        assert code == 2 and one_sentence(errors), errors
    assert precious.read_text() == "precious"


# --- runs that cannot succeed


def test_a_diverged_run_is_tried_again_only_when_asked_for(given, tmp_path):
    words = study(given, tmp_path, *"--recipe quick --seeds 1 --batch-size 8 --lr 999".split())
    words[words.index(STUDY[1])] = "gelu"
    seen = []
    for more in ([], [], ["--retrain", "failed"]):
        code, _, errors = call(*words, *more)
        assert code == 1 and "1 of 1 runs failed" in errors and "diverged: training loss is" in errors
        seen.append(identities(tmp_path / "store"))
    assert seen[0] == seen[1] != seen[2]


def short_of_memory(task, data):
    """`execute`, where layer_norm with seed 0 has memory enough at its second try, and with seed 1 never.

    Notes of each try what is at work beside it, and how many workers there are.
    """
    if task.run.step == "layer_norm":
        beside = len(Store(task.store).running())
        with Path(task.store, ".tries").open("a") as tries:
            workers = Path(f"/proc/{os.getppid()}/task/{os.getppid()}/children").read_text().split()
            print(task.run.seed, task.origin["attempts"], beside, len(workers), file=tries)
        if task.run.seed == 1 or task.origin["attempts"] == 1:
            return Outcome("memory", "no room")
        time.sleep(2)  # anything beside it would show
        assert not Store(task.store).running()
    return execute(task, data)


def test_a_run_without_memory_is_tried_alone_then_recorded(given, reference, tmp_path, capsys):
    names = {"only": "layer_norm,patchify_stem", "recipe": str(given / "everything.yaml"), "data": "folder"}
    spec = load_spec(None, **names, data_dir=str(given / "images"), seeds=2, width=4, image_size=16, device="cpu",
                     threads=1, jobs="2", workers=1)  # fmt: skip
    asked = prepare(spec)
    asked = dataclasses.replace(asked, runs=sorted(asked.runs, key=lambda run: (run.seed, run.step != "patchify_stem")))
    store = Store(tmp_path / "store")
    engine = LocalEngine(asked.data, [Place("cpu", 1), Place("cpu", 1)], work=short_of_memory)
    run_study(asked, tmp_path / "table", store, False, PlainDisplay(), "a test", engine=engine)
    assert "out of memory: no room; try 2 of 3, with nothing beside it" in capsys.readouterr().out
    tries = [tuple(map(int, line.split())) for line in (store.folder / ".tries").read_text().splitlines()]
    assert sorted((seed, attempt) for seed, attempt, *_ in tries) == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert [rest for _, attempt, *rest in tries if attempt == 2] == [[0, 1], [0, 1]], "all alone"
    records = {(run.step, run.seed): store.record(run.signature)["result"] for run in asked.runs}
    failed = records.pop(("layer_norm", 1))
    assert (failed["status"], failed["reason"]) == ("failed", "out of memory: no room")
    assert {result["status"] for result in records.values()} == {"done"}
    code, output, errors = call(*study(given, tmp_path))
    assert code == 0 and output.count("was there already") == 3, errors
    assert_equal(tmp_path, reference)
