"""The notebooks, executed. ``python tests/notebooks.py`` runs all, or those it names, and keeps what they show."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import nbclient
import nbformat

PROJECT = Path(__file__).parents[1]
NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))


def execute(notebook: nbformat.NotebookNode, folder: Path, parameters: Mapping[str, object]) -> nbformat.NotebookNode:
    """A copy of the notebook, run in ``folder``/notebooks beside the kept results, with some values of the cell tagged
    `parameters` replaced. Raises nbclient's error where a cell fails, and KeyError for a parameter that is not there.
    """
    notebook = nbformat.from_dict(notebook)
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    for name, value in parameters.items():
        cell.source, found = re.subn(rf"^{name} = [^#\n]*?(?=  #|$)", f"{name} = {value!r}", cell.source, flags=re.M)
        if not found:
            raise KeyError(name)
    place = folder / "notebooks"
    place.mkdir()
    for kept in (PROJECT / "results").glob("*/"):
        shutil.copytree(kept, folder / "results" / kept.name, ignore=shutil.ignore_patterns("*.png", "*.svg", "store"))
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", record_timing=False, resources={"metadata": {"path": str(place)}}
    )
    client.execute(env=environment)
    return notebook


def main() -> None:
    for path in [PROJECT / "notebooks" / name for name in sys.argv[1:]] or NOTEBOOKS:
        with tempfile.TemporaryDirectory() as folder:
            executed = execute(nbformat.read(path, as_version=4), Path(folder), {})
        kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
        executed.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
        nbformat.write(executed, path)
        print(path.name, f"{path.stat().st_size / 2**10:.0f} KiB")


if __name__ == "__main__":
    main()
