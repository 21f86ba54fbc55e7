"""What a person sees while a command is at work: on terminals of any size, in pipes, and in notebooks."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
import types

import matplotlib
import numpy as np
import pyte
import pytest
from folders import make_image_folder
from PIL import Image
from rich.console import Console

import roadmap
from roadmap.checks import RoadmapError
from roadmap.data.sources import open_data
from roadmap.phases import StatusLine, listening, phase
from roadmap.planning.reading import load_spec
from roadmap.planning.runs import plan
from roadmap.running.display import LiveDisplay, display_in_python

NARROW, LINES = 50, 24


class Terminal(io.StringIO):
    def isatty(self):
        return True

    def fileno(self):
        return 1_000_000  # none, so that it has 80 columns


@pytest.fixture(scope="module")
def runs():
    """The runs of a study of the whole ladder, two seeds each, planned by the program."""
    spec = load_spec(roads=True, seeds=2, epochs=2)
    return plan(spec, open_data("embedded"))


def work(run):
    """PFLOPs of a run that are easy to count with."""
    return 2.0 if run.step == "resnet50" else 1.0


def shown(runs, measured=None, columns=NARROW, lines=LINES):
    """(display, what it shows): a live display, told of a study, whose terminal is a page of text."""
    live = LiveDisplay(Console(file=io.StringIO(), width=columns, height=lines, force_terminal=True, color_system=None))
    live.begin(runs, {run.signature: work(run) for run in runs}, 2, measured or {})

    def text():
        console = Console(file=io.StringIO(), width=columns, height=lines)
        console.print(live._render())
        return console.file.getvalue().splitlines()

    return live, text


# --- phases


def test_a_phase_is_one_line_of_a_terminal_and_vanishes(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    screen = pyte.Screen(80, LINES)
    stream = pyte.Stream(screen)

    def lines():
        screen.reset()
        stream.feed(sys.stderr.getvalue().replace("\n", "\r\n"))
        return [line.rstrip() for line in screen.display if line.strip()]

    with listening(StatusLine()):
        with phase("reading the data"):
            assert lines() == ["reading the data…"]
            with phase("part \x1b[31m " + "x" * 200):
                assert len(lines()) == 1 and lines()[0].startswith("part \\x1b[31m xxx")
            assert lines() == ["reading the data…"]
        print("warning: at the left edge", file=sys.stderr)
    assert lines() == ["warning: at the left edge"]


@pytest.mark.parametrize("where", ["file", "memory"])
def test_elsewhere_a_phase_is_told_once_if_it_takes_long_and_its_parts_are_not(where, tmp_path, monkeypatch):
    stream = io.StringIO() if where == "memory" else (tmp_path / "errors").open("w+")
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr("roadmap.phases.DELAY", 0.05)
    with listening(StatusLine()):
        for _ in range(2):
            with phase("drawing"), phase("a part"):
                time.sleep(0.3)
        with phase("quick"):
            pass
        time.sleep(0.3)
    stream.seek(0)
    assert stream.read() == ("" if where == "memory" else "drawing…\n")
    stream.close()


def test_nobody_is_told_of_phases_where_nobody_asked(capsys):
    with phase("reading"):
        pass
    assert capsys.readouterr() == ("", "")


# --- the live display


def test_the_time_left_is_known_from_the_plan_on(runs):
    """Runs of 30 s each in two slots, but for those of the start, which take 60 s."""
    measured = {run.signature: 30.0 * work(run) for run in runs}
    _, text = shown(runs, measured)
    seconds = (30 * len(runs) + 2 * 30) / 2
    left = f"{int(seconds // 60)}:{int(seconds % 60):02} left: ends at "
    assert any(left in line for line in text()), text()


def test_without_a_measurement_the_first_run_at_work_tells_the_time_left(runs):
    live, text = shown(runs)
    assert any("time left not known yet" in line for line in text())
    first = runs[0]
    live.start(first)
    half = {"epoch": 1, "fraction": 0.0, "seconds_left": 60.0, "updated": time.time()}
    live.progress(first, half)  # of two epochs, so that it takes 120 s, and others, of half its work, 60 s
    others = 120 + 60 * (len(runs) - 2)
    end = max((60 + others) / 2, 60)
    found = re.search(r"(?:(\d+):)?(\d+):(\d\d) left", " ".join(text()))
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    assert abs(3600 * hours + 60 * minutes + seconds - end) <= 61


def test_a_narrow_and_low_terminal_has_what_matters(runs):
    live, text = shown(runs)
    for run in (runs[20], runs[21]):
        live.start(run)
        facts = {"epoch": 1, "fraction": 0.5, "train_top1": 51.25, "test_top1": 52.5, "images_per_second": 1234.0}
        live.progress(run, facts | {"seconds_left": 600.0, "updated": time.time()})
    lines = text()
    assert max(map(len, lines)) <= NARROW and len(lines) <= LINES - 1
    assert [line for line in lines if line.startswith(f"{runs[20].step} ")] and "2 running" in " ".join(lines)
    at_work = next(line for line in lines if line.startswith(f"{runs[20].step}, seed"))
    assert at_work.split()[-2:] in (["10:00"], ["52.5", "10:00"], ["52.5", "9:60"], ["52.5", "9:59"])
    live.ended = True
    assert sum(line.startswith(tuple(dict.fromkeys(run.step for run in runs))) for line in text()) >= len(runs) // 2


def test_a_wide_terminal_has_all_columns(runs):
    live, text = shown(runs, columns=120, lines=60)
    live.start(runs[0])
    header = next(line for line in text() if line.startswith("running"))
    assert header.split() == ["running", "epoch", "train", "top-1", "%", "test", "img/s", "left"]


@pytest.mark.slow
def test_a_study_in_a_terminal_that_is_resized(tmp_path):
    words = "run --only patchify_stem,layer_norm --seeds 1 --epochs 4 --width 4 --image-size 16 --jobs 1 --data folder"
    folders = {name: tmp_path / name for name in ("data-dir", "out", "store")}
    make_image_folder(folders["data-dir"])
    command = [sys.executable, "-m", "roadmap", *words.split()]
    command += [f"--{name}={folder}" for name, folder in folders.items()]
    main, side = pty.openpty()
    screen = pyte.Screen(100, LINES)
    stream = pyte.ByteStream(screen)

    def resize(columns):
        fcntl.ioctl(main, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, columns, 0, 0))
        screen.resize(LINES, columns)

    resize(100)
    environment = os.environ | {"TERM": "xterm"}
    process = subprocess.Popen(command, stdin=side, stdout=side, stderr=side, env=environment)
    os.close(side)
    said, narrow = b"", False
    with contextlib.suppress(OSError):  # how Linux says that the other side is closed
        while piece := os.read(main, 65536):
            said += piece
            stream.feed(piece)
            if not narrow and b"img/s" in said:  # while a run is at work
                narrow = True
                resize(NARROW)
    assert process.wait(timeout=60) == 0, said.decode()
    assert said.startswith(b"\r\x1b[Kreading the study") and narrow
    lines = [line.rstrip() for line in screen.display]
    assert sum(line.startswith("step ") for line in lines) == 1, lines
    rows = [line.split()[:2] for line in lines if "1/1" in line]
    assert rows == [["patchify_stem", "1/1"], ["layer_norm", "1/1"]] and "2 done, 0 running" in " ".join(lines), lines
    assert not any("img/s" in line for line in lines), lines


# --- notebooks


def test_in_a_notebook_a_bar_says_the_time_left(runs, monkeypatch, capsys):
    """Where ipywidgets is missing, as where there is no kernel to draw them, the bar is text."""
    shell = types.SimpleNamespace(kernel=object(), config={})
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    bar = display_in_python()
    with listening(bar.doing), phase("reading the data"):
        pass
    bar.begin(runs, {run.signature: work(run) for run in runs}, 1, {run.signature: 30.0 for run in runs})
    bar.start(runs[0])
    bar.finish(runs[0], {"status": "done", "top1": 81.25, "wall_seconds": 30.0}, trained=True)
    bar.close()
    printed = capsys.readouterr()
    assert "reading the data" in printed.out and " left: ends at " in printed.out and not printed.err
    assert f"[1/{len(runs)}] resnet50 seed 0: 81.2 %, 30.0 s\n" in printed.out


def test_a_mistake_in_a_notebook_is_one_sentence(capsys):
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    nested = """
def study():
    try:
        {}["x"]
    except KeyError:
        roadmap.run(upto="gelo")
study()"""
    for code in ("roadmap.ladder()['gelo']", "roadmap.run(seedz=3)", nested):
        assert isinstance(shell.run_cell(f"import roadmap\n{code}").error_in_exec, RoadmapError)
        printed = capsys.readouterr().out
        assert printed.count("\n") == 1 and printed.startswith("RoadmapError: ") and "did you mean" in printed, printed


def test_figures_are_opaque_and_white_whatever_the_reader_has_set():
    with matplotlib.rc_context({"savefig.transparent": True, "savefig.facecolor": "black", "figure.facecolor": "none"}):
        from roadmap.explaining.diagram import draw_blocks

        picture = draw_blocks(roadmap.explain("gelu"))._repr_png_()
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGBA"))
    assert (pixels[..., 3] == 255).all() and (pixels[[0, 0, -1, -1], [0, -1, 0, -1], :3] == 255).all()
