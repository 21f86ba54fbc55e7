"""The demo's page in a browser, from the command and from a saved folder."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import browsers
import pytest
import yaml
from commands import call, once
from demonstrated import bare, make_study
from packaging.requirements import Requirement
from PIL import Image
from sklearn.datasets import load_sample_image

import roadmap
from roadmap.store.folder import StudyFolder


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with images, a study of them, and its store."""
    return once(tmp_path_factory, "demo", make_study)


@pytest.fixture
def photograph(tmp_path):
    path = tmp_path / "china.jpg"
    Image.fromarray(load_sample_image("china.jpg")).save(path, quality=95)
    return path


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def served(*command, cwd: Path, port: int):
    """The address of a demo in a process of its own, which ends as by Ctrl+C, without a word."""
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "GRADIO_SERVER_PORT": str(port), "HTTP_PROXY": "", "HTTPS_PROXY": ""},
    )
    try:
        line = process.stdout.readline()
        address = re.search(r"at (http://127\.0\.0\.1:\d+/) \(Ctrl\+C ends it\)$", line)
        if not address:
            process.kill()
            pytest.fail(line + process.stderr.read())
        assert address[1] == f"http://127.0.0.1:{port}/"
        yield address[1]
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0 and "Traceback" not in process.stderr.read()
    finally:
        process.kill()


def sides(page):
    """Of both networks: the heading, and (class, per cent) as the page has them."""
    for article in page.locator("#sides article").all():
        rows = [row.locator("th, td").all_inner_texts() for row in article.locator("tr").all()]
        yield article.locator("h3").inner_text(), [(row[0], row[-1]) for row in rows]


def try_page(address: str, place: Path, photograph: Path) -> None:
    """Pick the step, drop the photograph, then what is none, and choose a test image."""
    with browsers.browser() as opened:
        page, heard = opened.new_page(viewport={"width": 1440, "height": 900}), []
        page.on("request", lambda request: heard.append(request.url))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.goto(address)
        page.get_by_label("Step").click()
        page.get_by_role("option", name="separate downsample").click()
        page.set_input_files("#dropped input[type=file]", photograph)
        page.wait_for_selector("#sides article")
        expected = [
            (f"{when}: {label}", [(name, f"{100 * share:.1f} %") for name, share in bare(place, network, photograph)])
            for when, network, label in (
                ("Before", "layer_norm", "layer norm"),
                ("After", "separate_downsample", "separate downsample"),
            )
        ]
        assert [*sides(page)] == expected
        assert page.locator("#sides figcaption").all_inner_texts() == [
            "What the networks see: 64 px",
            *(f"Evidence for {rows[0][0]}" for _, rows in expected),
        ]
        assert page.locator("#numbers h2").inner_text().startswith("separate downsample: ")
        page.get_by_label("Seed").click()
        page.get_by_role("option", name="1").click()
        other = bare(place, "layer_norm", photograph, seed=1)
        page.locator("#sides article").first.get_by_text(f"{100 * other[0][1]:.1f} %").first.wait_for()
        page.get_by_label("Evidence for").click()
        page.get_by_role("option", name="blue").click()
        page.wait_for_function("document.querySelectorAll('#sides figcaption')[2].innerText == 'Evidence for blue'")
        page.locator("#tried button", has_text="red").first.click()
        page.wait_for_function("document.querySelector('#dropped img')?.src.endsWith('2.png')")
        letter = photograph.with_name("letter.jpg")
        letter.write_bytes(b"Dear Sir")
        page.get_by_label("Remove Image").click()
        page.set_input_files("#dropped input[type=file]", letter)
        page.get_by_text("letter.jpg is not a readable image: drop another one").wait_for()
        for width in (1440, 390):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert [one for one in heard if not one.startswith((address, "data:", "blob:"))] == []


@pytest.mark.slow
def test_the_page_shows_a_photograph_before_and_after_a_step(trained, photograph):
    port = free_port()
    command = ["-m", "roadmap", "demo", "study", "--port", port]
    with served(*command, cwd=trained, port=port) as address:
        try_page(address, trained, photograph)


@pytest.mark.slow
def test_a_saved_folder_runs_alone_and_shows_the_same(trained, photograph, tmp_path):
    place, space = tmp_path / "elsewhere", tmp_path / "elsewhere" / "space"
    place.mkdir()
    shutil.copytree(trained, tmp_path / "moved")
    plugin = tmp_path / "mine.py"
    plugin.write_text("import roadmap\nroadmap.step('mine', why='Mine.', kernel_size=5)\n")
    done = call("demo", tmp_path / "moved" / "study", "--save", space, "--plugin", plugin)
    assert (done.code, done.out) == (0, f"{space}\n"), done.err
    effects = roadmap.load_study(tmp_path / "moved" / "study").effects
    shutil.rmtree(tmp_path / "moved")
    kinds = {path.suffix for path in space.rglob("*") if path.is_file()}
    assert kinds <= {".py", ".txt", ".md", ".csv", ".json", ".png", ".safetensors", ".bits"}
    header = yaml.safe_load((space / "README.md").read_text().split("---\n")[1])
    assert (header["sdk"], header["app_file"]) == ("gradio", "app.py")
    assert header["sdk_version"] == metadata.version("gradio") and header["title"] == "study"
    wanted = Requirement((space / "requirements.txt").read_text().strip())
    assert wanted.name == "roadmap-ablation" and wanted.extras == {"demo"}
    address = re.search(r'^Repository = "(.+)"$', (Path(__file__).parents[1] / "pyproject.toml").read_text(), re.M)[1]
    assert wanted.url == f"git+{address}"
    assert roadmap.load_study(space / "study").effects.equals(effects)
    assert len([*space.rglob("weights.safetensors")]) == 4 and (space / "plugins" / "mine.py").is_file()
    port = free_port()
    with served(space / "app.py", cwd=place, port=port) as address:
        try_page(address, trained, photograph)


@pytest.mark.slow
def test_a_saved_folder_has_no_weights_that_it_does_not_show(trained, tmp_path):
    """Of a run without a partner: its record is kept, for the numbers, and says that it has none."""
    shutil.copytree(trained, tmp_path / "moved")
    folder = StudyFolder(tmp_path / "moved" / "study")
    said = folder.study()
    lost = next(run for run in said["runs"] if (run["step"], run["seed"]) == ("layer_norm", 1))
    said["runs"].remove(lost)
    (folder.folder / "study.json").write_text(json.dumps(said))
    assert call("demo", folder.folder, "--save", tmp_path / "space").code == 0
    runs = roadmap.load_study(tmp_path / "space" / "study").runs
    store = tmp_path / "space" / "study" / "store" / "runs"
    files = {
        (run["step"], run["seed"]): {path.name for path in (store / run["signature"]).iterdir()}
        for run in runs.to_dict("records")
    }
    kept = {"run.json", "history.csv", "correct.bits"}
    shown = {"layer_norm": (0,), "separate_downsample": (0,)}
    assert files == {
        **{(step, seed): kept | {"weights.safetensors"} for step, seeds in shown.items() for seed in seeds},
        ("separate_downsample", 1): kept,
    }
