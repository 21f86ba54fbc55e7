"""Small data sets in the layouts that users have on disk."""

from __future__ import annotations

import io
import json
import pickle
import random
import shutil
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}


def make_images(folder: Path, colour: tuple[int, int, int], count: int, size: tuple[int, int], seed: int) -> None:
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        noise = generator.normal(0, 30, (size[1], size[0], 3))
        Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(folder / f"{number:03}.png")


def make_image_folder(root: Path, train: int = 24, test: int = 8, size=(36, 32), evaluation: str = "val") -> Path:
    """ImageFolder: three classes that their colour tells apart, images of ``size`` (width, height)."""
    for number, (name, colour) in enumerate(COLOURS.items()):
        make_images(root / "train" / name, colour, train, size, seed=number)
        make_images(root / evaluation / name, colour, test, size, seed=100 + number)
    return root


def make_cifar10(root: Path, a_batch: int = 20) -> np.ndarray:
    """CIFAR-10's python batches, pickled as Python 2 did (protocol 2); returns the training images (N, 32, 32, 3)."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    images = []
    for name in [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]:
        data = generator.integers(0, 256, (a_batch, 3072), dtype=np.uint8)
        labels = [int(value) for value in generator.integers(0, 10, a_batch)]
        content = {
            "data": data,
            "labels": labels,
            "batch_label": name,
            "filenames": [f"{i}.png" for i in range(a_batch)],
        }
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
        if name != "test_batch":
            images.append(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    names = {"label_names": [f"class {n}" for n in range(10)], "num_vis": 3072}
    (folder / "batches.meta").write_bytes(pickle.dumps(names, protocol=2))
    return np.concatenate(images)


def pack(tar: Path, folder: Path, members: list[Path] | None = None) -> Path:
    """A tar of some files below a folder, by default of all, named as they are in it."""
    tar.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(tar, "w") as archive:
        for path in members or sorted(path for path in folder.rglob("*") if path.is_file()):
            archive.add(path, path.relative_to(folder))
    return tar


def make_tars(root: Path, images: Path, layout: str) -> Path:
    """The images of an ImageFolder in tars: one a ``part``, one a ``class``, or ``nested``, ImageNet's own layout."""
    for part in (path for path in images.iterdir() if path.is_dir()):
        if layout == "part":
            pack(root / f"{part.name}.tar", part)
            continue
        tars = [pack(root / part.name / f"{folder.name}.tar", folder) for folder in part.iterdir()]
        if layout == "nested":
            pack(root / f"ILSVRC2012_img_{part.name}.tar", root / part.name, tars)
            shutil.rmtree(root / part.name)
    return root


def make_shards(root: Path, images: Path, label: str = "cls", size: int = 20) -> Path:
    """The images of an ImageFolder as WebDataset shards, shuffled; ``label``: ``cls``, ``text`` or ``json``."""
    for part in (path for path in images.iterdir() if path.is_dir()):
        classes = sorted(path.name for path in part.iterdir())
        paths = sorted(part.rglob("*.png"))
        random.Random(0).shuffle(paths)
        root.mkdir(parents=True, exist_ok=True)
        for start in range(0, len(paths), size):
            with tarfile.open(root / f"{part.name}-{start:04}.tar", "w") as shard:
                for path in paths[start : start + size]:
                    name, number = path.parent.name, classes.index(path.parent.name)
                    text = {"cls": str(number), "text": name, "json": json.dumps({"label": number})}[label]
                    kind = "json" if label == "json" else "cls"
                    for ending, content in (("png", path.read_bytes()), (kind, text.encode())):
                        member = tarfile.TarInfo(f"{name}_{path.stem}.{ending}")
                        member.size = len(content)
                        shard.addfile(member, io.BytesIO(content))
    (root / "_info.json").write_text(json.dumps({"class_names": classes}))
    return root
