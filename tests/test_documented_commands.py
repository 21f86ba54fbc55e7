"""Every command and every block of Python that a page shows is run: as it is, or as small as it can be."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import timm
import torch
import yaml
from commands import call, once
from folders import make_cifar10, make_image_folder, make_shards, make_tars
from mask_folders import make_ade20k

import roadmap

PROJECT = Path(__file__).parents[1]
#: Their code and commands are those of a package with something more: tests/test_adding.py runs them.
ADDING = sorted((PROJECT / "docs").glob("add-a-*.md"))
PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").glob("*.md")),
         *sorted((PROJECT / "results").glob("**/README.md"))]  # fmt: skip
#: What a training, or a measurement, is made small with.
SMALL = {
    "run": "--seeds 1 --epochs 1 --width 4 --depth 0.34 --image-size 32 --stem-stride 2 --jobs 1 --threads 1 "
    "--workers 1 --batch-size 8 --device cpu --precision 32 --no-compile --accumulate 1 --devices 1",
    "finetune": "--seeds 1 --epochs 1 --image-size 32 --jobs 1 --threads 1 --workers 1 --batch-size 8",
    "bench": "--upto modern_recipe --width 4 --depth 0.01 --image-size 32 --seconds 0.01 --batch-size 8 --device cpu",
    "explain": "--width 8 --image-size 64 --seconds 0.01",
}
SMALL["plan"] = SMALL["run"]
#: A study of more runs than this is neither trained nor measured, only taken apart into its runs.
TRAINED = 3
#: Words of commands that say themselves which networks they are about; of others, on given data, one rung is trained.
SELECTED = {"--only", "--upto", "--from", "--steps", "--design", "--sweep"}
#: What is not everywhere: the word that asks for it, and how a command is answered where it is missing. By then every
#: option has been read and checked.
ELSEWHERE = {
    "cuda": "torch sees no CUDA device on this machine",
    "slurm": "there is no Slurm (sbatch, srun) on this machine",
    "HOST:6379": "no Ray cluster answers at HOST:6379",
}
#: Words of studies that are only planned, and why.
PLANNED = {"--dry-run": "is asked for", "--reference": "a model of 27 million parameters"}
#: What stands in shell blocks beside roadmap's commands, and who runs it.
OTHERS = {
    "python3 -m venv": ".ci/run",
    ".venv/bin/pip install": ".ci/run",
    ".venv/bin/python -m pytest": ".ci/run",
    ".venv/bin/ruff": ".ci/run",
    ".venv/bin/mypy": ".ci/run",
    ".venv/bin/mkdocs": ".ci/run",
    ".venv/bin/pre-commit": "each contributor",
    "bash .ci/run": "whoever merges",
    "export ROADMAP_STORE=": "a shell",
}
PLUGIN = """
import roadmap
from torch import nn

@roadmap.layer("mine", place="branch", why="Leave out whole channels.")
def build(site, share=0.5):
    return nn.Dropout2d(share)
"""


class Command(NamedTuple):
    page: Path
    words: tuple[str, ...]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)


def shell_lines(page: Path) -> Iterator[str]:
    """The commands of a page's shell blocks, and those that stand indented by themselves, without comments."""
    text = page.read_text()
    indented = "".join(re.findall(r"^    (roadmap .*(?:\\\n.*)*\n)", text, re.M))
    for block in [*blocks(page, "sh"), indented]:
        for line in block.replace("\\\n", " ").splitlines():
            for part in line.partition("#")[0].split("&&"):
                if part.strip():
                    yield part.strip()


def tables() -> dict[str, str]:
    """Name -> content of every table of runs that a page shows, after a sentence that names the file."""
    page = PROJECT / "docs" / "runs-from-elsewhere.md"
    return dict(re.findall(r"`(\w+\.csv)`[^`]*:\n\n```csv\n(.*?)^```", page.read_text(), re.M | re.S))


def commands() -> list[Command]:
    """Every command of roadmap's on the pages, once. In a sentence a command alone, such as `roadmap rm`, is a name."""
    found: dict[tuple[str, ...], Command] = {}
    for page in [page for page in PAGES if page not in ADDING]:
        prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
        inline = [" ".join(text.split()) for text in re.findall(r"(?<!`)`(roadmap [^\s`]+\s[^`]+)`", prose)]
        for line in [*shell_lines(page), *inline]:
            words = tuple(shlex.split(line.removeprefix(".venv/bin/")))
            if words[0] == "roadmap":
                found.setdefault(words[1:], Command(page, words[1:]))
    return list(found.values())


# --- what stands for the placeholders


def furnish(place: Path) -> None:
    """Data sets in every layout, files with steps and layers, and a finished run."""
    images = make_image_folder(place / "images", train=12, test=4)
    make_image_folder(place / "imagenet", train=12, test=4, size=(48, 40))
    make_tars(place / "tars", images, "part")
    make_shards(place / "shards", images)
    shutil.copytree(images / "train", place / "classes")
    make_cifar10(place / "cifar10", a_batch=4)
    make_ade20k(place / "ade20k", train=16)
    (place / "mine.py").write_text(PLUGIN)
    page = PROJECT / "docs" / "steps.md"
    (study,) = (block for block in blocks(page, "yaml") if "one-at-a-time" in block)
    (place / "mine.yaml").write_text(study)
    (eca,) = (block for block in blocks(page, "python") if '"eca"' in block)
    (place / "eca.py").write_text(eca)
    for name, content in tables().items():
        (place / name).write_text(content)
    done = call("run", "--only", "gelu", "--data", "folder", "--data-dir", images, *SMALL["run"].split(), cwd=place)
    assert done.code == 0, done.err
    (run,) = (place / "results" / "store" / "runs").iterdir()
    (place / "signature").write_text(run.name)


