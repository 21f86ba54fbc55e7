"""docs/add-a-question.md: a question is one file, and all commands know it."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from folders import make_image_folder
from test_documented_commands import SMALL, WITH_A_FILE, blocks, shell_lines, tables

PROJECT = Path(__file__).parents[1]
#: Every command in one process; what each prints, after a line of its own.
RUN_ALL = """
import sys
from commands import call
for line in sys.argv[1:]:
    shown = call(*line.split("\\t"))
    assert shown.code == 0, (line, shown.err)
    print("###", line, shown.out, sep="\\n")
"""


@pytest.mark.slow
def test_a_question_is_one_file(tmp_path):
    package = tmp_path / "roadmap"
    shutil.copytree(PROJECT / "roadmap", package, ignore=shutil.ignore_patterns("__pycache__"))
    (source,) = blocks(WITH_A_FILE, "python")
    (package / "questions" / "pairs.py").write_text(source)
    desk = tmp_path / "desk"
    desk.mkdir()
    make_image_folder(desk / "images", train=12, test=4)
    (desk / "runs.csv").write_text(tables()["runs.csv"])
    lines = [shlex.split(line)[1:] for line in shell_lines(WITH_A_FILE)]
    small = [*SMALL["run"].replace("--seeds 1", "--seeds 2").split(), "--data", "folder", "--data-dir", "images"]
    lines = [[*words, *(small if words[0] == "run" else [])] for words in lines]
    lines += [["plot", "results/pairs"], ["report", "results/pairs"], ["run", "--help"]]
    path = os.pathsep.join([str(tmp_path), str(PROJECT / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, *("\t".join(words) for words in lines)],
        cwd=desk, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    plan, _, study, table, plot, report, help_text = done.stdout.split("###\n")[1:]
    assert "6 runs, " in plan and "with layer_norm" in plan
    effects = ["with gelu over resnet50", "with layer_norm over resnet50", "with layer_norm over with gelu"]
    assert all(effect in study for effect in effects)
    assert "mixup over plain" in table and "+2.73" in table and "deep_stem over ema" in table
    assert "ablation.png" in plot and (desk / "results" / "pairs" / "ablation.png").exists()
    assert "report.html" in report and "Which of two is better, for every two networks?" in help_text
