"""The store of runs, through the commands on it: what they show, what they leave alone, what they remove."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import commands
import pandas as pd
import pytest
from markdown_it import MarkdownIt

import roadmap
from roadmap.store.records import LATER

PROJECT = Path(__file__).parents[1]


@pytest.fixture
def call():
    """The command line, in this process; never a traceback, and one sentence for a mistake."""

    def call(*words):
        shown = commands.call(*words)
        if shown.code:
            assert shown.code == 2 and shown.err.startswith("roadmap: ") and shown.err.count("\n") == 1, shown
        return shown

    return call


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a store with two runs that are done and one that failed, and with a study of the former."""

    def make(folder):
        small = {"epochs": 2, "width": 4, "batch_size": 32, "image_size": 16, "threads": 1, "jobs": "1"}
        roadmap.run(only=["patchify_stem"], seeds=[0, 1], out=folder / "study", store=folder / "store", **small)
        roadmap.run(only=["gelu"], seeds=[0], lr=999.0, out=folder / "bad", store=folder / "store", **small)

    return commands.once(tmp_path_factory, "trained", make)


@pytest.fixture
def store(trained, tmp_path):
    """A copy of that store, to be changed at will."""
    shutil.copytree(trained / "study", tmp_path / "study")
    return Path(shutil.copytree(trained / "store", tmp_path / "store"))


def records(store):
    """Signature -> record, read by nothing of the package."""
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(store.glob("runs/*/run.json"))}


def signatures(store, status="done"):
    return [name for name, record in records(store).items() if record["result"]["status"] == status]


def test_records_of_earlier_versions_are_read(store, call):
    """They lack the columns that came later."""
    whole = call("export", "--store", store, "--to", "csv").out
    for path in [*store.glob("runs/*/run.json"), store.parent / "study" / "study.json"]:
        content = json.loads(path.read_text())
        for record in content.get("runs", [content]):
            for part in (record, *(record.get(name, {}) for name in ("run", "result", "origin"))):
                for column in LATER:
                    part.pop(column, None)
        path.write_text(json.dumps(content))
    table = pd.read_csv(io.StringIO(call("export", "--store", store, "--to", "csv").out))
    assert list(table) == whole.splitlines()[0].split(",") and table[list(LATER)].isna().all(axis=None)
    assert call("status", store.parent / "study").out and call("show", table["signature"][0], "--store", store).out
    runs = roadmap.load_study(store.parent / "study").runs
    derived = ["ablation", "reference", "steps"]  # of a ladder they follow from its rungs
    assert list(runs["top1"]) and runs[[*{*LATER} - {*derived}]].isna().all(axis=None)
    assert runs[derived].notna().all(axis=None)


def copy_run(store, signature, name):
    """One more run, with the files of another."""
    source, target = store / "runs" / signature, store / "runs" / name
    target.mkdir()
    for path in source.iterdir():
        if path.name == "run.json":
            (target / path.name).write_text(path.read_text().replace(signature, name))
        else:
            os.link(path, target / path.name)


def snapshot(folder):
    return {
        str(path.relative_to(folder)): (path.lstat().st_mtime_ns, path.lstat().st_ctime_ns, path.lstat().st_size)
        for path in folder.rglob("*")
    }


@contextlib.contextmanager
def claimed(store, signature, progress=None):
    """Another process has the run to itself meanwhile."""
    script = (
        "import sys, json; from roadmap.store.store import Store\n"
        "store, signature, progress = Store(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])\n"
        "with store.claim(signature) as mine:\n"
        "    store.partial(signature); store.report(signature, progress)\n"
        "    print(mine, flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", script, str(store), signature, json.dumps(progress or {})]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "True\n"
        try:
            yield
        finally:
            process.communicate()


# --- what is shown


