"""The scripts under benchmarks/ run as their own help says, with the smallest sizes."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SMALLEST = {
    "training_speed.py small": "--threads 1 --rounds 1 --epochs 2 --images 256 --device cpu --precision 32 gelu",
    "training_speed.py timm": "--threads 1 --rounds 1 --epochs 2 --images 2 --batch-size 2 resnet50",
    "packing.py": "--rounds 1 --seeds 1 --epochs 1 --images 128 gelu",
}


@pytest.mark.slow
@pytest.mark.parametrize("script", SMALLEST)
def test_a_benchmark_runs_as_its_help_says(script, monkeypatch, capsys):
    name, *words = script.split()
    monkeypatch.setattr(sys, "argv", [name, *words, *SMALLEST[script].split()])
    monkeypatch.syspath_prepend(BENCHMARKS)
    runpy.run_path(str(BENCHMARKS / name), run_name="__main__")
    out = capsys.readouterr().out
    rates = [float(rate) for rate in re.findall(r"([\d.]+) img/s", out)]
    assert len(rates) >= 1 and min(rates) > 0, out
    assert "gelu" in out or "resnet50" in out or "1 runs on" in out


def test_every_benchmark_is_run_here():
    assert {path.name for path in BENCHMARKS.glob("*.py")} == {key.split()[0] for key in SMALLEST} | {"soak.py"}


@pytest.mark.slow
def test_the_soak_kills_and_finds_equal_weights(tmp_path):
    """Six short runs in peace, and again until one kill has struck."""
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "soak.py", *"1 --images 16 --epochs 4 --every 0.5 --folder".split(), tmp_path],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(BENCHMARKS.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("1 kills (1 ")
    assert re.search(r" (\d+) of \1 weight files equal, 0 faults\n$", done.stdout), done.stdout
