"""Files that are written whole or not at all, and settings read from YAML."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from roadmap.checks import RoadmapError, cause


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