def test_list_shows_what_the_records_say(store, call):
    rows = json.loads(call("list", "--store", store, "--json").out)
    found = records(store)
    assert {row["signature"] for row in rows} == set(found) and len(rows) == 3
    for row in rows:
        record = found[row["signature"]]
        run, result = record["run"], record["result"]
        assert row == {
            "signature": record["signature"], "status": result["status"], "step": run["step"], "seed": run["seed"],
            "data": run["data"], "recipe": run["recipe"]["name"], "width": run["width"], "depth": run["depth"],
            "epochs": result["epochs"], "top1": result["top1"], "seconds": result["seconds"],
            "started": record["origin"]["started"],
        }  # fmt: skip
    assert [row["started"] for row in rows] == sorted(row["started"] for row in rows)
    table = list(csv.DictReader(io.StringIO(call("list", "--store", store, "--csv").out)))
    assert [row["signature"] for row in table] == [row["signature"] for row in rows]
    lines = call("list", "--store", store).out.splitlines()
    assert [line.split()[0] for line in lines] == ["run", *(row["signature"] for row in rows)]


@pytest.mark.parametrize(
    ("words", "count"),
    [
        ("--status done", 2), ("--status failed", 1), ("--status damaged", 0), ("--step gelu", 1), ("--seed 1", 1),
        ("--data embedded", 3), ("--data cifar10", 0), ("--step patchify_stem --seed 0 --status done", 1),
    ],
)  # fmt: skip
def test_list_filters(store, call, words, count):
    assert len(json.loads(call("list", "--store", store, "--json", *words.split()).out)) == count
    text = call("list", "--store", store, *words.split()).out
    assert len(text.splitlines()) == (count + 1 if count else 1)


def test_status_counts_and_gives_reasons(store, call):
    report = json.loads(call("status", "--store", store, "--json").out)
    assert report["counts"] == {
        "done": 2, "running": 0, "interrupted": 0, "failed": 1, "damaged": 0, "unreadable": 0,
    }  # fmt: skip
    assert report["bytes"] == sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    [bad] = signatures(store, "failed")
    assert [run["signature"] for run in report["failed"]] == [bad]
    text = call("status", "--store", store).out
    assert "2 done, 0 running, 1 failed" in text and records(store)[bad]["result"]["reason"] in text


def test_status_of_a_study_has_real_times_beside_estimated_ones(store, call):
    study = store.parent / "study"
    first, second = (run["signature"] for run in json.loads((study / "study.json").read_text())["runs"])
    path = store / "runs" / first / "run.json"
    record = json.loads(path.read_text())
    record["origin"]["estimated_seconds"] = 2 * record["result"]["wall_seconds"]
    path.write_text(json.dumps(record))
    shutil.rmtree(store / "runs" / second)
    report = json.loads(call("status", study, "--json").out)
    assert [(run["signature"], run["status"]) for run in report["runs"]] == [(first, "done"), (second, "waiting")]
    assert report["runs"][0]["wall_seconds"] == record["result"]["wall_seconds"] == report["wall_seconds"]
    assert report["estimated_seconds"] == record["origin"]["estimated_seconds"]
    text = call("status", study).out
    assert "1 done, 0 running, 0 failed, 1 waiting" in text and "(ratio 0.50)" in text and str(store) in text


def test_show_has_every_fact_and_checks_every_byte(store, call):
    [bad], good = signatures(store, "failed"), signatures(store)[0]
    text = call("show", good[:15], "--store", store).out
    record = records(store)[good]
    facts = [*record["run"]["design"], *record["run"]["recipe"], *record["cost"], *record["result"]]
    for name in (*facts, *record["environment"], *record["origin"]):
        assert re.search(rf"^  {name}( |$)", text, re.MULTILINE), name
    for name in ("history.csv", "weights.safetensors"):
        assert hashlib.sha256((store / "runs" / good / name).read_bytes()).hexdigest() in text
    assert "all files are as they were written" in text
    assert json.loads(call("show", good, "--store", store, "--json").out) == record
    assert records(store)[bad]["result"]["reason"] in call("show", bad, "--store", store).out
    weights = store / "runs" / good / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert "weights.safetensors is not what was written" in call("show", good, "--store", store).out


