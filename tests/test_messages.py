"""What a user is told: in any encoding, and for any mistake one sentence that names the place."""

from __future__ import annotations

import io
import os
import random
import re
import subprocess
import sys

import pytest
from commands import call
from folders import make_image_folder

import roadmap
from roadmap import RoadmapError
from roadmap.api import command_of
from roadmap.files import read_yaml
from roadmap.planning.reading import load_spec
from roadmap.recipes.recipe import load_recipe

# --- encodings

#: Prints with the whole machinery of the command line what is hard to print, in one process for all encodings.
PRINTER = r"""
import sys
from roadmap.cli import main
import click
from roadmap.cli.group import cli
@cli.command()
def hard():
    click.echo("→ × − σ ± é │ ┌ … ≠ 中 \udcff|")
    print("→ × − σ ± é │ ┌ … ≠ 中 \udcff|")
    click.echo("→ × − σ", err=True)
    from rich.console import Console
    from rich.table import Table
    table = Table()
    table.add_column("top-1 σ")
    table.add_row("81.3 ± 0.2 → 中")
    Console(width=40).print(table)
sys.argv = ["roadmap", "hard"]
main()
"""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252:strict", "cp437", "utf-8", "utf-16"])
def test_everything_prints_in_any_encoding(encoding):
    done = subprocess.run(
        [sys.executable, "-c", PRINTER],
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    name = encoding.partition(":")[0]
    out, err = done.stdout.decode(name), done.stderr.decode(name)  # nothing but this encoding
    assert done.returncode == 0 and "Traceback" not in err, err
    first, second = out.splitlines()[:2]
    assert first == second and first.endswith("\\udcff|")
    assert err.strip("\ufeff") == {"ascii": "-> x - sigma\n", "latin-1": "-> × - sigma\n", "cp1252": "-> × - sigma\n",
                   "cp437": "-> x - σ\n"}.get(name, "→ × − σ\n")  # fmt: skip
    if name == "ascii":
        assert first == r"-> x - sigma +- e | + ... != \u4e2d \udcff|"
        assert "81.3 +- 0.2 -> \\u4e2d" in out


def test_columns_stay_in_line_where_signs_become_longer(monkeypatch):
    lines = {}
    for encoding in ("utf-8", "ascii"):
        buffer = io.BytesIO()
        stream = io.TextIOWrapper(buffer, encoding=encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "argv", ["roadmap", "steps", "--width", "8"])
        roadmap.cli.main()
        stream.flush()
        lines[encoding] = buffer.getvalue().decode(encoding).splitlines()
    assert any("→" in line for line in lines["utf-8"]) and any("->" in line for line in lines["ascii"])
    ends = {re.search(r"\d+\.\d+", line).start() for line in lines["ascii"][1:10] if re.search(r"\d+\.\d+", line)}
    assert len(ends) == 1


# --- YAML


@pytest.mark.parametrize(
    ("text", "key", "lines"),
    [
        ("epochs: 3\nseeds: 2\nepochs: 4\n", "epochs", (1, 3)),
        ("steps:\n- name: mine\n  mixup: 0.1\n  mixup: 0.2\n", "mixup", (3, 4)),
        ("sweep: {kernel_size: [3], kernel_size: [5]}\n", "kernel_size", (1, 1)),
        ("'epochs': 3\n\"epochs\": 4\n", "epochs", (1, 2)),
    ],
)
def test_a_key_twice_is_refused_with_its_lines(tmp_path, text, key, lines):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    for read in (load_spec, read_yaml, lambda path: load_recipe(str(path))):
        with pytest.raises(RoadmapError) as caught:
            read(path)
        assert str(caught.value) == (
            f"{path} has '{key}' twice, in lines {lines[0]} and {lines[1]}: leave one of them out"
        )


def test_merge_keys_may_still_be_overridden(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("steps:\n- &one {name: a, mixup: 0.1}\n- {<<: *one, name: b}\n")
    assert read_yaml(path)["steps"][1] == {"name": "b", "mixup": 0.1}


# --- the recorded command

SETTINGS = {
    "only": [("gelu",), "layer_norm", ["resnet50", "gelu"]], "seeds": [1, "0,4", [3], (5, 6)], "epochs": [1, 7],
    "lr": [1e-3, 4e-12], "name": ["mine", "it-s"], "recipe": ["small", None], "width": [4, None], "depth": [0.5, 1],
    "precision": ["32", 32, "bf16-mixed"], "workers": [0, 2], "retries": [0, 2, 5], "compile": [True, False],
    "data_dir": ["it's \"here\"", "a\\b", "ordner/ä"], "jobs": ["auto", 2, "3"], "gpus": [None],
    "device": ["cpu", "auto"],
    "mixup": [0, 0.0, 0.8], "flip": [False, True], "ema": [None, 0.9], "betas": [(0.8, 0.9), [0.9, 0.95]],
    "randaugment": [None, "rand-m9"], "milestones": [(), (1, 2)], "optimizer": ["sgd"], "clip_gradient": [None, 1],
    "stochastic_depth": [0.0, None, {"resnet50": 0.1}], "decay_all": [False],
}  # fmt: skip
ABLATIONS = [
    {"design": "one-at-a-time", "steps": ["gelu", {"name": "mine", "mixup": 0, "flip": False, "ema": None}]},
    {"sweep": {"kernel_size": [3, 5]}}, {"sweep": "mixup=0,0.2"}, {"from_": "gelu"}, {"upto": "gelu", "roads": True},
    {"design": "order", "orders": 3, "order_seed": 7}, {"design": "factorial", "steps": "gelu,layer_norm",
     "fraction": 1},
]  # fmt: skip


def test_the_recorded_command_makes_an_equal_study(monkeypatch, tmp_path):
    draw = random.Random(0)
    asked = {}
    stand_in = type("roadmap", (), {"run": lambda **given: asked.update(given)})
    for number in range(200):
        names = draw.sample(sorted(SETTINGS), draw.randint(0, 8))
        settings = {name: draw.choice(SETTINGS[name]) for name in names}
        if number % 2:
            settings = {name: value for name, value in settings.items() if name != "only"} | draw.choice(ABLATIONS)
        spec = load_spec(**settings)
        asked.clear()
        exec(command_of(spec), {"roadmap": stand_in})
        assert load_spec(**asked) == spec, settings
    study = tmp_path / "study.yaml"
    study.write_text("mixup: 0.8\nflip: true\nretries: 5\nonly: gelu\n")
    assert command_of(load_spec(study, mixup=0, flip=False, retries=2), out=tmp_path) == (
        f"roadmap.run(only=('gelu',), seeds=(0, 1, 2, 3, 4), mixup=0, flip=False, out={str(tmp_path)!r})"
    )


# --- mistakes


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with things of every kind in the wrong places."""
    root = tmp_path_factory.mktemp("desk")
    make_image_folder(root / "images", train=3, test=2)
    (root / "folder.yaml").mkdir()
    (root / "folder").mkdir()
    (root / "file").write_text("text")
    (root / "binary").write_bytes(b"\xff\xfe\x00\x01")
    (root / "binary.yaml").write_bytes(b"\xff\xfe: \x80")
    (root / "deep.yaml").write_text("[" * 5000)
    (root / "list.yaml").write_text("- 1\n- 2\n")
    (root / "empty.yaml").write_text("")
    (root / "broken.yaml").write_text("epochs: [1, 2\nseeds: 3\n")
    (root / "tab.yaml").write_text("epochs:\n\t- 1\n")
    (root / "tag.yaml").write_text("epochs: !!python/object:os.system {}\n")
    (root / "colon.yaml").write_text("name: a: b\n")
    (root / "type.yaml").write_text("epochs: {a: 1}\n")
    (root / "null.yaml").write_text("data:\n")
    (root / "loop").symlink_to("loop")
    for name, content in {"json": "{", "array": "[]", "old": '{"format": 1}', "bytes": "\x00"}.items():
        (root / f"study-{name}").mkdir()
        (root / f"study-{name}" / "study.json").write_text(content)
    (root / "study-folder" / "study.json").mkdir(parents=True)
    (root / "weights.safetensors").write_text("not weights")
    (root / "weights.pth").write_bytes(b"not weights")
    (root / "table").mkdir()
    (root / "table" / "trajectory.csv").write_text('a,b\n"1,2\n')
    return root


LONG = "x" * 300
MISTAKES = [
    "run missing.yaml", "run folder.yaml", "run binary.yaml", "run deep.yaml", "run list.yaml", "run broken.yaml",
    "run tab.yaml", "run tag.yaml", "run colon.yaml", "run type.yaml", "run null.yaml", "run loop", f"run {LONG}.yaml",
    "run file/below.yaml", "run --recipe missing.yaml", "run --recipe folder.yaml", "run --recipe binary.yaml",
    "run --recipe broken.yaml", "run --recipe empty.yaml --mixup -1", "run --plugin missing.py", "run --plugin folder",
    "run --data folder --data-dir missing", "run --data folder --data-dir file",
    "run --data folder --data-dir folder", "run --data folder --data-dir loop", "run --data cifar10 --data-dir folder",
    "run --data wds --data-dir images", f"run --data folder --data-dir {LONG}",
    "run --data ''", "run --name ''", "run --only ''", "run --seeds ''", "run --epochs 1.5", "run --lr ''",
    "run --lr inf", "run --mixup x", "run --betas 1", "run --betas a,b", "run --sweep kernel_size", "run --sweep =3",
    "run --only gelu --epochs 1 --out file", "run --only gelu --epochs 1 --out file/below",
    "run --only gelu --epochs 1 --store file", "run --only gelu --epochs 1 --store file/below",
    f"run --only gelu --epochs 1 --out {LONG}", "run --resume --only gelu", "run --gpus x", "run --jobs -1",
    "plot missing", "plot file", "plot folder", "plot study-json", "plot study-array", "plot study-old",
    "plot study-bytes", "plot study-folder", "plot table", f"plot {LONG}", "effects folder", "effects file",
    "report missing", "report file", "list --store missing", "list --store file", "show 0 --store folder",
    "show x/y", "show ''", "rm 0 --store missing", "eval missing", "eval folder", "eval file", "eval weights.pth",
    "eval weights.safetensors", "eval binary", "finetune missing", "finetune weights.safetensors", "explain missing",
    "diff missing gelu", "recipes missing", "recipes broken.yaml",
    "steps --width x", "steps --width 0", "bench --upto ''",
    "reproduce 0 --store missing", "nonsense", "plot", "--nonsense",
]  # fmt: skip


def is_one_sentence(text: str) -> bool:
    own = not re.search(r"Traceback|\bNone\b|\[Errno|Error:|in \"<unicode|<class |\bdid not find expected", text)
    return own and "\n" not in text.strip() and text.strip() != "" and not text.strip().endswith(":")


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_answered_by_one_sentence(words, desk, monkeypatch):
    import shlex

    monkeypatch.delenv("ROADMAP_STORE", raising=False)
    before = sorted(desk.iterdir())
    shown = call(*shlex.split(words), cwd=desk)
    assert shown.code == 2 and not shown.out, shown
    # A plan's warnings may stand before what stops it.
    (sentence,) = (line for line in shown.err.splitlines() if not line.startswith("warning: "))
    assert sentence.startswith("roadmap: ") and is_one_sentence(f"{sentence}\n"), shown.err
    assert sorted(desk.iterdir()) == before, "nothing was made"


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("run", {"epochs": "x"}), ("run", {"epochs": 0}), ("run", {"seeds": []}), ("run", {"seeds": 1.5}),
        ("run", {"only": 3}), ("run", {"only": [3]}), ("run", {"lr": float("nan")}), ("run", {"data": None}),
        ("run", {"study": "missing.yaml"}), ("run", {"study": "folder.yaml"}),
        ("run", {"only": "gelu", "mixup": "much"}),
        ("run", {"nonsense": 1}), ("run", {"recipe": "folder.yaml"}), ("run", {"betas": None}), ("run", {"steps": 5}),
        ("run", {"data": "folder", "data_dir": "file"}), ("run", {"plugin": 5}), ("run", {"name": "a/b"}),
        ("load_study", {"folder": "missing"}), ("load_study", {"folder": "file"}),
        ("load_study", {"folder": "study-json"}),
        ("explain", {"step": "missing"}), ("diff", {"one": "missing", "other": "gelu"}), ("build", {"step": "missing"}),
    ],
)  # fmt: skip
def test_a_mistake_in_python_is_answered_by_one_sentence(call, arguments, desk, monkeypatch):
    monkeypatch.chdir(desk)
    with pytest.raises(RoadmapError) as caught:
        positional = call in ("load_study", "explain", "diff", "build")
        getattr(roadmap, call)(*arguments.values()) if positional else getattr(roadmap, call)(**arguments)
    assert is_one_sentence(str(caught.value)), str(caught.value)


def test_a_notebook_shows_the_sentence_alone():
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    lines: list[list[str]] = []
    shell._showtraceback = lambda kind, error, text: lines.append(text)
    shell.run_cell("import roadmap\nroadmap.build('nothing')")
    shell.run_cell("roadmap.run(epochs=0)")
    assert len(lines) == 2 and all(len(shown) == 1 and "\n" not in shown[0] for shown in lines)
    assert all(shown[0].startswith("RoadmapError: ") for shown in lines)
