"""GPUs that fail, are shared, are timed and are asked for: what no CPU has is faked, the rest is the program's own."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from commands import call
from folders import make_image_folder

from roadmap import RoadmapError
from roadmap.data.batches import Batcher
from roadmap.data.sources import open_data
from roadmap.planning.reading import load_spec
from roadmap.processes import prepare_processes
from roadmap.recipes.recipe import Recipe
from roadmap.running import estimate
from roadmap.running.engines.local import LocalEngine, Place
from roadmap.running.preparing import prepare
from roadmap.running.task import Outcome
from roadmap.store.store import Store
from roadmap.training.device import is_memory_error, resolve_device
from roadmap.training.module import TaskModule
from roadmap.training.rehearsal import Rehearsed, rehearse
from roadmap.training.spec import Execution

SMALL = {"only": "layer_norm", "width": 4, "image_size": 16, "batch_size": 16, "epochs": 2, "threads": 1}
CARDS = "GPU-aa,GPU-bb, GPU-cc,GPU-dd,MIG-ee,5,6,7,-1,9"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return str(make_image_folder(tmp_path_factory.mktemp("images"), train=16))


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "store")
    made.begin()
    return made


@pytest.fixture(scope="module")
def planned(images):
    return prepare(load_spec(**SMALL, seeds=30, data="folder", data_dir=images, device="cpu"))


@pytest.fixture
def on(planned, monkeypatch):
    """A study of so many seeds as it is prepared where there are some NVIDIA cards, or one of Apple's."""

    def make(where="cuda:0", cards=1, seeds=2, **settings):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
        whole = SimpleNamespace(total_memory=80 * 2**30)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda card: whole)
        spec = dataclasses.replace(planned.spec, **{"device": "auto", "seeds": seeds, **settings})
        return dataclasses.replace(planned, spec=spec, device=where, runs=planned.runs[:seeds])

    return make


# --- memory


def chained(*links):
    """The last of these errors, each of which led to the next."""
    for cause, error in itertools.pairwise(links):
        error.__cause__ = cause
    return links[-1]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of"),
        torch.cuda.OutOfMemoryError(""),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("Unable to find a valid cuDNN algorithm to run convolution"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("MPS backend out of memory (MPS allocated: 8.99 GB, max allowed: 9.07 GB)"),
        RuntimeError("Invalid buffer size: 14.90 GB"),
        RuntimeError("NCCL error: unhandled cuda error, Cuda failure 2 'out of memory'"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 68719476736 bytes."),
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        chained(RuntimeError("CUDA error: out of memory"), ValueError("a step"), RuntimeError("backend failed")),
    ],
    ids=lambda error: f"{type(error).__name__} {error}"[:50],
)
def test_memory_that_ran_out_is_recognised(error):
    assert is_memory_error(error)
    wrapped = RuntimeError("while training")
    wrapped.__context__ = error  # raised while the other was handled
    assert is_memory_error(wrapped)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
        RuntimeError("DataLoader worker (pid 5) is killed by signal: Bus error. out of shared memory."),
        OSError(errno.ENOSPC, "No space left on device"),
        RoadmapError("/data/out of memory/cat.png cannot be read"),
    ],
    ids=lambda error: f"{type(error).__name__} {error}"[:50],
)
def test_other_errors_are_none_of_memory(error):
    assert not is_memory_error(error)


# --- workers


@dataclasses.dataclass(frozen=True)
class Asked:
    """A task of these tests: each rank answers what stands for it, after so many seconds."""

    answers: tuple[object, ...] = ("pid",)
    seconds: tuple[float, ...] = (0.0,)
    execution: Execution = Execution()


def answer(task, data):
    rank = int(os.environ.get("RANK", 0))
    time.sleep(task.seconds[rank])
    said = task.answers[rank]
    return os.getpid() if said == "pid" else os.environ.get(said) if isinstance(said, str) else said


def ended(engine, count=1):
    """What comes out of tasks that were submitted."""
    found, until = [], time.monotonic() + 100
    while len(found) < count:
        assert time.monotonic() < until, "it was never heard"
        found += [outcome for _, outcome in engine.wait(1.0)]
    return found


@pytest.fixture(scope="module")
def data(images):
    return open_data("folder", images, image_size=16)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_worker_is_replaced_after_an_error_and_ended_where_it_would_hold_memory(data):
    dead = Outcome("finished", "RuntimeError: CUDA error: device-side assert triggered")
    with LocalEngine(data, [Place("cpu", 1)] * 2, work=answer) as engine:
        pids = []
        for task in (Asked(), Asked(), Asked((dead,)), Asked(), Asked((Outcome("memory", "no room"),)), Asked()):
            engine.submit(task)
            pids += [said for said in ended(engine) if isinstance(said, int)]
        assert pids[0] == pids[1] and len(set(pids)) == 3, "one process until something goes wrong"
        engine.submit(Asked(seconds=(0.5,)))
        engine.submit(Asked(seconds=(0.5,)))
        both = ended(engine, 2)
        assert len(set(both)) == 2 and all(map(alive, both))
        engine.submit(Asked(seconds=(1.0,)))
        engine.end_idle()
        assert sum(map(alive, both)) == 1, "the one at work goes on"
        assert ended(engine) == [next(pid for pid in both if alive(pid))]
        engine.end_idle()
        assert not any(map(alive, both))


