"""Class folders and tars: ImageFolder, one tar a part, one tar a class, tars of tars, and ImageNet's own archives."""

from __future__ import annotations

import os
import re
import tarfile
from pathlib import Path
from typing import IO

import numpy as np

from roadmap.checks import RoadmapError
from roadmap.data.images import EXTENSIONS
from roadmap.data.listings import EVALUATIONS, Listing, contents, refuse
from roadmap.data.readers import Files, Members

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
    if train is None or (test is None and others(root, train, tars)):
        if tars:
            refuse_compressed(root)
        refuse(root, expected)
    parts = [("train", train), *([test] if test else [])]
    return [list_part(part, path, tars) for part, path in parts if path]


def list_imagenet22k(root: Path) -> list[Listing]:
    """ImageNet-22K: class folders, or one tar a class, in a folder or in its train/."""
    if (root / "train").is_dir():
        return list_parts(root, f"CLASS/IMAGE, or CLASS.tar, or {FOLDERS}", tars=True)
    return [list_part("train", root, tars=True)]


def _place(root: Path, part: str, tars: bool) -> Path | None:
    archives = [root / f"{part}.tar", root / f"ILSVRC2012_img_{part}.tar"] if tars else []
    return next(
        (path for path in (root / part, *archives) if path.is_dir() or path in archives and path.is_file()), None
    )


def others(root: Path, train: Path, tars: bool) -> list[Path]:
    """What lies beside the training part and could be meant for another one: folders and, where asked, tars."""
    return [
        path for path in root.iterdir()
        if path != train and not path.name.startswith(".") and (path.is_dir() or tars and path.suffix == ".tar")
    ]  # fmt: skip


def list_part(part: str, path: Path, tars: bool) -> Listing:
    """The images of a tar, or of a folder of class folders or of one tar a class."""
    if path.is_file():
        return list_tars(part, path, [path])
    archives = sorted(path.glob("*.tar")) if tars else []
    if not archives:
        return list_class_folders(part, path)
    if any(entry.is_dir() and not entry.name.startswith(".") for entry in os.scandir(path)):
        raise RoadmapError(f"{path} holds class folders and tars: only one of the two can be meant")
    return list_tars(part, path, archives)


def list_class_folders(part: str, root: Path) -> Listing:
    """The images below ``root``/CLASS, in the order of their paths."""
    classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        refuse_compressed(root)
        raise RoadmapError(f"{root} has no class folders: expected {root.name}/CLASS/IMAGE, found {contents(root)}")
    base = os.path.join(os.path.abspath(root), "")  # noqa: PTH100
    names, sizes, labels = [], [], []
    for label, name in enumerate(classes):
        found = sorted(
            os.path.join(folder, file)
            for folder, _, files in os.walk(base + name)
            for file in files
            if file.lower().endswith(EXTENSIONS) and not file.startswith(".")
        )
        if not found:
            raise RoadmapError(f"the class folder {root / name} has no images ({', '.join(EXTENSIONS)})")
        names.append(np.array([os.fsencode(path.removeprefix(base)) for path in found]))
        sizes.append(np.array([_size(path) for path in found], np.int64))
        labels.append(np.full(len(found), label, np.int64))
    keys = np.concatenate(names)
    reader = Files(base, keys, np.concatenate(sizes))
    return Listing(part, str(root), tuple(classes), np.concatenate(labels), reader, keys)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116
    except OSError:  # such as a link to nowhere
        return 0


def list_tars(part: str, where: Path, tars: list[Path]) -> Listing:
    """The images in some tars, in the order of their classes and names.

    The class of an image is the folder that it is in, else the tar within a tar that it is in; else, where ``where`` is
    a folder of tars, the tar. timm's reader walks through them; its cache of what it found is a pickle, which is
    neither read nor written.
    """
    from timm.data.readers.reader_image_in_tar import extract_tarinfos

    known: dict[str, int] = {}
    columns: list[tuple[np.ndarray, ...]] = []  # of each tar: owners, labels, keys, names, offsets, sizes
    for number, path in enumerate(tars):
        check_tar(path)
        try:
            found, targets, indices, _ = extract_tarinfos(
                str(path), cache_tarinfo=False, extensions=EXTENSIONS, sort=False
            )
        except tarfile.TarError:
            raise RoadmapError(f"{path} is not a readable tar file: unpack it, or fetch it again") from None
        except ValueError:  # timm expects one image at least
            found, targets, indices = (), (), {}
        classes = {index: name or ("" if path == where else path.stem) for name, index in indices.items()}
        rows = []
        for (member, _, inner), target in zip(found, targets, strict=True):
            file, name = member.name.rpartition("/")[2], classes[target]
            if not file.startswith("."):
                within, start = (f"{inner.name}/", inner.offset_data) if inner else ("", 0)
                rows.append((number, known.setdefault(name, len(known)), os.fsencode(f"{name}/{file}"),
                             os.fsencode(within + member.name.removeprefix("./")), start + member.offset_data,
                             member.size))  # fmt: skip
        if not rows:
            raise RoadmapError(f"{path} has no images ({', '.join(EXTENSIONS)})")
        if "" in known:
            raise RoadmapError(
                f"{path} is flat, so nothing tells the classes of its images: unpack it into {part}/CLASS/IMAGE "
                "(for ImageNet's own, valprep.sh sorts them)"
            )
        columns.append(tuple(map(np.array, zip(*rows, strict=True))))
    owners, labels, keys, names, offsets, sizes = map(np.concatenate, zip(*columns, strict=True))
    class_names = sorted(known)
    labels = np.argsort([known[name] for name in class_names])[labels]
    order = np.lexsort((names, keys, labels))
    reader = Members(str(tars[0].parent.absolute()), tuple(path.name for path in tars), owners, names, offsets, sizes)
    return Listing(part, str(where), tuple(class_names), labels[order], reader.select(order), keys[order])


def check_tar(path: Path) -> None:
    """Raise `RoadmapError` for a tar that is compressed, cut off or damaged, which else would be one with fewer images.

    Tars within it are looked at, too.
    """
    with path.open("rb") as file:
        _check_tar(file, str(path))


def _check_tar(file: IO[bytes], name: str) -> None:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - tarfile.BLOCKSIZE))
    if file.read() != bytes(tarfile.BLOCKSIZE):
        raise RoadmapError(f"{name} is not a whole, uncompressed tar: it does not end as one")
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if member.isfile() and member.name.lower().endswith(".tar"):
                    _check_tar(tar.extractfile(member), f"{name}/{member.name}")  # type: ignore[arg-type]
            end = tar.offset
    except tarfile.TarError:
        raise RoadmapError(f"{name} is not a readable tar file: unpack it, or fetch it again") from None
    # Python's tarfile takes a header that it cannot read for the end.
    file.seek(end)
    while chunk := file.read(2**20):
        if chunk.strip(b"\0"):
            raise RoadmapError(
                f"{name} is damaged, or several tars in one file: it goes on behind its end at byte {end}"
            )


def refuse_compressed(folder: Path) -> None:
    """Raise `RoadmapError` where there are compressed tars in a folder."""
    packed = sorted(path for path in folder.iterdir() if re.search(r"\.(tar\.\w+|tgz|tbz2?|txz)$", path.name))
    if packed:
        raise RoadmapError(f"{packed[0]} is compressed: its images cannot be found at random, so unpack it to a .tar")
