"""Class folders and tars: ImageFolder, one tar a part, one tar a class, tars of tars, and ImageNet's own archives."""

from __future__ import annotations

import dataclasses
import os
import re
import tarfile
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from roadmap.checks import RoadmapError
from roadmap.data.entries import (
    HIDDEN,
    LINKS,
    NO_CLASS,
    OUTPUT,
    STRAY,
    holds_no_data,
    images_below,
    is_hidden,
    is_image,
    refuse_no_images,
)
from roadmap.data.images import named
from roadmap.data.listings import EVALUATIONS, Listing, contents, refuse
from roadmap.data.readers import Files, Members, stamp
from roadmap.files import is_output

FOLDERS = "train/CLASS/IMAGE and val/CLASS/IMAGE (or test/CLASS/IMAGE)"
IMAGENET = f"{FOLDERS}, or ILSVRC2012_img_train.tar beside val/CLASS/IMAGE"
TARS = "train.tar and val.tar (or test.tar), or train/ and val/ with one tar a class"


def list_parts(root: Path, expected: str, tars: bool) -> list[Listing]:
    """The training part in a folder and, if there is one, the part that tests; ``tars`` says whether they may be tars.

    Raises `RoadmapError` where none is there to train, and where other folders or tars are but none to test.
    """
    train = _place(root, "train", tars)
    found = ((part, _place(root, part, tars)) for part in EVALUATIONS)
    test = next(((part, path) for part, path in found if path), None)
    parts = [("train", train), *([test] if test else [])]
    used = [path for _, path in parts if path]
    unused = others(root, used, tars)
    if train is None or test is None:
        refuse_compressed(root, (*(() if train else ("train",)), *(() if test else EVALUATIONS)))
    if train is None or (test is None and unused):
        refuse(root, expected)
    return beside([list_part(part, path, tars) for part, path in parts if path], unused)


def list_imagenet22k(root: Path) -> list[Listing]:
    """ImageNet-22K: class folders, or one tar a class, in a folder or in its train/."""
    if (root / "train").is_dir():
        return list_parts(root, f"CLASS/IMAGE, or CLASS.tar, or {FOLDERS}", tars=True)
    return [list_part("train", root, tars=True)]


def _place(root: Path, part: str, tars: bool) -> Path | None:
    if (root / part).is_dir() and not is_output(root / part):
        return root / part
    archives = [root / f"{part}.tar", root / f"ILSVRC2012_img_{part}.tar"] if tars else []
    return next((path for path in archives if path.is_file()), None)


def others(root: Path, used: Collection[Path], tars: bool) -> list[str]:
    """What lies beside the parts and could be meant for another one: folders and, where asked, tars."""
    return sorted(
        path.name
        for path in root.iterdir()
        if path not in used
        and (path.is_dir() or tars and path.suffix == ".tar")
        and not (holds_no_data(path) if path.is_dir() else is_hidden(path.name))
    )


def beside(parts: list[Listing], names: list[str]) -> list[Listing]:
    """The parts, the first with the remark that these folders, tars or splits are not used."""
    if names:
        remark = f"neither for training nor for testing: {named(names)}"
        parts[0] = dataclasses.replace(parts[0], remarks=(*parts[0].remarks, remark))
    return parts


def list_part(part: str, path: Path, tars: bool) -> Listing:
    """The images of a tar, or of a folder of class folders or of one tar a class."""
    if path.is_file():
        return list_tars(part, path, [path])
    archives = sorted(tar for tar in path.glob("*.tar") if not is_hidden(tar.name)) if tars else []
    if not archives:
        return list_class_folders(part, path)
    refuse_compressed(path)
    left_out: Counter[str] = Counter()
    for entry in os.scandir(path):
        if entry.is_dir() and not holds_no_data(Path(entry.path)):
            raise RoadmapError(f"{path} holds class folders and tars: only one of the two can be meant")
        if entry.is_dir():
            left_out[HIDDEN if is_hidden(entry.name) else OUTPUT] += 1
        elif Path(entry.path) not in archives and is_image(entry.name, left_out):
            left_out[STRAY] += 1
    return list_tars(part, path, archives, left_out)


def list_class_folders(part: str, root: Path) -> Listing:
    """The images below ``root``/CLASS, in the order of their paths.

    A folder without images in which there is what roadmap wrote, or only what is hidden, is no class.
    """
    base = os.path.join(os.path.abspath(root), "")  # noqa: PTH100
    left_out: Counter[str] = Counter()
    classes: list[str] = []
    names, sizes, labels = [], [], []
    for entry in sorted(os.scandir(root), key=lambda entry: entry.name):
        if not entry.is_dir():
            left_out[STRAY] += is_image(entry.name, left_out)
        elif is_hidden(entry.name) or is_output(entry.path):
            left_out[HIDDEN if is_hidden(entry.name) else OUTPUT] += 1
        else:
            inside: Counter[str] = Counter()
            found = images_below(base + entry.name, inside)
            if not found and not inside[OUTPUT] and (not inside[HIDDEN] or inside.total() > inside[HIDDEN]):
                refuse_no_images(f"the class folder {root / entry.name}", inside)
            left_out += inside
            left_out[NO_CLASS] += not found
            if found:
                names.append(np.array([os.fsencode(path.removeprefix(base)) for path in found]))
                sizes.append(np.array([stamp(path)[0] for path in found], np.int64))
                labels.append(np.full(len(found), len(classes), np.int64))
                classes.append(entry.name)
    if not classes:
        refuse_compressed(root)
        raise RoadmapError(f"{root} has no class folders: expected {root.name}/CLASS/IMAGE, found {contents(root)}")
    keys = np.concatenate(names)
    reader = Files(base, keys, np.concatenate(sizes))
    return Listing(part, str(root), tuple(classes), np.concatenate(labels), reader, keys, left_out)