@pytest.fixture(scope="session")
def furnished(tmp_path_factory):
    return once(tmp_path_factory, "documented", furnish)


@pytest.fixture
def desk(furnished, tmp_path, monkeypatch):
    """A folder that looks like a clone in which somebody works; the runs of all tests are in one store."""
    for path in [*furnished.iterdir(), PROJECT / "experiments"]:
        if path.name != "results":
            (tmp_path / path.name).symlink_to(path)
    kept = tmp_path / "results"
    for name in ("cifar10", "cifar10-leave-one-out", "cifar10-order", "embedded"):
        shutil.copytree(PROJECT / "results" / name, kept / name)
    (kept / "leave-one-out").symlink_to("cifar10-leave-one-out")
    (kept / "resnet50-to-large_kernel").symlink_to("embedded")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cifar10").symlink_to(furnished / "cifar10")
    (kept / "store").symlink_to(furnished / "results" / "store")
    monkeypatch.delenv("ROADMAP_STORE", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


#: Data set -> its folder on the desk.
FOLDERS = {
    "imagenet": "imagenet",
    "cifar10": "cifar10",
    "imagenet22k": "classes",
    "tar": "tars",
    "wds": "shards",
    "ade20k": "ade20k",
}


def data_of(words: list[str]) -> str | None:
    """The data set that a command names, itself or in its study."""
    for word, value in zip(words, words[1:], strict=False):
        if word == "--data":
            return value
    studies = [Path(word) for word in words if word.endswith(".yaml")]
    return next((yaml.safe_load(study.read_text()).get("data") for study in studies), None)


def is_order(words: list[str]) -> bool:
    return "order" in words or any("order" in Path(word).name for word in words if word.endswith(".yaml"))


def filled(words: tuple[str, ...], desk: Path) -> list[str]:
    """A command with something real in the place of every placeholder."""
    run = (desk / "signature").read_text()
    stand_ins = {
        "3f2a": run[:12],
        "PATH": FOLDERS.get(str(data_of([*words])), "images"),
        "FOLDER": "results/cifar10",
        "STUDY": "results/cifar10",
        "STEP": "gelu",
        "NAME": "modern",
        "FILE": f"results/store/runs/{run}/weights.safetensors",
        "hfds/uoft-cs/cifar10": f"hfds/{(desk / 'images').resolve()}",
    }
    if words[0] != "run":
        (desk / "results" / "mine").symlink_to("cifar10-order" if words[0] == "report" else "embedded")
    if "convnext_tiny.pth" in words:
        torch.save(timm.create_model("convnext_tiny", num_classes=3).state_dict(), desk / "convnext_tiny.pth")
    return [stand_ins.get(word, word) for word in words]


# --- the tests


def ran(*words: str) -> str:
    shown = call(*words)
    assert shown.code == 0, shown.err
    return shown.out


COMMANDS = commands()


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command.words))
def test_a_command_of_the_pages_runs(command, desk):
    words = filled(command.words, desk)
    if {"--help", "--help-all"} & {*words}:
        assert ran(*words).startswith("Usage")
        return
    small = SMALL.get(words[0], "").split()
    if words[0] in ("run", "plan") and not data_of(words):
        small += ["--data", "folder", "--data-dir", "images"]
    if words[0] in ("run", "plan", "finetune"):
        if "--data" in words and words[0] == "run" and not SELECTED & {*words}:
            words += ["--only", "gelu"]
        before = sorted(desk.rglob("*"))
        asked = [word for word in words if word != "--dry-run"]
        asked[0] = asked[0].replace("plan", "run")  # the same options
        asked += ["--dry-run", "--accumulate", "1", *(["--orders", "1"] if is_order(words) else [])]
        missing = [ELSEWHERE[word] for word in words if word in ELSEWHERE]
        if missing and (shown := call(*asked)).code:
            assert any(sentence in shown.err for sentence in missing), shown.err
            return
        out = ran(*asked)
        assert sorted(desk.rglob("*")) == before
        runs = int(re.search(r"^(\d+) runs?, .* of training", out, re.M)[1])
        if PLANNED.keys() & {*words} or runs > TRAINED:
            return
    ran(*words, *small)


def test_what_else_stands_in_shell_blocks_is_known():
    lines = [line for page in PAGES for line in shell_lines(page)]
    others = [line for line in lines if not line.removeprefix(".venv/bin/").startswith("roadmap ")]
    assert others and [line for line in others if not line.startswith(tuple(OTHERS))] == []


PYTHON = [(page, block) for page in PAGES if page not in ADDING for block in blocks(page, "python")]
#: In front of every block: trainings are made small.
HEADER = """
import functools, roadmap
roadmap.run = functools.partial(roadmap.run, {settings})
"""


@pytest.mark.slow
@pytest.mark.parametrize(("page", "block"), PYTHON, ids=[page.name for page, _ in PYTHON])
def test_python_of_the_pages_runs(page, block, desk):
    if "checkpoint.pth" in block:
        torch.save(roadmap.build("convnext_base").state_dict(), desk / "checkpoint.pth")
    settings = "epochs=1, width=4, depth=0.34, data='folder', data_dir='images', image_size=32, threads=1"
    code = block.replace("3f2a", (desk / "signature").read_text())
    done = subprocess.run(
        [sys.executable, "-W", "error::SyntaxWarning", "-c", HEADER.format(settings=settings) + code],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
