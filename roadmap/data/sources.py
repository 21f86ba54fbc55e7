"""Where images come from: the embedded set, a folder of images, or a standard layout on disk."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from PIL import Image

from roadmap.checks import RoadmapError, check_choice, check_int
from roadmap.data import DATA_SETS, LOADINGS

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
#: Decoded sets up to this many bytes are held in memory, and images up to this side in pixels: larger ones are decoded
#: while training, which also lets random crops be cut from the whole original.
MEMORY_LIMIT, MEMORY_SIDE = 2 * 2**30, 128
#: A shown list of files is cut behind so many.
NAMED_FILES = 3
#: Of a set that is too large to decode before training, this many images are tried.
PROBED_FILES = 500
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Split:
    """Labelled images: decoded, ``images`` uint8 (N, H, W, 3), or as ``paths`` to files. ``labels``: int64 (N,)."""

    labels: np.ndarray
    images: np.ndarray | None = None
    paths: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def picture(self, index: int) -> Image.Image:
        """One image as RGB, in its own size if it comes from a file."""
        return Image.fromarray(self.images[index]) if self.images is not None else read_image(self.paths[index])


@dataclass(frozen=True)
class ImageData:
    """An opened data set.

    ``mean`` and ``std`` are per channel of RGB in 0..1: measured on the training images where they are in memory,
    ImageNet's where they are streamed. ``crop_share``: share of the shorter side that the test crop keeps. ``flip``
    says whether a mirrored image keeps its class. ``fingerprint`` is a hash of the images (of the names and sizes of
    files that are streamed) and so names the data, wherever it lies.
    """

    name: str
    image_size: int
    class_names: tuple[str, ...]
    train: Split
    test: Split
    flip: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    crop_share: float = 1.0

    @property
    def identity(self) -> str:
        """A hash of the images and of how they are held, cut and normalised: all that a result owes to the data."""
        facts = (self.fingerprint, self.in_memory, self.crop_share, self.flip, self.mean, self.std)
        return _hash([repr(facts).encode()])

    @property
    def in_memory(self) -> bool:
        """Whether all images are decoded."""
        return self.train.images is not None


def open_data(
    name: str = "embedded",
    directory: str | os.PathLike | None = None,
    image_size: int | None = None,
    download: bool = False,
    loading: str = "auto",
) -> ImageData:
    """Open a data set and look whether it can be trained on, before anything starts.

    ``image_size`` is the side in pixels that images are resized and cropped to; by default 32 for the embedded set and
    CIFAR, 224 for ImageNet, and for a folder the usual size of its images, 224 at most. ``loading`` keeps the decoded
    images in ``memory`` or ``stream``s them; ``auto`` streams above 2 GiB, and above 128 pixels.

    Raises `RoadmapError` with one sentence for a folder that is missing, empty, of one class, of different classes in
    train and test, or that holds files which are no images (named).
    """
    check_choice("data", name, DATA_SETS)
    check_choice("loading", loading, LOADINGS)
    if image_size is not None:
        check_int("image size", image_size, 1, 4096)
    if name == "embedded":
        if directory is not None:
            raise RoadmapError("the embedded data set needs no data directory; for your own images say --data folder")
        if download or loading == "stream":
            raise RoadmapError("the embedded data set is made in memory: it is neither downloaded nor streamed")
        return _embedded(image_size or 32)
    if directory == "":
        raise RoadmapError("the data directory is empty text")
    if directory is None:
        raise RoadmapError(f"data set '{name}' needs --data-dir, the folder where it lies")
    root = Path(directory).expanduser()
    if download:
        _download(name, root)
    if not os.path.isdir(root):  # noqa: PTH112  (which also takes names that are too long)
        raise RoadmapError(f"there is no folder {root}")
    batches = _CIFAR_LAYOUTS.get(name)
    try:
        if batches and (root / batches["folder"]).is_dir():
            return _cifar(name, root / batches["folder"], image_size or 32)
        return _folder(name, root, image_size or {"folder": None, "imagenet": 224}.get(name, 32), loading)
    except OSError as error:
        raise RoadmapError(f"{error.filename or root} cannot be read: {error.strerror}") from None


def _embedded(image_size: int) -> ImageData:
    from roadmap.data.embedded import compose

    train_images, train_labels, test_images, test_labels = compose()
    names = tuple(str(digit) for digit in range(10))
    return _decoded(
        "embedded", image_size, names, train_images, train_labels, test_images, test_labels, flip=False
    )  # digits are not symmetric


def _decoded(
    name: str,
    image_size: int,
    class_names: tuple[str, ...],
    train_images: np.ndarray,
    train_labels: np.ndarray,
    test_images: np.ndarray,
    test_labels: np.ndarray,
    flip: bool = True,
    crop_share: float = 1.0,
) -> ImageData:
    arrays = (train_images, train_labels, test_images, test_labels)
    fingerprint = _hash(np.ascontiguousarray(array).data for array in arrays)

    def sized(images: np.ndarray) -> np.ndarray:
        if images.shape[1:3] != (image_size, image_size):
            images = np.stack([np.asarray(fit(Image.fromarray(image), image_size)) for image in images])
        return np.ascontiguousarray(images)

    train, test = sized(train_images), sized(test_images)
    # In slices: a float copy of a whole data set would need eight times its memory.
    totals = np.zeros((2, 3))
    for start in range(0, len(train), 1024):
        values = train[start : start + 1024].reshape(-1, 3) / 255.0
        totals += np.stack([values.sum(0), (values**2).sum(0)])
    mean, square = totals / (train.size / 3)
    std = np.sqrt(np.maximum(square - mean**2, 1e-6))  # a constant channel must not divide by zero
    return ImageData(
        name=name,
        image_size=image_size,
        class_names=class_names,
        train=Split(np.asarray(train_labels, dtype=np.int64), train),
        test=Split(np.asarray(test_labels, dtype=np.int64), test),
        flip=flip,
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        fingerprint=fingerprint,
        crop_share=crop_share,
    )


# --- folders ---------------------------------------------------------------------------------------------------------


def _folder(name: str, root: Path, image_size: int | None, loading: str) -> ImageData:
    train_root = root / "train"
    test_root = next((root / part for part in ("val", "test") if (root / part).is_dir()), None)
    if not train_root.is_dir() or test_root is None:
        expected = "train/CLASS/IMAGE and val/CLASS/IMAGE (or test/CLASS/IMAGE)"
        if name in _CIFAR_LAYOUTS:
            expected = f"{_CIFAR_LAYOUTS[name]['folder']}/ (--download fetches it) or {expected}"
        raise RoadmapError(f"{root} must hold {expected}, but holds {_listing(root)}")
    class_names, train_paths, train_labels = _scan(train_root)
    test_names, test_paths, test_labels = _scan(test_root)
    if len(class_names) < 2:
        raise RoadmapError(f"{train_root} has one class only ('{class_names[0]}'): there is nothing to tell apart")
    expected_classes = _CIFAR_LAYOUTS.get(name, {}).get("classes", len(class_names))
    if len(class_names) != expected_classes:
        raise RoadmapError(f"{train_root} has {len(class_names)} classes, but {name} has {expected_classes}")
    for only, other, names in ((train_root, test_root, class_names), (test_root, train_root, test_names)):
        missing = sorted(set(names) - set(test_names if names is class_names else class_names))
        if missing:
            raise RoadmapError(f"class '{missing[0]}' is in {only}, but not in {other}")

    # The usual test crop on ImageNet: 224 of 256.
    share = 0.875 if name == "imagenet" else 1.0
    paths = train_paths + test_paths
    fingerprint = _hash(os.fsencode(f"{os.path.relpath(path, root)}:{Path(path).stat().st_size}\n") for path in paths)
    if image_size is None:
        image_size = _usual_size(paths)
    needed = len(paths) * image_size**2 * 3
    large = needed > MEMORY_LIMIT or image_size > MEMORY_SIDE
    if loading == "stream" or (loading == "auto" and large):
        _read_all(paths[:: max(1, len(paths) // PROBED_FILES)], lambda picture, path: None)
        return ImageData(
            name, image_size, class_names, Split(train_labels, paths=tuple(train_paths)),
            Split(test_labels, paths=tuple(test_paths)), True, IMAGENET_MEAN, IMAGENET_STD, fingerprint, share,
        )  # fmt: skip
    count = len(train_paths)
    shares = dict.fromkeys(train_paths, 1.0) | dict.fromkeys(test_paths, share)
    images = np.stack(_read_all(paths, lambda picture, path: np.asarray(fit(picture, image_size, shares[path]))))
    return _decoded(
        name, image_size, class_names, images[:count], train_labels, images[count:], test_labels,
        crop_share=share,
    )  # fmt: skip


def _scan(root: Path) -> tuple[tuple[str, ...], list[str], np.ndarray]:
    """Class names, image paths and labels below ``root``, in one fixed order."""
    classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise RoadmapError(f"{root} has no class folders: expected {root.name}/CLASS/IMAGE, found {_listing(root)}")
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(
            os.path.join(folder, file)
            for folder, _, files in os.walk(root / name)
            for file in files
            if file.lower().endswith(EXTENSIONS) and not file.startswith(".")
        )
        if not found:
            raise RoadmapError(f"the class folder {root / name} has no images ({', '.join(EXTENSIONS)})")
        paths += found
        labels += [label] * len(found)
    return tuple(classes), paths, np.array(labels, dtype=np.int64)


def _usual_size(paths: list[str]) -> int:
    """The commonest shorter side among up to 200 images, a multiple of 32 between 32 and 224."""
    sizes: Counter[int] = Counter()
    for path in paths[:: max(1, len(paths) // 200)]:
        try:
            with Image.open(path) as picture:
                sizes[min(picture.size)] += 1
        except (OSError, Image.DecompressionBombError):
            _unreadable([path])
    return min(224, max(32, sizes.most_common(1)[0][0] // 32 * 32))


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_image(path: str) -> Image.Image:
    """An image file as RGB, transparency shown on black. Raises `RoadmapError` naming the file if it cannot be read."""
    try:
        with Image.open(path) as picture:
            if picture.mode == "F":
                raise RoadmapError(f"{path} holds fractions (mode F) of unknown range: convert it to 8 or 16 bits")
            if picture.mode == "I" or picture.mode.startswith("I;16"):  # 16 bits: keep the upper eight
                return Image.fromarray((np.asarray(picture).clip(0, 65535) // 256).astype(np.uint8)).convert("RGB")
            if picture.has_transparency_data:
                shown = picture.convert("RGBA")
                return Image.alpha_composite(Image.new("RGBA", shown.size, "black"), shown).convert("RGB")
            return picture.convert("RGB")
    except RoadmapError:
        raise
    except (OSError, Image.DecompressionBombError, SyntaxError, ValueError):
        _unreadable([path])


def fit(picture: Image.Image, size: int, share: float = 1.0) -> Image.Image:
    """Cut the middle square, ``share`` of the shorter side, and resize it to ``size`` pixels (bicubic)."""
    width, height = picture.size
    if (width, height) == (size, size) and share == 1.0:
        return picture
    scale = size / share / min(width, height)
    resized = picture.resize(
        (max(size, round(width * scale)), max(size, round(height * scale))), Image.Resampling.BICUBIC
    )
    left, top = (resized.width - size) // 2, (resized.height - size) // 2
    return resized.crop((left, top, left + size, top + size))


def _read_all(paths: list[str], use: Callable[[Image.Image, str], Any]) -> list[Any]:
    """``use`` of every image and its path, in order. Raises `RoadmapError` naming those that cannot be read."""
    bad: list[str] = []
    reasons: list[str] = []

    def read(path: str) -> Any:
        try:
            return use(read_image(path), path)
        except RoadmapError as error:
            bad.append(path)
            reasons.append(str(error))
            return None

    with ThreadPoolExecutor(max_workers=cores()) as pool:
        results = list(pool.map(read, paths))
    if len(bad) == 1:
        raise RoadmapError(reasons[0])
    if bad:
        _unreadable(sorted(bad))
    return results


def _unreadable(paths: list[str]) -> NoReturn:
    more = f" and {len(paths) - NAMED_FILES} more" if len(paths) > NAMED_FILES else ""
    what = "is not a readable image" if len(paths) == 1 else "are not readable images"
    raise RoadmapError(f"{', '.join(paths[:NAMED_FILES])}{more} {what}")


def _listing(root: Path) -> str:
    names = sorted(entry.name for entry in root.iterdir())
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else "nothing"


def _hash(parts: Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]


# --- CIFAR's own layout ----------------------------------------------------------------------------------------------

_CIFAR_LAYOUTS: dict[str, dict[str, Any]] = {
    "cifar10": {
        "folder": "cifar-10-batches-py",
        "train": [f"data_batch_{n}" for n in range(1, 6)],
        "test": ["test_batch"],
        "names": ("batches.meta", "label_names"),
        "labels": "labels",
        "classes": 10,
    },
    "cifar100": {
        "folder": "cifar-100-python",
        "train": ["train"],
        "test": ["test"],
        "names": ("meta", "fine_label_names"),
        "labels": "fine_labels",
        "classes": 100,
    },
}


class _ArraysOnly(pickle.Unpickler):
    """Reads CIFAR's pickled batches and builds arrays from them, but looks up and calls nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return _empty_array
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):
            return lambda text, encoding: text.encode("latin1")
        raise pickle.UnpicklingError(f"{module}.{name} is not data")


