"""docs/add-a-*.md: what a page says, and nothing else, is done in a copy of the package; then all commands know it."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from folders import make_image_folder
from test_documented_commands import ADDING, SMALL, shell_lines, tables

PROJECT = Path(__file__).parents[1]
NAMED = re.compile(r"`([\w/-]+\.(?:py|yaml))`[^`]*:\n\n```(?:python|yaml)\n(.*?)^```", re.M | re.S)
#: Every command in one process; what each prints, after a line of its own.
RUN_ALL = """
import sys
from commands import call
for line in sys.argv[1:]:
    shown = call(*line.split("\\t"))
    assert shown.code == 0, (line, shown.err)
    print("###", line, shown.out, sep="\\n")
"""


def patched(package: Path, diff: str) -> None:
    """Replace what each hunk of a diff shows in the file that its first line names: it must stand there once."""
    name, _, hunks = diff.removeprefix("--- ").partition("\n")
    file = package.parent / name
    for hunk in re.split(r"^@@\n", hunks, flags=re.M):
        lines = hunk.splitlines(keepends=True)
        old, new = ("".join(line[1:] for line in lines if line[0] in kinds) for kinds in (" -", " +"))
        assert file.read_text().count(old) == 1, f"{name} has not once:\n{old}"
        file.write_text(file.read_text().replace(old, new))


def follow(page: str, tmp_path: Path, more=()) -> dict[str, str]:
    """Do what a page says: its files, its diffs, its commands, made small, and ``more`` commands. Command -> output."""
    package, desk = tmp_path / "roadmap", tmp_path / "desk"
    shutil.copytree(PROJECT / "roadmap", package, ignore=shutil.ignore_patterns("__pycache__"))
    images = make_image_folder(desk / "images", train=12, test=4)
    (desk / "runs.csv").write_text(tables()["runs.csv"])
    listed = [path.relative_to(images) for path in sorted(images.rglob("*.png"))]
    rows = [f"{path},{path.parent.name},{path.parts[0]}" for path in listed]
    (images / "images.csv").write_text("\n".join(["file,label,part", *rows]))
    shutil.copytree(PROJECT / "results" / "embedded", desk / "results" / "embedded")

    path = PROJECT / "docs" / page
    files = NAMED.findall(path.read_text())
    for name, content in files:
        target = tmp_path / name if name.startswith("roadmap/") else desk / name
        assert not target.exists() and target.parent.is_dir()
        target.write_text(content)
    diffs = re.findall(r"^```diff\n(.*?)^```", path.read_text(), re.M | re.S)
    for diff in diffs:
        patched(package, diff)
    assert files or diffs
    lines = [shlex.split(line)[1:] for line in [*shell_lines(path), *more]]
    stand_ins = {"PATH": "images", "FOLDER": "results/embedded"}
    lines = [[stand_ins.get(word, word) for word in words] for words in lines]
    small = SMALL["run"].replace("--seeds 1", "--seeds 2").split()
    for words in lines:
        if words[0] == "run" and "--help-all" not in words and "--help" not in words:
            words += [*small, *([] if "--data" in words else ["--data", "folder", "--data-dir", "images"])]
    given = ["\t".join(words) for words in lines]
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, *given], cwd=desk, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(PROJECT / "tests")])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown = [part.split("\n", 1) for part in done.stdout.split("###\n")[1:]]
    return {" ".join(line.split("\t")): out for line, out in shown}


def said(shown: dict[str, str], *words: str) -> str:
    """What the only command with these words printed."""
    (out,) = (out for line, out in shown.items() if {*words} <= {*line.split()})
    return out


def test_every_page_on_adding_something_is_followed_here():
    followed = {name.removeprefix("test_").replace("_", "-") for name in globals() if name.startswith("test_add_a")}
    assert {page.stem for page in ADDING} == followed
    assert all(len(page.read_text().splitlines()) <= 60 for page in ADDING)


@pytest.mark.slow
def test_add_a_question(tmp_path):
    shown = follow("add-a-question.md", tmp_path, ["roadmap plot results/pairs", "roadmap report results/pairs",
                                                   "roadmap run --help"])  # fmt: skip
    plan = said(shown, "--dry-run")
    assert "6 runs, " in plan and "with layer_norm" in plan
    effects = ["with gelu over resnet50", "with layer_norm over resnet50", "with layer_norm over with gelu"]
    assert all(effect in said(shown, "effects", "results/pairs") for effect in effects)
    table = said(shown, "runs.csv")
    assert "mixup over plain" in table and "+2.73" in table and "deep_stem over ema" in table
    assert "ablation.png" in said(shown, "plot")
    assert (tmp_path / "desk" / "results" / "pairs" / "ablation.png").exists()
    assert "report.html" in said(shown, "report")
    assert "Which of two is better, for every two networks?" in said(shown, "--help")


@pytest.mark.slow
def test_add_a_step(tmp_path):
    shown = follow("add-a-step.md", tmp_path)
    assert "\nwith wider " in said(shown, "run", "wider.yaml")
    assert "widths 64-128-320-640" in said(shown, "check-step", "late_width")
    assert "320" in said(shown, "explain") and "\nwith late_width " in said(shown, "--design")


#: The name of a run that knows nothing of a new flag.
SIGNATURE = """
import roadmap
from roadmap.recipes.recipe import load_recipe
from roadmap.training.spec import RunSpec
design = roadmap.ladder()["gelu"].design
print(RunSpec("resnet50", "gelu", True, 64, 1, design, load_recipe("small"), "data", "digest", 32, seed=0).signature)
"""


@pytest.mark.slow
def test_add_a_flag(tmp_path):
    shown = follow("add-a-flag.md", tmp_path)
    assert "6 runs, " in said(shown, "branch_scale=0.1,0.3,1", "--dry-run")
    assert "branch_scale=0.3" in said(shown, "results/scaled") and "branch_scale=0.3" in said(shown, "list")
    before, after = (
        subprocess.run(
            [sys.executable, "-c", SIGNATURE], cwd="/", capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONPATH": str(where)},
        ).stdout
        for where in (PROJECT, tmp_path)
    )  # fmt: skip
    assert before == after and len(before.strip()) == 16


@pytest.mark.slow
def test_add_a_data_set(tmp_path):
    shown = follow("add-a-data-set.md", tmp_path)
    assert "wds, table, or hfds/NAME" in " ".join(said(shown, "--help-all").split())
    assert "36 training and 12 test images" in said(shown, "--dry-run"), said(shown, "--dry-run")
    trained = shown[[line for line in shown if line.startswith("run") and "--dry-run" not in line][-1]]
    assert "[2/2] gelu seed" in trained, trained


@pytest.mark.slow
def test_add_a_figure(tmp_path):
    shown = follow("add-a-figure.md", tmp_path)
    assert "runs           the score of every run" in said(shown, "--help")
    assert "results/embedded/runs-column.png" in said(shown, "--figure")
    caption = (tmp_path / "desk" / "results" / "embedded" / "runs-column.md").read_text()
    assert "Seeds are farthest apart in" in caption


@pytest.mark.slow
def test_add_a_recipe(tmp_path):
    shown = follow("add-a-recipe.md", tmp_path)
    assert "brisk" in shown["recipes"] and "epochs: 10" in shown["recipes brisk"]
    assert "brisk" in said(shown, "--dry-run")
