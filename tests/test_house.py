"""The house: rooms import from the floors beneath, and what pages say of files and figures is so."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import inspect
import re
import runpy
import shutil
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import click
import pytest
import yaml

import roadmap
from roadmap.cli.main import cli
from roadmap.cost.counting import count
from roadmap.planning.keywords import Settings
from roadmap.planning.spec import study_settings
from roadmap.questions import question_settings, questions
from roadmap.recipes.recipe import SETTINGS, load_recipe
from roadmap.running.prepared import TRAINING_FLOPS_PER_MAC
from roadmap.tasks import tasks

PROJECT = Path(__file__).parents[1]
PACKAGE = PROJECT / "roadmap"


def floors() -> dict[str, int]:
    """Room -> floor, from the table in docs/architecture.md."""
    rows = re.findall(r"^\| (\d+) \| (.+?) \|", (PROJECT / "docs" / "architecture.md").read_text(), re.MULTILINE)
    return {room: int(floor) for floor, rooms in rows for room in re.findall(r"`(\w+)/?`", rooms)}


def imported_rooms(path: Path) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("roadmap."):
            modules.add(node.module)
        elif isinstance(node, ast.ImportFrom) and node.module == "roadmap":
            modules |= {f"roadmap.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            modules |= {name.name for name in node.names if name.name.startswith("roadmap.")}
    return {module.split(".")[1] for module in modules} - {"__version__"}


SOURCES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__main__.py"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_from_the_floors_beneath(path):
    house = floors()
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room == "__init__":  # the front door names everything and imports nothing until it is used
        return
    for other in imported_rooms(path) - {room}:
        assert house[other] < house[room] or house[room] == 0, f"{room} imports {other}"


def imported_modules(path: Path, known: set[str]) -> set[str]:
    """The modules of this package that a file imports anywhere: in functions and for type checkers, too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{name.name}" for name in node.names} | {node.module}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return found & known


def test_no_modules_import_each_other_in_a_circle():
    named = {
        ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__"): path for path in SOURCES
    }
    front = named.pop("roadmap")  # the front door names everything and imports nothing until it is used
    assert front.name == "__init__.py"
    arrows = {name: imported_modules(path, {*named}) - {name} for name, path in named.items()}
    # a package's own file says what its modules share
    arrows = {name: {one for one in to if not name.startswith(f"{one}.")} for name, to in arrows.items()}
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_two_classes_have_one_name():
    nodes = [node for path in SOURCES for node in ast.parse(path.read_text()).body]
    public = [node.name for node in nodes if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    assert len(public) == len(set(public)), sorted({name for name in public if public.count(name) > 1})


def test_every_room_is_in_the_plan():
    rooms = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in SOURCES} - {"__init__"}
    assert rooms == set(floors())