@pytest.mark.parametrize(
    ("answers", "seconds"),
    [
        ((Outcome("finished"), Outcome("failed", "the reason")), (90.0, 0.0)),  # the first one waits for it
        ((Outcome("died", "gloo: connection closed"), Outcome("failed", "the reason")), (0.0, 0.5)),
        ((Outcome("finished", "the reason"), Outcome("finished")), (0.0, 90.0)),  # the others wait for the first
    ],
    ids=["another fails", "it is lost first", "the first fails"],
)
def test_whichever_process_of_a_run_fails_says_why(data, answers, seconds):
    begun = time.monotonic()
    with LocalEngine(data, [Place("cpu", 1)], processes=2, work=answer) as engine:
        engine.submit(Asked(answers, seconds))
        (outcome,) = ended(engine)
    assert outcome.reason == "the reason" and time.monotonic() - begun < 60


FAILS = """
import os
from torch import nn
from roadmap.network.layers import layer


class Fails(nn.Identity):
    def forward(self, x):
        if self.training and os.environ.get("RANK") == "1":
            raise RuntimeError("CUDA error: device-side assert triggered")
        return x


@layer("fails", place="branch", why="Fails in the second process.")
def build(site):
    return Fails()
"""


def test_a_run_that_fails_in_its_second_process_is_recorded_with_its_reason(images, tmp_path):
    (tmp_path / "fails.py").write_text(FAILS)
    words = "run --design one-at-a-time --base separate_downsample --steps fails --epochs 1 --width 4 --depth 0.34"
    words = [*words.split(), *"--image-size 16 --batch-size 16 --threads 1 --seeds 1 --jobs 1 --device cpu".split()]
    words += ["--devices", 2, "--plugin", tmp_path / "fails.py", "--data", "folder", "--data-dir", images]
    shown = call(*words, "--store", tmp_path / "store", "--out", tmp_path / "study", "--retries", 1)
    assert shown.code == 1, shown.out + shown.err
    kept = Store(tmp_path / "store")
    results = [kept.record(name)["result"] for name in kept.signatures()]
    assert sorted(result["status"] for result in results) == ["done", "failed"]
    (failed,) = (result for result in results if result["status"] == "failed")
    assert failed["reason"] == "error: RuntimeError: CUDA error: device-side assert triggered"


# --- cards


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [("0", "1", "2", "3"), ("4", "5", "6", "7")]),
        (CARDS, [("GPU-aa", "GPU-bb", "GPU-cc", "GPU-dd"), ("MIG-ee", "5", "6", "7")]),
    ],
)
def test_runs_on_several_cards_each_have_cards_of_their_own(on, store, data, monkeypatch, visible, expected):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    study = on(cards=8, devices=4, seeds=5)
    places = estimate.local_places(study, store)
    assert [place.cards for place in places] == expected and {place.device for place in places} == {"cuda"}
    asked = on(cards=8, devices=4, seeds=5, jobs=3)
    assert [place.cards for place in estimate.local_places(asked, store)] == [*expected, expected[0]]
    assert len(estimate.local_places(on(cards=8, devices=4, seeds=1), store)) == 1
    with pytest.raises(RoadmapError, match="--devices is 4, but this machine has 2"):
        estimate.local_places(on(cards=2, devices=4), store)
    with LocalEngine(data, places, work=answer) as engine:
        for _ in places:
            engine.submit(Asked(("CUDA_VISIBLE_DEVICES",), (0.3,)))
        assert sorted(ended(engine, 2)) == sorted(",".join(cards) for cards in expected)


def rehearsed(jobs, best, memory=2**30):
    """What ``jobs`` runs side by side come to where throughput grows up to ``best`` of them."""
    return [Rehearsed(1.0, jobs / min(jobs, best), 0.1, memory, 16)] * jobs


def test_how_many_runs_share_a_card_is_measured_again_for_a_study_that_may_gain_by_more(on, store, monkeypatch):
    tried = []

    def measure(study, runs, where):
        tried.append(len(runs))
        return rehearsed(len(runs), best=4)

    monkeypatch.setattr(estimate, "_rehearse", measure)
    for seeds, expected, measured in ((2, 2, [1, 2]), (2, 2, []), (9, 4, [1, 2, 3, 4, 6]), (30, 4, []), (3, 3, [])):
        tried.clear()
        assert len(estimate.local_places(on(seeds=seeds), store)) == expected
        assert tried == measured


@pytest.mark.parametrize("kind", ["failed", "died", "memory"])
@pytest.mark.parametrize("most", [0, 2])
def test_a_failed_probe_means_that_fewer_runs_share_the_card(on, store, monkeypatch, kind, most):
    def measure(study, runs, where):
        failed = [Outcome(kind, "no room")] if len(runs) > most else []
        return rehearsed(len(runs), best=16)[len(failed) :] + failed

    monkeypatch.setattr(estimate, "_rehearse", measure)
    assert len(estimate.local_places(on(seeds=9), store)) == max(1, most)


