"""Files that are written whole or not at all, and settings read from YAML."""

from __future__ import annotations

import errno
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from roadmap.checks import RoadmapError, cause

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


#: How systems refuse to write, in their words.
REFUSALS = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS))


def aside(path: Path) -> Path:
    """A hidden name beside ``path`` that nobody else has, in no process and on no machine."""
    return path.with_name(f".{path.name}.{secrets.randbits(64)}")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path that takes the place of ``path`` when the block ends well, and is removed when it does not.

    The file is on the disk, not only in the system's memory, before it takes its name.
    """
    temporary = aside(path)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def refusal(error: BaseException) -> str | None:
    """How the system refused to write; None where the error is of another kind, such as one of memory.

    Libraries wrap what it says into errors of their own.
    """
    if isinstance(error, OSError) and error.errno:
        return None if error.errno == errno.ENOMEM else in_words(error)
    return next((words for words in REFUSALS if words in str(error)), None)


def in_words(error: OSError) -> str:
    """An error of the system: what it says, and of which file."""
    return f"{cause(error)}{f' ({error.filename})' if error.filename else ''}"


def temporary_folder() -> str:
    """Where temporary files go. Raises `RoadmapError` where the environment names a folder that cannot be used."""
    if named := os.environ.get("TMPDIR"):
        if not Path(named).is_dir():
            raise RoadmapError(f"TMPDIR names {named}, but there is no such folder: make it, or unset TMPDIR")
        if not os.access(named, os.W_OK | os.X_OK):
            raise RoadmapError(f"TMPDIR names {named}, but that folder cannot be written: let it name another")
    try:
        return tempfile.gettempdir()
    except OSError:
        raise RoadmapError("no folder of temporary files can be written: let TMPDIR name one") from None


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping, of which YAML itself keeps the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[Any, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge" or not isinstance(key_node, yaml.ScalarNode):
                continue
            key, line = self.construct_object(key_node), key_node.start_mark.line + 1
            if key in lines:
                raise RoadmapError(f"has '{key}' twice, in lines {lines[key]} and {line}: leave one of them out")
            lines[key] = line
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, place: str) -> Any:
    """What a YAML text means; ``place`` is where it is from, for messages.

    Raises `RoadmapError` for a text that is not YAML, and for a key that stands twice in one mapping.
    """
    try:
        return yaml.load(text, _Loader)
    except RoadmapError as error:
        raise RoadmapError(f"{place} {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: such as a date that does not exist
        mark = getattr(error, "problem_mark", None)
        where = f"{place}, line {mark.line + 1}," if mark else place
        raise RoadmapError(
            f"{where} is not valid YAML: write one 'name: value' a line, indent with spaces, close every bracket and "
            "quote, and put text that holds ': ' or '#' in quotes"
        ) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises `RoadmapError` where the file is missing or holds something else."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RoadmapError(f"there is no file {path}") from None
    except (OSError, UnicodeDecodeError, ValueError) as error:  # ValueError: a name that no file can have
        raise RoadmapError(f"{path} cannot be read: {cause(error)}") from None
    content = parse_yaml(text, str(path))
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise RoadmapError(f"{path} must hold settings, one 'name: value' a line")
    return content
