"""A demo as a folder that runs as a Hugging Face Space."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from roadmap import __version__
from roadmap.checks import RoadmapError, cause
from roadmap.demo.compared import comparisons, examples, write_examples
from roadmap.files import aside, write_text
from roadmap.results.sentences import headline
from roadmap.results.study import Study, load_study
from roadmap.store.folder import StudyFolder
from roadmap.store.records import RECORD, WEIGHTS, files_of
from roadmap.store.store import Store

PACKAGE = "roadmap-ablation"
APP = '''"""The demo of {study}; `python app.py` runs it here, and a Hugging Face Space runs it there."""

from pathlib import Path

from roadmap.demo.page import serve

HERE = Path(__file__).resolve().parent
serve(HERE / "study", sorted((HERE / "plugins").glob("*.py")), HERE / "examples")
'''
README = """---
title: {title}
sdk: gradio
sdk_version: {gradio}
python_version: "{python}"
app_file: app.py
---

{headline}.

The networks of this study before and after a step, tried on any image, made with `roadmap demo --save` of roadmap
{version}. `study/` holds its tables and runs; `roadmap report study` writes its report.
"""


def save_space(folder: Path, space: Path, plugin: Sequence[Path] = ()) -> None:
    """Write the demo of the study in ``folder`` as ``space``, a new folder: app.py, requirements.txt, README.md, the
    study with the weights that are shown, examples, and the ``plugin`` files.

    Every file is text, a picture or safetensors. Raises `RoadmapError` where the study cannot be shown or the folder
    is there already.
    """
    study = load_study(folder)
    shown, _ = comparisons(study)
    if space.exists() and (not space.is_dir() or any(space.iterdir())):
        raise RoadmapError(f"{space} is not empty: choose another --save")
    needed = {signature for one in shown for pair in one.runs.values() for signature in pair}
    made = aside(space.absolute())
    try:
        made.mkdir(parents=True)
        _copy_study(study, made / "study", needed)
        write_examples(examples(study), made / "examples")
        for path in plugin:
            (made / "plugins").mkdir(exist_ok=True)
            shutil.copy(path, made / "plugins")
        write_text(made / "app.py", APP.format(study=study.name))
        write_text(made / "requirements.txt", f"{PACKAGE}[demo] @ git+{_address()}\n")
        facts = {"title": json.dumps(study.name), "gradio": metadata.version("gradio"), "python": "3.12"}
        write_text(made / "README.md", README.format(**facts, headline=headline(study.effects), version=__version__))
        if space.exists():
            space.rmdir()
        made.rename(space)
    except OSError as error:
        raise RoadmapError(f"{space} cannot be written: {cause(error)}") from None
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _address() -> str:
    """Where the program is from: `[project.urls]` of pyproject.toml."""
    urls = dict(entry.split(", ", 1) for entry in metadata.metadata(PACKAGE).get_all("Project-URL") or ())
    return urls["Repository"]


def _copy_study(study: Study, folder: Path, needed: set[str]) -> None:
    """The study's folder and a store with its runs, whose records lose the weights that are not ``needed``."""
    assert study.store is not None
    store = Store(folder / "store")
    store.begin()
    for signature in study.runs["signature"].dropna():
        record, own = study.store.record(signature), study.store.path(signature)
        if record is None:
            continue
        if signature not in needed:
            record["files"].pop(WEIGHTS, None)
        files = {name: (own / name).read_bytes() for name in files_of(record)}
        with store.claim(signature):
            store.adopt(signature, files | {RECORD: (json.dumps(record) + "\n").encode()})
    for path in study.path.glob("*.csv"):
        shutil.copy(path, folder)
    said = StudyFolder(study.path).study()
    del said["store"]  # it is in another place now
    StudyFolder(folder).begin(said, store)