def _empty_array(*_: Any) -> np.ndarray:
    return np.ndarray.__new__(np.ndarray, (0,), np.uint8)


def _cifar(name: str, folder: Path, image_size: int) -> ImageData:
    layout = _CIFAR_LAYOUTS[name]

    def read(file: str) -> dict[str, Any]:
        path = folder / file
        try:
            content = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="latin1").load()
        except FileNotFoundError:
            raise RoadmapError(f"{folder} has no file {file}: the data set is not complete") from None
        except Exception as error:  # a damaged pickle raises almost anything
            raise RoadmapError(f"{path} is not a batch of {name}: {error}") from None
        if not isinstance(content, dict):
            raise RoadmapError(f"{path} is not a batch of {name}")
        return content

    def split(files: list[str]) -> tuple[np.ndarray, np.ndarray]:
        images, labels = [], []
        for file in files:
            batch = read(file)
            try:
                images.append(np.asarray(batch["data"], dtype=np.uint8).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
                labels.append(np.asarray(batch[layout["labels"]], dtype=np.int64))
            except (KeyError, ValueError):
                raise RoadmapError(f"{folder / file} is not a batch of {name}") from None
        return np.concatenate(images), np.concatenate(labels)

    file, key = layout["names"]
    class_names = tuple(read(file).get(key, ()))
    train, test = split(layout["train"]), split(layout["test"])
    if len(class_names) < 2 or max(train[1].max(), test[1].max()) >= len(class_names):
        raise RoadmapError(f"{folder / file} does not name the classes of {name}")
    return _decoded(name, image_size, class_names, *train, *test)


def _download(name: str, root: Path) -> None:
    if name not in _CIFAR_LAYOUTS:
        raise RoadmapError(f"--download can fetch {' and '.join(_CIFAR_LAYOUTS)}, not {name}")
    from torchvision.datasets import CIFAR10, CIFAR100
    from torchvision.datasets.utils import download_and_extract_archive

    kind = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    if (root / kind.base_folder).is_dir():
        return
    try:
        download_and_extract_archive(kind.url, str(root), filename=kind.filename, md5=kind.tgz_md5)
    except (OSError, RuntimeError) as error:
        raise RoadmapError(f"{name} could not be downloaded to {root}: {error}") from None