def test_a_run_in_work_is_seen_at_it(store, call):
    good, name = signatures(store)[0], "00000000000000aa"
    progress = {
        "epoch": 3, "epochs": 10, "fraction": 0.5, "train_top1": 61.25, "images_per_second": 1234.0, "began": 0,
        "seconds_left": 3600.0, "host": "here", "run": records(store)[good]["run"],
    }  # fmt: skip
    with claimed(store, name, progress):
        [row] = json.loads(call("status", "--store", store, "--json").out)["running"]
        assert (row["signature"], row["step"], row["seed"]) == (name, "patchify_stem", progress["run"]["seed"])
        assert (row["epoch"], row["epochs"], row["train_top1"], row["host"]) == (3, 10, 61.25, "here")
        assert 3500 < row["seconds_left"] <= 3600
        assert re.search(rf"{name}  patchify_stem +\d  +3/10 +61\.2 +1234 +(59:\d\d|1:00:00)  here",
                         call("status", "--store", store).out)  # fmt: skip
        assert "running" in call("show", name, "--store", store).out
        [listed] = json.loads(call("list", "--store", store, "--status", "running", "--json").out)
        assert (listed["epochs"], listed["started"]) == (3, "1970-01-01T00:00:00+00:00")
    assert json.loads(call("status", "--store", store, "--json").out)["counts"]["interrupted"] == 1
    assert "interrupted" in call("show", name, "--store", store).out


def test_text_of_records_cannot_command_a_terminal(store, call):
    good = signatures(store)[0]
    path = store / "runs" / good / "run.json"
    record = json.loads(path.read_text())
    record["run"]["step"] = record["origin"]["command"] = "\x1b[2J\nboo"
    path.write_text(json.dumps(record))
    for words in (["list"], ["show", good], ["status"], ["rm", good, "--yes"]):
        shown = call(*words, "--store", store)
        assert "\x1b" not in shown.out


# --- exports


def column(record, name):
    for part in ("run", "result", "cost", "environment", "origin", "labels"):
        if name in record[part]:
            value = record[part][name]
            return "+".join(value) or None if name == "steps" else value
    raise KeyError(name)


@pytest.mark.filterwarnings("ignore:.*float_precision")  # needed by older versions of pandas
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_exports_read_by_pandas_are_the_records(store, call, tmp_path, kind):
    pytest.importorskip("pyarrow")
    output = tmp_path / f"runs.{kind}"
    assert call("export", "--store", store, "--to", kind, "--out", output).code == 0
    table = pd.read_csv(output, float_precision="round_trip") if kind == "csv" else pd.read_parquet(output)
    found = records(store)
    assert set(table["signature"]) == set(found)
    for row in table.to_dict("records"):
        record = found[row["signature"]]
        for name in set(row) - {"data", "recipe", "precision"}:
            expected = column(record, name)
            assert pd.isna(row[name]) if expected is None else row[name] == expected, name
        assert (row["data"], row["recipe"]) == (record["run"]["data"], record["run"]["recipe"]["name"])
    if kind == "parquet":
        kinds = {bool: "b", int: "i", float: "f"}
        [good, *_] = (found[name] for name in signatures(store))
        for name in set(table) - {"data", "recipe"}:
            expected = kinds.get(type(column(good, name)))
            assert expected is None or table[name].dtype.kind == expected, name


def test_exports_as_text_escape_what_users_typed(store, call):
    pytest.importorskip("tabulate")
    typed = r"a|b <i>x</i> *y* _z_ `c` \d 50% $e$ {f} #g & ~h^ [i](j)"
    for path in store.glob("runs/*/run.json"):
        record = json.loads(path.read_text())
        record["run"]["step"] = typed
        path.write_text(json.dumps(record))
    page = call("export", "--store", store, "--to", "md").out
    tokens = MarkdownIt("commonmark").enable("table").parse(page)
    cells = [token for token in tokens if token.type == "inline"]
    assert [cell.content for cell in cells[:3]] == ["step", "seed", "status"] and len(cells) == 4 * 10
    for cell in cells[10::10]:
        assert "".join(child.content for child in cell.children) == typed
        assert {child.type for child in cell.children} == {"text"}
    latex = call("export", "--store", store, "--to", "latex").out
    body = latex.split("\\midrule")[1].split("\\bottomrule")[0]
    for line in body.strip().splitlines():
        text = re.split(r"(?<!\\)&", line)[0]
        plain = re.sub(r"\\ensuremath\{[<>]\}|\\textbackslash\{\}|\\textasciitilde\{\}|\\\^\{\}", "", text)
        assert not re.search(r"(?<!\\)[&%$#_{}~^]", plain) and not re.search(r"\\[^&%$#_{}]", plain), plain


