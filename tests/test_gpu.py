"""On a GPU: ``python -m pytest -m gpu``; skipped elsewhere. What a GPU says is faked in tests/test_accelerator.py."""

from __future__ import annotations

import pytest
import torch
from commands import call
from folders import make_image_folder
from safetensors.torch import load_file

import roadmap
from roadmap.accelerator import is_memory_error

pytestmark = pytest.mark.gpu

STUDY = (
    "run --only patchify_stem,layer_norm --seeds 2 --epochs 2 --width 8 --batch-size 16 --image-size 32 --data folder"
)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return make_image_folder(tmp_path_factory.mktemp("images"))


def trained(place, images, *words):
    """The study's runs on the GPU, and the weights of each by its signature."""
    place.mkdir()
    shown = call(
        *STUDY.split(),
        "--data",
        "folder",
        "--data-dir",
        images,
        "--device",
        "cuda",
        *words,
        "--out",
        place / "study",
        cwd=place,
    )
    assert shown.code == 0, shown.err
    files = (place / "results" / "store" / "runs").glob("*/weights.safetensors")
    return roadmap.load_study(place / "study").runs, {file.parent.name: load_file(file) for file in files}


@pytest.fixture(scope="module")
def once(images, tmp_path_factory):
    return trained(tmp_path_factory.mktemp("once") / "a", images, "--deterministic", "--jobs", "1")


def assert_equal(one, other):
    assert one.keys() == other.keys() and len(one) == 4
    for run, weights in one.items():
        assert all(torch.equal(value, other[run][name]) for name, value in weights.items()), run


@pytest.mark.slow
def test_deterministic_runs_end_equal(once, images, tmp_path):
    runs, weights = once
    assert (runs["status"] == "done").all() and runs["device"].str.contains("cuda").all()
    assert_equal(weights, trained(tmp_path / "b", images, "--deterministic", "--jobs", "1")[1])


@pytest.mark.slow
def test_runs_that_share_a_card_end_as_alone(once, images, tmp_path):
    runs, weights = trained(tmp_path / "b", images, "--deterministic", "--jobs", "2")
    assert (runs["status"] == "done").all()
    assert_equal(weights, once[1])


def test_memory_that_ran_out_is_recognised():
    _, whole = torch.cuda.mem_get_info()
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2 * whole, dtype=torch.uint8, device="cuda")
    assert is_memory_error(raised.value)
    assert not is_memory_error(ValueError("the kernel is larger than the image"))


def test_a_network_computes_the_same_on_the_cpu():
    network = roadmap.build("layer_norm", num_classes=5).eval()
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network.double()(x.double())
        found = network.cuda()(x.double().cuda()).cpu()
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8 * float(expected.abs().max()))
