"""What in a folder or a tar is data: nothing hidden, and nothing that roadmap wrote; what is left out is counted."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from roadmap.checks import RoadmapError
from roadmap.data.images import image_kinds
from roadmap.files import is_output

#: What is left out, by what a remark calls it; files of other kinds are counted by their ending, such as ``.txt``.
HIDDEN, OUTPUT = "hidden files or folders", "folders that roadmap wrote"
NO_CLASS = "folders in the place of classes that hold nothing else"
STRAY, LINKS, AGAIN = "images outside the class folders", "links within tars", "links to folders read already"
NO_ENDING = "without ending"
#: Most kinds in one list.
NAMED_KINDS = 5


def is_hidden(path: str) -> bool:
    """Whether a part of a relative path starts with a dot."""
    return any(part.startswith(".") and part not in (".", "..") for part in path.split("/"))


def ending(file: str) -> str:
    """The ending of a file's name in small letters, with its dot, or `NO_ENDING`."""
    return Path(file).suffix.lower() or NO_ENDING


def is_image(file: str, left_out: Counter[str]) -> bool:
    """Whether a visible file is an image by its ending; if it is not data, it is counted."""
    if is_hidden(file):
        left_out[HIDDEN] += 1
    elif ending(file) not in image_kinds():
        left_out[ending(file)] += 1
    else:
        return True
    return False


def images_below(folder: str, left_out: Counter[str]) -> list[str]:
    """The images in a folder and those within it, links to folders followed, in the order of their paths.

    Raises `OSError` where a folder cannot be read.
    """

    def stop(error: OSError) -> None:
        raise error

    found: list[str] = []
    seen: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(folder, onerror=stop, followlinks=True):
        where = os.stat(place)  # noqa: PTH116
        if (where.st_dev, where.st_ino) in seen:
            left_out[AGAIN] += 1
            folders.clear()
            continue
        seen.add((where.st_dev, where.st_ino))
        found += [os.path.join(place, file) for file in files if is_image(file, left_out)]
        left_out[HIDDEN] += sum(map(is_hidden, folders))
        visible = [name for name in folders if not is_hidden(name)]
        folders[:] = [name for name in visible if not is_output(os.path.join(place, name))]
        left_out[OUTPUT] += len(visible) - len(folders)
    return sorted(found)


def holds_no_data(folder: Path) -> bool:
    """Whether a folder is hidden, written by roadmap or around what it wrote, or full of nothing but such."""
    if is_hidden(folder.name) or is_output(folder):
        return True
    try:
        entries = list(os.scandir(folder))
    except OSError:  # such as lost+found
        return False
    if any(entry.is_dir() and is_output(entry.path) for entry in entries):
        return True
    return bool(entries) and all(
        is_hidden(entry.name) or (entry.is_dir() and holds_no_data(Path(entry.path))) for entry in entries
    )


def told(left_out: Counter[str]) -> list[str]:
    """What was left out, in sentences."""
    counts = +left_out
    kinds = {name: count for name, count in counts.most_common() if name.startswith(".") or name == NO_ENDING}
    count = sum(kinds.values())
    what = "file of another kind was" if count == 1 else "files of other kinds were"
    listed = ", ".join(f"{number} {name}" for name, number in list(kinds.items())[:NAMED_KINDS])
    listed += f" and {len(kinds) - NAMED_KINDS} other kinds" if len(kinds) > NAMED_KINDS else ""
    sentences = [f"{count} {what} left out: {listed}"] if kinds else []
    return sentences + [f"{name} left out: {number}" for name, number in counts.items() if name not in kinds]


def refuse_no_images(where: object, left_out: Counter[str]) -> None:
    """Raise the `RoadmapError` for a place that must hold images."""
    holds = ", ".join(f"{count} {name}" for name, count in (+left_out).most_common(5)) or "nothing"
    raise RoadmapError(f"{where} has no images (.jpg, .png and whatever else Pillow decodes), but holds {holds}")