def test_exports_of_a_study_have_its_runs_in_its_order(store, call):
    study = store.parent / "study"
    runs = json.loads((study / "study.json").read_text())["runs"]
    table = pd.read_csv(io.StringIO(call("export", study).out))
    assert list(table["signature"]) == [run["signature"] for run in runs]
    assert list(table) == list(pd.read_csv(study / "trajectory.csv"))


def test_a_missing_package_is_named(store, call, monkeypatch, tmp_path):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for kind, package in (("parquet", "pyarrow"), ("md", "tabulate"), ("latex", "tabulate")):
        shown = call("export", "--store", store, "--to", kind, "--out", tmp_path / "x")
        assert f"pip install {package}" in shown.err and not (tmp_path / "x").exists()


# --- stores that are large, in use, damaged, foreign, empty


def test_ten_thousand_runs(store, call):
    good, [bad] = signatures(store)[0], signatures(store, "failed")
    names = random.Random(0).sample(range(2**62), 9_997)
    for index, number in enumerate(names):
        copy_run(store, bad if index < 7 else good, f"{number:016x}")
    report = json.loads(call("status", "--store", store, "--json").out)
    assert (report["counts"]["done"], report["counts"]["failed"]) == (9_992, 8)
    assert len(json.loads(call("list", "--store", store, "--json").out)) == 10_000
    assert len(call("list", "--store", store, "--status", "failed").out.splitlines()) == 9
    assert "9992 done, 0 running, 8 failed" in call("status", "--store", store).out
    assert call("show", f"{names[5]:016x}", "--store", store).out.startswith(f"run {names[5]:016x}: gelu")


WRITER = """
import json, sys, time
from roadmap.store.store import Store
store, record = Store(sys.argv[1]), json.loads(sys.argv[2])
history = [{"epoch": 1, "train_loss": 0.5}]
end = time.monotonic() + 60
while time.monotonic() < end:
    for number in range(8):
        signature = f"{number:016x}"
        with store.claim(signature, 1.0) as mine:
            store.report(signature, {"epoch": 1, "epochs": 2})
            store.finish(signature, record | {"run": record["run"] | {"signature": signature}}, history, weights=False)
        print(flush=True)
        if number % 2:
            store.remove(signature)
"""


def test_reading_while_others_write(store, call):
    good = signatures(store)[0]
    record = {name: value for name, value in records(store)[good].items() if name not in ("files", "signature")}
    accuracies = {found["result"]["top1"] for found in records(store).values()}
    words = [sys.executable, "-c", WRITER, str(store), json.dumps(record)]
    writer = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        for _ in range(8):  # each run was there once
            assert writer.stdout.readline() == "\n", writer.stderr.read()
        for _ in range(30):
            rows = json.loads(call("list", "--store", store, "--json").out)
            assert {row["status"] for row in rows} <= {"done", "running", "failed", "interrupted"}
            done = [row for row in rows if row["status"] == "done"]
            assert all(row["top1"] in accuracies and row["step"] == "patchify_stem" for row in done)
            report = json.loads(call("status", "--store", store, "--json").out)
            assert not report["damaged"] and not report["unreadable"]
            for words in (["status"], ["list"], ["export"], ["gc", "--dry-run", "--failed"]):
                assert call(*words, "--store", store).code == 0
            for words in (["show", "0000000000000001"], ["show", "0000000000000002", "--json"]):
                shown = call(*words, "--store", store)
                assert not shown.code or "there is no run" in shown.err or "has just been removed" in shown.err
        assert writer.poll() is None, writer.stderr.read()
    finally:
        writer.kill()
        writer.communicate()