def test_runs_on_an_apple_gpu_go_one_by_one_in_processes_that_were_not_forked(on, store, monkeypatch):
    assert len(estimate.local_places(on("mps", seeds=9), store)) == 1
    assert len(estimate.local_places(on("mps", seeds=9, jobs=3), store)) == 3
    monkeypatch.setattr("sys.platform", "darwin")
    assert prepare_processes().get_start_method() == "spawn"


def test_an_apple_gpu_is_waited_for_and_trains_alone(monkeypatch):
    from roadmap.accelerator import synchronize

    waited = []
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: waited.append(str(device)))
    for device in ("mps", "cuda:1", "cpu"):
        synchronize(torch.device(device))
    assert waited == ["mps", "cuda:1"]
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device(Execution("mps")).type == "mps"
    with pytest.raises(RoadmapError, match="an Apple GPU trains a run alone"):
        resolve_device(Execution("mps", devices=2))


def test_the_padding_that_metal_has_instead_cuts_the_same_images(data, monkeypatch):
    sample = torch.nn.functional.grid_sample

    def cuts(padding):
        monkeypatch.setattr(torch.nn.functional, "grid_sample",
                            lambda *words, **more: sample(*words, **{**more, "padding_mode": padding}))  # fmt: skip
        batcher = Batcher(data, Recipe("test", batch_size=16, crop="resized", crop_scale=(0.5, 1.0), flip=True), seed=0)
        return torch.cat([images for images, _ in batcher.training(0)])

    assert (cuts("border") - cuts("reflection")).abs().max() < 1e-4
    assert (cuts("zeros") - cuts("reflection")).abs().max() > 0.1


@pytest.mark.parametrize(
    ("capability", "precision", "refused"),
    [((7, 5), "bf16-mixed", True), ((7, 5), "16-mixed", False), ((8, 0), "bf16-mixed", False), ((9, 0), "32", False)],
)
def test_bf16_is_refused_where_it_would_be_emulated(monkeypatch, capability, precision, refused):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    if refused:
        with pytest.raises(RoadmapError, match=r"8\.0 or above, but cuda:0 \(Tesla T4\) has 7\.5: use 16-mixed"):
            resolve_device(Execution("cuda"), precision)
    else:
        assert resolve_device(Execution("auto"), precision) == torch.device("cuda:0")


# --- time


def test_what_is_compiled_at_the_first_batch_of_a_shape_is_not_timed(planned, monkeypatch):
    """A stand-in for torch.compile: every new shape takes a second, in training and in testing."""
    seen = set()

    def compiled(step):
        def first_slow(self, batch, index):
            if (kind := (step, batch[0].shape)) not in seen:
                time.sleep(1.0)
                seen.add(kind)
            return step(self, batch, index)

        return first_slow

    for name in ("training_step", "validation_step"):
        monkeypatch.setattr(TaskModule, name, compiled(getattr(TaskModule, name)))
    monkeypatch.setattr("roadmap.data.batches.TEST_BATCH", 16)  # 24 test images: one batch of 16, one of 8
    found = rehearse(planned.runs[0], planned.data, Execution("cpu", threads=1), 16, 0.5)
    assert found.setup_seconds > 2.0, "both are compiled before a run is at speed"
    assert found.image_seconds < 0.5 / 16 and found.test_image_seconds < 0.5 / 16


# --- clusters


@pytest.mark.parametrize(
    ("settings", "cards", "gpus", "device"),
    [
        ({}, 2, 1.0, "cuda"),
        ({}, 0, 0, "cpu"),
        ({"device": "cpu"}, 2, 0, "cpu"),
        ({"device": "cuda"}, 2, 1.0, "cuda"),
        ({"gpus": 0}, 2, 0, "cpu"),
        ({"gpus": 0.5}, 2, 0.5, "cuda"),
    ],
)
def test_a_run_asks_ray_for_a_gpu_where_the_cluster_has_some(on, store, monkeypatch, settings, cards, gpus, device):
    from roadmap.running.engines import ray as engine

    asked = []

    def remote(**resources):
        return lambda work: SimpleNamespace(remote=lambda task, *more: asked.append((resources, task.execution.device)))

    node = {"Alive": True, "Resources": {"CPU": 8.0, **({"GPU": float(cards)} if cards else {})}}
    fake = SimpleNamespace(
        is_initialized=lambda: True, nodes=lambda: [node], cluster_resources=lambda: node["Resources"],
        put=lambda data: data, remote=remote, cancel=lambda *words, **more: None,
    )  # fmt: skip
    monkeypatch.setattr(engine, "import_ray", lambda address: fake)
    study = on(seeds=12, **{"device": "auto", "engine": "ray", **settings})
    with engine.RayEngine(study) as started:
        assert started.slots == (int(cards / gpus) if gpus else 8)
        started.submit(study.task(study.runs[0], store))
    assert [(resources["num_gpus"], where) for resources, where in asked] == [(gpus, device)]
