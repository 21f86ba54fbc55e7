"""The notebooks: they run, as small as can be, and what is kept of them is fit to be shown."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import nbformat
import pytest

from notebooks import NOTEBOOKS, PROJECT, WIDGET, execute, tidied

#: Values of a notebook's parameters with which it is quick.
SHORT = {
    "1_the_ladder_in_10_minutes": {"UPTO": "modern_recipe", "SEEDS": 2, "EPOCHS": 1},
    "2_analysing_an_ablation": {},
    "3_inside_the_block": {"WIDTH": 8, "IMAGES": 1, "EVERY": 8},
    "4_your_own_step": {"SEEDS": 2, "EPOCHS": 1, "WIDTH": 4},
}
#: After the parameters: the embedded data set is a small part of itself.
FEWER_IMAGES = "\nfrom roadmap.data import embedded\nembedded.TRAIN_IMAGES, embedded.TEST_IMAGES = 640, 400"
#: Bytes of a kept notebook, at most.
LARGEST = 1_000_000

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(notebook):
    """(stream, text) of everything that cells printed."""
    outputs = [output for cell in code_of(notebook) for output in cell.outputs]
    return [(output.name, output.text) for output in outputs if output.output_type == "stream"]


def test_there_is_a_short_form_of_every_notebook():
    assert {path.stem for path in NOTEBOOKS} == set(SHORT)


@pytest.mark.slow
@every_notebook
def test_a_notebook_runs(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    parameters.source += FEWER_IMAGES
    notebook = execute(notebook, tmp_path, SHORT[path.stem])
    assert all(cell.execution_count for cell in code_of(notebook))
    assert [text for name, text in printed(notebook) if name == "stderr"] == []
    said = "".join(text for _, text in printed(notebook))
    assert not re.search("Warning|Traceback", said)
    if "roadmap.run(" in "".join(cell.source for cell in code_of(notebook)):  # a bar says how long it takes
        widgets = [output for cell in code_of(notebook) for output in cell.outputs if WIDGET in output.get("data", {})]
        assert widgets or re.search(r"training .* so far, .* left", said)
        assert "so far" not in "".join(text for _, text in printed(tidied(notebook)))


@every_notebook
def test_a_notebook_teaches(path):
    notebook = nbformat.read(path, as_version=4)
    first, last, code = notebook.cells[0].source, notebook.cells[-1].source, code_of(notebook)
    assert first.startswith("# ") and "**What you will learn**" in first and re.search("minute", first)
    exercises = re.findall(r"^\d\. \*\*", last, re.M)
    assert last.startswith("## Exercises") or "\n## Exercises\n" in last
    assert 3 <= len(exercises) <= 5 and last.count("<details>") == last.count("</details>") >= 3
    assert "%pip install" in code[0].source and code[0].source == code_of(nbformat.read(NOTEBOOKS[0], 4))[0].source
    assert all(len(cell.source.splitlines()) <= 45 for cell in code)
    links = re.findall(r"\]\((?!http)([^)#]+)\)", "".join(cell.source for cell in notebook.cells))
    assert [link for link in links if not (path.parent / link).exists()] == []


#: Runs a cell in several folders where roadmap is not installed, and prints what pip would have been told.
FIRST_CELL = """
import importlib.util, json, os, sys
from IPython.core.interactiveshell import InteractiveShell
shell, told, find = InteractiveShell.instance(), [], importlib.util.find_spec
shell.register_magic_function(told.append, magic_name="pip")
importlib.util.find_spec = lambda name, *more: None if name == "roadmap" else find(name, *more)
for place in sys.argv[2:]:
    os.chdir(place)
    shell.run_cell(sys.argv[1]).raise_error()
print(json.dumps(told))
"""


def test_the_first_cell_installs_a_wheel_the_clone_or_the_project(tmp_path):
    """On a bare machine the project's address is cloned, once, so that its kept results are at hand: here from a small
    repository that git takes for it."""
    source = code_of(nbformat.read(NOTEBOOKS[0], as_version=4))[0].source
    (address,) = re.findall(r'^Repository = "(.+)"$', (PROJECT / "pyproject.toml").read_text(), re.M)
    origin, bare, clone, wheel = (tmp_path / name for name in ("origin", "bare", "clone/notebooks", "wheel"))
    for place in (origin / "results", bare, clone, wheel):
        place.mkdir(parents=True)
    (origin / "results" / "README.md").touch()
    (clone.parent / "pyproject.toml").touch()
    (wheel / "roadmap_ablation-0.3.0-py3-none-any.whl").touch()
    for words in ("init", "add .", "-c user.name=a -c user.email=a@b commit -m a"):
        subprocess.run(["git", *words.split()], cwd=origin, check=True, capture_output=True)
    instead = {"GIT_CONFIG_KEY_0": f"url.{origin.as_uri()}.insteadOf", "GIT_CONFIG_VALUE_0": address}
    done = subprocess.run(
        [sys.executable, "-c", FIRST_CELL, source, bare, bare, clone, wheel],
        env={**os.environ, **instead, "GIT_CONFIG_COUNT": "1", "IPYTHONDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    expected = ["./roadmap-clone", "./roadmap-clone", "..", "roadmap_ablation-0.3.0-py3-none-any.whl"]
    assert json.loads(done.stdout) == [f"install --quiet {place}" for place in expected]
    assert (bare / "roadmap-clone" / "results" / "README.md").is_file()


@every_notebook
def test_what_is_kept_of_a_notebook_is_small_and_says_nothing_of_the_machine(path):
    content = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(content, as_version=4)
    nbformat.validate(notebook)
    assert len(content.encode()) < LARGEST and set(notebook.metadata) == {"kernelspec", "language_info"}
    assert [cell.execution_count for cell in code_of(notebook)] == [*range(1, len(code_of(notebook)) + 1)]
    shown = [output for cell in code_of(notebook) for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in shown)
    assert not any(name == "stderr" for name, _ in printed(notebook))
    words = "".join(str({**output, "data": {**output.get("data", {}), "image/png": ""}}) for output in shown)
    assert not re.search(r"/(home|root|tmp|usr|work|Users)/|\\x1b|0x[0-9a-f]{6}", words)