@pytest.mark.parametrize("name", ["run.json", "history.csv", "weights.safetensors", "correct.bits"])
@pytest.mark.parametrize("how", ["half", "empty", "gone"])
def test_a_run_that_lost_a_part_is_damaged_and_never_done(store, call, name, how):
    hurt, other = signatures(store)
    path = store / "runs" / hurt / name
    content = path.read_bytes()
    path.unlink()
    if how != "gone":
        path.write_bytes(content[: len(content) // 2] if how == "half" else b"")
    rows = {row["signature"]: row for row in json.loads(call("list", "--store", store, "--json").out)}
    assert (rows[hurt]["status"], rows[other]["status"]) == ("damaged", "done") and rows[hurt]["top1"] is None
    report = json.loads(call("status", "--store", store, "--json").out)
    assert [run["signature"] for run in report["damaged"]] == [hurt] and name in report["damaged"][0]["reason"]
    assert "1 damaged" in call("status", "--store", store).out
    assert name in call("show", hurt, "--store", store).out
    exported = call("export", "--store", store)
    assert hurt not in exported.out and other in exported.out and "left out: 1 run" in exported.err
    assert json.loads(call("status", store.parent / "study", "--json").out)["counts"]["damaged"] == 1
    assert hurt in call("gc", "--store", store, "--damaged").out
    assert not (store / "runs" / hurt).exists() and (store / "runs" / other).exists()


@pytest.mark.parametrize(
    "content", ["[" * 100_000, "[]", '{"format": 2}', '{"format": 2, "signature": 5}', "null", "\x00"]
)
def test_a_record_of_anything_else_is_no_run(store, call, content):
    hurt = signatures(store)[0]
    (store / "runs" / hurt / "run.json").write_text(content)
    for words in (["list"], ["status"], ["show", hurt], ["export"], ["gc", "--dry-run"]):
        assert call(*words, "--store", store).code == 0
    assert len(json.loads(call("list", "--store", store, "--json", "--status", "done").out)) == 1


def test_a_record_names_no_file_elsewhere(store, call):
    hurt = signatures(store)[0]
    path = store / "runs" / hurt / "run.json"
    record = json.loads(path.read_text())
    record["files"]["../../../secret"] = {"bytes": 1, "sha256": ""}
    path.write_text(json.dumps(record))
    (store.parent / "secret").write_text("x")
    assert json.loads(call("list", "--store", store, "--json", "--status", "damaged").out)[0]["signature"] == hurt


COMMANDS = ("status", "list", "show 0", "export", "rm 0 --yes", "gc")


@pytest.mark.parametrize("words", COMMANDS)
def test_another_format_is_refused_in_one_sentence(store, call, words):
    (store / "store.json").write_text('{"format": 3}')
    before = snapshot(store)
    shown = call(*words.split(), "--store", store)
    assert shown.code == 2 and "format 3" in shown.err and snapshot(store) == before


def test_a_run_of_another_format_is_named_and_left_alone(store, call):
    other = signatures(store)[0]
    (store / "runs" / other / "run.json").write_text('{"format": 3}')
    report = json.loads(call("status", "--store", store, "--json").out)
    assert report["counts"]["unreadable"] == 1 and "format 3" in report["unreadable"][0]["reason"]
    assert other not in call("gc", "--store", store, "--damaged", "--failed", "--interrupted").out
    assert (store / "runs" / other).exists()


@pytest.mark.parametrize("words", COMMANDS)
def test_no_store_at_all(tmp_path, call, words):
    assert "there is no store in" in call(*words.split(), "--store", tmp_path / "nowhere").err
    (tmp_path / "other").mkdir()
    assert "holds no store" in call(*words.split(), "--store", tmp_path / "other").err
    assert [path.name for path in tmp_path.rglob("*")] == ["other"]


def test_an_empty_store(tmp_path, call):
    (tmp_path / "store.json").write_text('{"format": 2}')
    assert "0 done" in call("status", "--store", tmp_path).out
    assert "no runs yet" in call("list", "--store", tmp_path).out
    assert json.loads(call("list", "--store", tmp_path, "--json").out) == []
    assert call("list", "--store", tmp_path, "--csv").out.startswith("signature,")
    assert call("export", "--store", tmp_path).out.startswith("regime,step,")
    assert "nothing to remove" in call("gc", "--store", tmp_path).out
    assert "there is no run 0" in call("show", "0", "--store", tmp_path).err
    assert [path.name for path in tmp_path.iterdir()] == ["store.json"]


READING = ("status", "status --json", "list", "list --csv", "export --to csv")


def test_reading_changes_nothing(store, call):
    with claimed(store, "00000000000000aa"):
        before = snapshot(store.parent)
        for words in (*READING, f"show {signatures(store)[0]}", "show 00000000000000aa", "gc --dry-run"):
            assert call(*words.split(), "--store", store).code == 0
        assert call("status", store.parent / "study").code == 0
        assert snapshot(store.parent) == before


def test_a_store_that_may_only_be_read(store, call):
    (store / "locks" / "00000000000000aa").touch()
    folders = [store, *(path for path in store.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        if os.access(store, os.W_OK):
            pytest.skip("permissions do not bind this user")
        for words in (*READING, f"show {signatures(store)[0]}"):
            assert call(*words.split(), "--store", store).code == 0
        for words in (f"rm {signatures(store)[0]} --yes", "gc --failed"):
            call(*words.split(), "--store", store)
        assert len(signatures(store)) == 2 and len(signatures(store, "failed")) == 1
    finally:
        for folder in folders:
            folder.chmod(0o755)


# --- what is removed


def test_rm_removes_what_it_is_told(store, call, monkeypatch):
    first, second = signatures(store)
    before = snapshot(store)
    assert "add --yes" in call("rm", first, "--store", store).err and snapshot(store) == before
    terminal = io.StringIO("n\ny\n")
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdin", terminal)
    assert "nothing was removed" in call("rm", first, "--store", store).out and snapshot(store) == before
    assert first in call("rm", first, "--store", store).out
    assert not (store / "runs" / first).exists() and (store / "runs" / second).exists()
    [bad] = signatures(store, "failed")
    assert call("rm", second[:15], bad, bad, "--yes", "--store", store).code == 0
    assert not records(store) and not list((store / "locks").iterdir()) and not list((store / "partial").iterdir())


@pytest.mark.parametrize(
    "name", ["../../x", "..", ".", "", "/etc", "x", "0" * 17, "*", "a\n", "ABCDEF", "../runs/0000000000000000"]
)
@pytest.mark.parametrize("command", ["rm --yes", "show"])
def test_no_name_leads_out_of_the_store(store, call, command, name):
    precious = store.parent / "x"
    precious.mkdir()
    (precious / "run.json").write_text("{}")
    before = snapshot(store.parent)
    shown = call(*command.split(), "--store", store, "--", name)
    assert shown.code == 2 and snapshot(store.parent) == before


def test_a_study_names_no_run_elsewhere(store, call):
    path = store.parent / "study" / "study.json"
    study = json.loads(path.read_text())
    study["runs"][0]["signature"] = f"../runs/{study['runs'][0]['signature']}"
    path.write_text(json.dumps(study))
    for words in (["status"], ["export"]):
        assert call(*words, path.parent).code == 2


@pytest.mark.parametrize("place", ["runs", "partial"])
@pytest.mark.parametrize("kind", ["folder", "file", "nothing"])
def test_a_link_is_removed_as_a_link(store, call, tmp_path, place, kind):
    precious = tmp_path / "precious"
    if kind == "folder":
        shutil.copytree(store / "runs" / signatures(store)[0], precious)
    elif kind == "file":
        precious.write_text("x")
    before = snapshot(precious) if kind == "folder" else precious.exists()
    link = store / place / "00000000000000aa"
    link.symlink_to(precious)
    call("rm", link.name, "--yes", "--store", store)
    assert (snapshot(precious) if kind == "folder" else precious.exists()) == before
    assert not os.path.lexists(link) and not list((store / "partial").iterdir())


def test_rm_removes_all_or_none(store, call):
    first, second = signatures(store)
    with claimed(store, second):
        before = snapshot(store / "runs")
        shown = call("rm", first, second, "--yes", "--store", store)
        assert f"run {second} is being trained" in shown.err or shown.code == 2
        assert snapshot(store / "runs") == before
    assert "there is no run" in call("rm", first, "00000000000000aa", "--yes", "--store", store).err
    assert snapshot(store / "runs") == before
    assert call("rm", first, second, "--yes", "--store", store).code == 0
    assert signatures(store) == []


def leave(path, age):
    """Something that a process left over so many seconds ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x" * 100)
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_gc_removes_what_no_run_needs(store, call):
    old, new = 7200, 60
    interrupted, at_work, [bad] = "00000000000000aa", "00000000000000bb", signatures(store, "failed")
    garbage = [
        leave(store / ".measured.json.4711", old),
        leave(store / "partial" / f".{interrupted}.4711", old),
        leave(store / "partial" / interrupted / ".epoch.ckpt.4711", old),
        leave(store / "partial" / signatures(store)[0] / "epoch.ckpt", new).parent,  # settled: nobody goes on with it
        leave(store / "locks" / "00000000000000cc", new),
    ]
    kept = [
        leave(store / ".gitignore", old),
        leave(store / ".measured.json.4712", new),
        leave(store / "partial" / interrupted / "epoch.ckpt", old),
        leave(store / "partial" / at_work / ".epoch.ckpt.4711", old),
        leave(store / "partial" / at_work / "epoch.ckpt", old),
        leave(store / "locks" / "notes", old),
    ]
    with claimed(store, at_work):
        before = snapshot(store)
        said = call("gc", "--dry-run", "--store", store, "--failed", "--interrupted").out
        assert snapshot(store) == before and bad in said and "would remove 6 items" in said
        assert "removed 5 items" in call("gc", "--store", store).out
        assert not any(path.exists() for path in garbage) and all(path.exists() for path in kept)
        assert len(records(store)) == 3
        said = call("gc", "--store", store, "--failed", "--interrupted", "--damaged").out
        assert "removed 2 items" in said and bad in said and interrupted in said
        assert not (store / "partial" / interrupted).exists() and (store / "partial" / at_work / "epoch.ckpt").exists()
        assert len(records(store)) == 2
        assert "nothing to remove" in call("gc", "--store", store, "--failed", "--interrupted", "--damaged").out


# --- mistakes and documentation


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("list --json --csv", "exclude each other"),
        ("list --status finished", "'finished' is not one of"),
        ("export --to parquet", "--out"),
        ("export --to xlsx", "'xlsx' is not one of"),
        ("export --out nowhere/runs.csv", "nowhere/runs.csv cannot be written"),
        ("status nowhere", "there is no folder nowhere"),
        ("status .", "holds no study"),
        ("show", "Missing argument"),
        ("rm", "Missing argument"),
    ],
)
def test_mistakes(store, call, monkeypatch, words, sentence):
    monkeypatch.chdir(store.parent)
    monkeypatch.setenv("ROADMAP_STORE", str(store))
    before = snapshot(store.parent)
    assert sentence.lower() in call(*words.split()).err.lower() and snapshot(store.parent) == before


def test_a_beginning_that_several_runs_share(store, call):
    for digit in "12":
        copy_run(store, signatures(store)[0], f"00000000000000a{digit}")
    assert "2 runs begin with 0000" in call("show", "0000", "--store", store).err
    assert call("show", "00000000000000a1", "--store", store).code == 0


def test_a_study_says_itself_where_its_store_is(store, call):
    assert "leave out --store" in call("status", store.parent / "study", "--store", store).err


def documented(heading):
    """The names in the table under a heading of docs/store.md."""
    page = (PROJECT / "docs" / "store.md").read_text()
    [section] = re.findall(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", page, re.MULTILINE | re.DOTALL)
    return set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))


def test_the_documented_schema_is_the_written_one(trained):
    for record in records(trained / "store").values():
        assert set(record) == documented("run.json")
        for part in ("run", "cost", "result", "labels", "data", "environment", "origin"):
            assert set(record[part]) == documented(part), part
        for name, facts in record["files"].items():
            assert set(facts) == documented("files") and name in ("history.csv", "weights.safetensors")
        kept = record["correct"]
        assert kept is None if record["result"]["status"] == "failed" else set(kept) == documented("files")
    for path in (trained / "store").glob("runs/*/history.csv"):
        names = path.read_text().splitlines()[:1]
        assert not names or set(names[0].split(",")) == documented("history.csv")
    assert json.loads((trained / "store" / "store.json").read_text()) == {"format": 2}
    page = (PROJECT / "docs" / "store.md").read_text()
    for name in json.loads((trained / "study" / "study.json").read_text()):
        assert f"`{name}`" in page