def test_files_that_pages_point_to_are_there():
    pages = [*PROJECT.glob("*.md"), *(PROJECT / "docs").glob("*.md"), *(PROJECT / "results").glob("**/README.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} points to {target}"


def test_the_projects_address_is_the_same_everywhere(tmp_path):
    """It stands in pyproject.toml; a script writes it where it is repeated, whatever it is changed to."""
    addressed = runpy.run_path(str(PROJECT / "docs" / "make_address.py"))["addressed"]
    pages = [PROJECT / "pyproject.toml", PROJECT / "README.md", *sorted((PROJECT / "notebooks").glob("*.ipynb"))]
    told = [(page, page.read_text(encoding="utf-8")) for page in pages]
    assert [*addressed(PROJECT)] == told, "run docs/make_address.py"
    (address,) = re.findall(r'^Repository = "https://github.com/(.+)"$', told[0][1], re.M)
    shutil.copytree(PROJECT / "notebooks", tmp_path / "notebooks")
    (tmp_path / "README.md").write_text(told[1][1])
    changed = told[0][1].replace(f'github.com/{address}"', 'github.com/an-other/ro.ad"')
    (tmp_path / "pyproject.toml").write_text(changed)
    for (_, text), (_, before) in zip(addressed(tmp_path), told, strict=True):
        assert f"/{address}" not in text and text.count("/an-other/ro.ad") == before.count(f"/{address}") > 0


def test_the_version_is_the_same_everywhere():
    """It stands in roadmap/__init__.py; how to cite it, and the changelog's last release, repeat it."""
    found = {
        "CITATION.cff": r"^version: (.+)$",
        "README.md": r"note  = \{Version (.+)\}",
        "CHANGELOG.md": r"^## \[(\d.*?)\] - \d{4}-\d\d-\d\d$",
    }
    said = {name: re.findall(pattern, (PROJECT / name).read_text(), re.M)[:1] for name, pattern in found.items()}
    assert said == dict.fromkeys(found, [roadmap.__version__])


def test_ci_has_the_oldest_and_the_newest_python():
    text = (PROJECT / "pyproject.toml").read_text()
    known = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', text)
    workflow = yaml.safe_load((PROJECT / ".github" / "workflows" / "tests.yml").read_text())
    tried = [one["python"] for one in workflow["jobs"]["tests"]["strategy"]["matrix"]["include"]]
    assert tried == [known[0], known[-1]] and f'requires-python = ">={known[0]}"' in text


def test_the_readmes_ladder_is_the_ladder():
    rows = re.findall(
        r"^\| `(\w+)` \|.*?\| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", (PROJECT / "README.md").read_text(), re.M
    )
    assert [row[0] for row in rows] == [rung.name for rung in roadmap.ladder() if rung.adopted]
    for name, gmacs, params, top1 in rows:
        rung = roadmap.ladder()[name]
        cost = count(rung.design)
        assert (gmacs, params) == (f"{cost.gmacs:.2f}", f"{cost.params / 1e6:.2f}")
        assert float(top1) == rung.printed.top1


def test_the_page_on_imagenet_counts_as_the_program_does():
    rows = re.findall(
        r"^\| `(\w+)` \| ([\d.]+) \| (\d+) \| (\d+) \| ([\d.]+) \|$", (PROJECT / "docs/imagenet.md").read_text(), re.M
    )
    assert [row[0] for row in rows] == [rung.name for rung in roadmap.ladder() if rung.adopted]
    for name, gmacs, epochs, petaflops, top1 in rows:
        rung, cost = roadmap.ladder()[name], count(roadmap.ladder()[name].design)
        assert (gmacs, float(top1)) == (f"{cost.gmacs:.2f}", rung.printed.top1)
        assert int(epochs) == load_recipe("classic" if rung.classic_recipe else "modern").epochs
        assert petaflops == f"{TRAINING_FLOPS_PER_MAC * cost.gmacs * 1e9 * 1_281_167 * int(epochs) / 1e15:.0f}"


def kept(name, runs):
    """A kept study, all of whose runs ended well and were made by committed code, and its page."""
    folder = PROJECT / "results" / name
    study = roadmap.load_study(folder)
    assert len(study.runs) == runs and (study.runs["status"] == "done").all() and not study.runs["dirty"].any()
    return study, (folder / "README.md").read_text()


def test_the_page_on_cifar10_says_what_its_table_says():
    study, page = kept("cifar10", runs=51)
    rows = re.findall(r"^\| `(\w+)`.*? \| ([\d.]+) ± ([\d.]+) \| (.*?) \| (.*?) \|$", page, re.M)
    assert [row[0] for row in rows] == study.steps["step"].tolist() == [rung.name for rung in roadmap.ladder()]
    printed = dict(zip(study.steps["step"], study.steps["printed_top1"], strict=True))
    for row, (_, mean, deviation, gain, paper) in zip(study.steps.itertuples(), rows, strict=True):
        assert (mean, deviation) == (f"{row.top1_mean:.1f}", f"{row.top1_std:.1f}")
        if gain:
            finding = row.gain_low > 0 or row.gain_high < 0
            assert gain.startswith("**") == finding
            assert gain.strip("*") == f"{row.gain:+.1f} [{row.gain_low:+.1f}, {row.gain_high:+.1f}]"
            assert paper == f"{printed[row.step] - printed[row.against]:+.2f}"


def test_the_page_on_leaving_one_out_says_what_its_table_says():
    study, page = kept("cifar10-leave-one-out", runs=42)
    rows = re.findall(r"^\| `(\w+)` \| (\S+ \[.*?\]\S*) \| (\S+) \| (\S+) \| (\S+) \|$", page, re.M)
    assert len(rows) == len(study.effects) == 13
    gains = roadmap.load_study(PROJECT / "results" / "cifar10").steps.set_index("step")["gain"]
    for row, (step, worth, macs, parameters, gain) in zip(study.effects.itertuples(), rows, strict=True):
        assert step == row.effect and worth.startswith("**") == (row.low > 0 or row.high < 0)
        assert worth.strip("*") == f"{row.estimate:+.1f} [{row.low:+.1f}, {row.high:+.1f}]"
        assert (macs, parameters) == (f"{1000 * row.gmacs:+.2f}", f"{row.params / 1000:+.0f}")
        assert gain == f"{gains[step]:+.1f}"
    whole = study.steps.iloc[0]
    assert f"{whole.top1_mean:.1f} ± {whole.top1_std:.1f}" in page


def test_the_page_on_orders_says_what_its_table_says():
    study, page = kept("cifar10-order", runs=64)
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (\S+ to \S+) \| (\S+) \| (\S+) \|$", page, re.M)
    assert len(rows) == len(study.effects) == 5
    for row, (step, worth, between, spread, noise) in zip(study.effects.itertuples(), rows, strict=True):
        assert step == row.effect and worth.startswith("**") == (row.low > 0 or row.high < 0)
        assert worth.strip("*") == f"{row.estimate:+.1f} [{row.low:+.1f}, {row.high:+.1f}]"
        assert (between, spread, noise) == (
            f"{row.least:+.1f} to {row.greatest:+.1f}", f"{row.spread:.1f}", f"{row.noise:.1f}"
        )  # fmt: skip
    first, last = (study.steps.set_index("step").loc[name] for name in ("modern_recipe", "all"))
    assert study.effects["estimate"].sum() == pytest.approx(last.top1_mean - first.top1_mean)
    assert f"{first.top1_mean:.1f}" in page and f"{last.top1_mean:.1f}" in page


def constants(path: Path) -> set[str]:
    """Every string of a source file that is no docstring."""
    tree = ast.parse(path.read_text())
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    }


#: Names of questions that are plain words, too, and the files where such a word stands for something else.
WORDS = {
    "ladder": {
        "__init__.py",  # a function
        "ladders/steps.py",  # all steps together
        "training/spec.py",  # what a run was before it said so
    },
    "baseline": {"plotting/rows.py"},  # where text stands
}


def test_a_questions_name_stands_only_in_its_own_file():
    for name, question in questions().items():
        home = Path(inspect.getfile(question))
        found = {str(path.relative_to(PACKAGE)) for path in SOURCES if path != home and name in constants(path)}
        assert found <= WORDS.get(name, set()), f"{name} is named in {found}"


def test_a_tasks_name_stands_only_in_its_own_file():
    for name, task in tasks().items():
        found = {str(path.relative_to(PACKAGE)) for path in SOURCES if name in constants(path)}
        assert len(found) == 1 and found < {f"tasks/{path.name}" for path in (PACKAGE / "tasks").glob("*.py")}, name
        assert all(importlib.util.find_spec(place.partition(":")[0]) for place in (task.runtime, task.opens))


#: Files of more than 400 lines. This list may only shrink.
LONG = {
    "tests/test_ablation.py",
    "tests/test_evaluate.py",
    "tests/test_explaining.py",
    "tests/test_network.py",
    "tests/test_plots.py",
    "tests/test_report.py",
    "tests/test_sources.py",
    "tests/test_store.py",
    "tests/test_study.py",
    "tests/test_weights.py",
}


def test_no_file_is_longer_than_400_lines():
    files = [*SOURCES, *(PROJECT / "tests").glob("*.py"), *(PROJECT / "benchmarks").glob("*.py")]
    long = {str(path.relative_to(PROJECT)) for path in files if len(path.read_text().splitlines()) > 400}
    assert long - LONG == set(), "split these"
    assert LONG - long == set(), "these are short now: take them off the list"


def test_the_formatter_is_never_told_to_look_away():
    assert [str(path) for path in SOURCES if re.search(r"# fmt: (skip|off)", path.read_text())] == []


def test_public_names_change_only_on_purpose():
    names = ["Design", "RoadmapError", "build", "diff", "effects", "evaluate", "explain", "ladder", "layer",
             "load", "load_study", "load_weights", "report", "run", "step"]  # fmt: skip
    assert roadmap.__all__ == names == dir(roadmap)
    assert all(getattr(roadmap, name) is not None for name in names)
    # type checkers read where each is from, as the package loads it when it is used
    (block,) = (node for node in ast.parse((PACKAGE / "__init__.py").read_text()).body if isinstance(node, ast.If)
                and isinstance(node.test, ast.Name))  # fmt: skip
    told = {alias.asname: node.module for node in block.body for alias in node.names}
    assert told == {name: getattr(roadmap, name).__module__ for name in names} and (PACKAGE / "py.typed").is_file()


def test_the_signature_of_run_has_every_setting_with_its_type_and_default():
    fields = study_settings() | question_settings() | SETTINGS
    shown = inspect.signature(roadmap.run)
    assert [*shown.parameters] == ["study", "out", "store", "resume", *fields]
    assert {*Settings.__annotations__} == {*fields}, "a setting has no type in Settings, or is none any more"
    for name, field in fields.items():
        said = set(re.findall(r"\w+", str(shown.parameters[name].annotation)))
        assert field.kind.__name__ in said and ("None" in said) <= field.optional, name
        default = shown.parameters[name].default
        assert default is ... if name in SETTINGS else default == field.default
        assert f"    {name}: {field.help}\n" in roadmap.run.__doc__
    flags = [one.name for one in dataclasses.fields(roadmap.Design)]
    assert [*inspect.signature(roadmap.build).parameters] == ["step", "regime", *flags]


def test_an_option_is_the_same_in_every_command():
    """Where something is written is --out, and an option of some name takes a value in all commands, or in none."""
    kinds: dict[str, set[bool]] = {}
    for command in cli.commands.values():
        for option in command.params:
            for word in option.opts if isinstance(option, click.Option) else ():
                kinds.setdefault(word, set()).add(option.is_flag)
    assert {word for word, kind in kinds.items() if len(kind) > 1} == set()
    assert not {"--output", "--output-dir", "-o"} & kinds.keys() and "--out" in kinds
