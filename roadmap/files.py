"""Files that are written whole or not at all, and settings read from YAML."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from roadmap.checks import RoadmapError

#: What makes a folder the store of runs, or the folder of a study: a file of this name whose content has a format.
STORE_MARK, STUDY_MARK = "store.json", "study.json"


def is_output(folder: str | os.PathLike) -> bool:
    """Whether roadmap wrote a folder: a store, or the folder of a study."""
    for mark in (STORE_MARK, STUDY_MARK):
        try:
            content = json.loads(Path(folder, mark).read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and isinstance(content.get("format"), int):
            return True
    return False


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path that takes the place of ``path`` when the block ends well, and is removed when it does not.

    The file is on the disk, not only in the system's memory, before it takes its name.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises `RoadmapError` where the file is missing or holds something else."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RoadmapError(f"there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RoadmapError(f"{path} cannot be read: {error}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: such as a date that does not exist
        raise RoadmapError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise RoadmapError(f"{path} must hold settings, one 'name: value' a line")
    return content