def list_tars(part: str, where: Path, tars: list[Path], left_out: Counter[str] | None = None) -> Listing:
    """The images in some tars, in the order of their classes and names.

    The class of an image is the folder that it is in, else the tar within a tar that it is in; else, where ``where`` is
    a folder of tars, the tar.
    """
    left_out = Counter() if left_out is None else left_out
    known: dict[str, int] = {}
    columns: list[tuple[np.ndarray, ...]] = []  # of each tar: owners, labels, keys, names, offsets, sizes
    for number, path in enumerate(tars):
        rows, inside = [], Counter[str]()
        for member in tar_files(path, inside):
            if not is_image(member.name, inside):
                continue
            name = member.folder or ("" if path == where else path.stem)
            if not name:
                raise RoadmapError(
                    f"{path} is flat, so nothing tells the classes of its images: unpack it into {part}/CLASS/IMAGE "
                    "(for ImageNet's own, valprep.sh sorts them)"
                )
            key, within = f"{name}/{member.file}", member.within + member.name.removeprefix("./")
            rows.append(
                (
                    number,
                    known.setdefault(name, len(known)),
                    os.fsencode(key),
                    os.fsencode(within),
                    member.offset,
                    member.size,
                )
            )
        if not rows:
            refuse_no_images(path, inside)
        left_out += inside
        columns.append(tuple(map(np.array, zip(*rows, strict=True))))
    owners, labels, keys, names, offsets, sizes = map(np.concatenate, zip(*columns, strict=True))
    class_names = sorted(known)
    labels = np.argsort([known[name] for name in class_names])[labels]
    order = np.lexsort((names, keys, labels))
    reader = Members(str(tars[0].parent.absolute()), tuple(path.name for path in tars), owners, names, offsets, sizes)
    return Listing(
        part,
        str(where),
        tuple(class_names),
        labels[order],
        reader.select(order),
        keys[order],
        left_out,
        twice(owners, names),
    )


def twice(owners: np.ndarray, names: np.ndarray) -> tuple[str, ...]:
    """The remark on images that have the name of another one in their tar, if there are such."""
    order = np.lexsort((names, owners))
    owners, names = owners[order], names[order]
    count = int(((owners[1:] == owners[:-1]) & (names[1:] == names[:-1])).sum())
    return (f"images that have the name of another one in their tar, and are read as well: {count}",) if count else ()


class TarFile(NamedTuple):
    """A file in a tar: its name there, ``within`` which tar in it, and where its bytes lie in the outer one."""

    name: str
    within: str
    offset: int
    size: int

    @property
    def file(self) -> str:
        """Its name without the folders."""
        return self.name.rpartition("/")[2]

    @property
    def folder(self) -> str:
        """The folder that it is in, else the tar within the tar, else nothing."""
        parts = [part for part in self.name.split("/")[:-1] if part not in ("", ".")]
        return parts[-1] if parts else Path(self.within).stem


def tar_files(path: Path, left_out: Counter[str]) -> Iterator[TarFile]:
    """The files in a tar and in tars within it, read to the end; links are counted.

    Raises `RoadmapError` for a tar that is compressed, cut off or damaged, which else would be one with fewer images.
    """
    with path.open("rb") as file:
        yield from _tar_files(file, str(path), "", 0, left_out)


def _tar_files(file: IO[bytes], name: str, within: str, start: int, left_out: Counter[str]) -> Iterator[TarFile]:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - tarfile.BLOCKSIZE))
    if file.read() != bytes(tarfile.BLOCKSIZE):
        raise RoadmapError(f"{name} is not a whole, uncompressed tar: it does not end as one")
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if member.issym() or member.islnk():
                    left_out[LINKS] += 1
                elif member.isfile() and member.name.lower().endswith(".tar") and not is_hidden(member.name):
                    inner = tar.extractfile(member)
                    assert inner is not None  # a file has content
                    yield from _tar_files(
                        inner,
                        f"{name}/{member.name}",
                        f"{within}{member.name}/",
                        start + member.offset_data,
                        left_out,
                    )
                elif member.isfile():
                    offset = start + member.offset_data
                    yield TarFile(member.name, within, offset, member.size)
            end = tar.offset
    except tarfile.TarError:
        raise RoadmapError(f"{name} is not a readable tar file: unpack it, or fetch it again") from None
    # Python's tarfile takes a header that it cannot read for the end.
    file.seek(end)
    while chunk := file.read(2**20):
        if chunk.strip(b"\0"):
            raise RoadmapError(
                f"{name} is damaged, or several tars in one file: it continues after its end at byte {end}"
            )


def refuse_compressed(folder: Path, words: Collection[str] = ()) -> None:
    """Raise `RoadmapError` where there are compressed tars in a folder; where ``words`` are given, named by one."""
    for path in sorted(folder.iterdir()):
        packed = re.search(r"\.(tar\.\w+|tgz|tbz2?|txz|zip)$", path.name.lower())
        if packed and (not words or set(re.split("[^a-z]+", path.name.lower())) & set(words)):
            raise RoadmapError(f"{path} is compressed: its images cannot be found at random, so unpack it to a .tar")
