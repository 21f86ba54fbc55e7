"""The notebooks, executed. ``python tests/notebooks.py`` runs all, or those it names, and keeps what they show."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import nbclient
import nbformat
from PIL import Image

PROJECT = Path(__file__).parents[1]
#: A widget, such as a bar where ipywidgets is installed.
WIDGET = "application/vnd.jupyter.widget-view+json"
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
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}  # the same sums anywhere
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", record_timing=False, resources={"metadata": {"path": str(place)}}
    )
    client.execute(env=environment)
    return notebook


def tidied(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """An executed notebook as it is kept: what is printed in one piece, without colours and bars that have vanished,
    and no trace of the machine."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = nbformat.from_dict({"kernelspec": kernel, "language_info": {"name": "python"}})
    for cell in notebook.cells:
        joined: list[nbformat.NotebookNode] = []
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and joined and joined[-1].get("name") == output.name:
                joined[-1].text += output.text
                continue
            if WIDGET in output.get("data", {}):  # a bar, of which nothing is left
                continue
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = smaller(output.data["image/png"])
            joined.append(output)
        for output in joined:
            if output.output_type == "stream":
                output.text = re.sub(r"\x1b\[[0-9;]*m|[^\r\n]*\r", "", output.text)
        if "outputs" in cell:
            cell.outputs = [output for output in joined if output.get("text") != ""]
    return notebook


def smaller(picture: str) -> str:
    """A PNG in base64 with 256 colours, which is a third of the bytes and looks the same."""
    opened, small = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB"), io.BytesIO()
    opened.quantize(256, dither=Image.Dither.NONE).save(small, "png", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


def main() -> None:
    for path in [PROJECT / "notebooks" / name for name in sys.argv[1:]] or NOTEBOOKS:
        with tempfile.TemporaryDirectory() as folder:
            executed = execute(nbformat.read(path, as_version=4), Path(folder), {})
        nbformat.write(tidied(executed), path)
        print(path.name, f"{path.stat().st_size / 2**10:.0f} KiB")


if __name__ == "__main__":
    main()
