"""Data sets, opened: looked at before anything starts, and held in memory or streamed."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from roadmap.checks import RoadmapError, cause, check_choice, check_int, plain
from roadmap.data import HUB, LOADINGS, check_data
from roadmap.data.entries import told
from roadmap.data.images import fit, named
from roadmap.data.known import EMBEDDED, Decoded, compose_embedded, data_sets
from roadmap.data.listings import HELD_OUT, HELD_OUT_OF, Listing, fingerprint_lines, hold_out, with_same_classes
from roadmap.data.looking import (
    look_at,
    probed,
    read_all,
    read_picture,
    refuse_empty,
    seen_remarks,
    usual_size,
    without_corrupt,
)
from roadmap.data.readers import Reader
from roadmap.formatting import listed
from roadmap.markup import printable

#: Decoded sets up to this many bytes are held in memory, and images up to this side in pixels: larger ones are decoded
#: while training, which also lets random crops be cut from the whole original.
MEMORY_LIMIT, MEMORY_SIDE = 2 * 2**30, 128
#: Of a set that is too large to decode before training, this many images are tried.
PROBED_IMAGES = 500
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: From this many pixels on the test crop keeps the whole shorter side, as in the released code.
WHOLE_FROM = 384


@dataclass(frozen=True)
class Split:
    """Labelled images: decoded, ``images`` uint8 (N, H, W, 3), or encoded, by a ``reader``, with ``bits``, uint8 (N,),
    as in `read_picture`. ``labels``: int64 (N,). ``change``: what is done to an image, by its place among them."""

    labels: np.ndarray
    images: np.ndarray | None = None
    reader: Reader | None = None
    bits: np.ndarray | None = None
    change: Callable[[Image.Image, int], Image.Image] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: np.ndarray) -> Split:
        """These images alone."""
        return dataclasses.replace(
            self,
            labels=self.labels[indices],
            images=None if self.images is None else self.images[indices],
            reader=None if self.reader is None else self.reader.select(indices),
            bits=None if self.bits is None else self.bits[indices],
        )

    def picture(self, index: int) -> Image.Image:
        """One image as RGB, in its own size if it is encoded. Raises `RoadmapError` naming one that cannot be read."""
        if self.reader is not None and self.bits is not None:
            picture = read_picture(self.reader, index, self.bits)
        else:
            picture = Image.fromarray(self.images[index])  # type: ignore[index]
        return picture if self.change is None else self.change(picture, index)


@dataclass(frozen=True)
class ImageData:
    """An opened data set.

    ``mean`` and ``std`` are per channel of RGB in 0..1: measured on the training images where they are in memory,
    ImageNet's where they are streamed. ``crop_share``: share of the shorter side that the test crop keeps. ``flip``
    says whether a mirrored image keeps its class. ``fingerprint`` is a hash of the images (of the names and bytes of
    those that are streamed) and so names the data, wherever it lies. ``evaluation`` says which part of the data set
    tests; ``skipped`` names the images that were left out because they cannot be read; ``notes`` say what else was left
    out, and how images are read that are not plain. ``test_names``: bytes (N,), the names of the test images, where the
    source has any; ``test_fingerprint``: a hash of which images these are and of their order, whether in memory or
    streamed, at any size.
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
    evaluation: str = "test"
    skipped: tuple[str, ...] = ()
    test_names: np.ndarray | None = None
    test_fingerprint: str = ""
    notes: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        """A hash of the images and of how they are held, cut and normalised: all that a result owes to the data."""
        facts = (self.fingerprint, self.in_memory, self.crop_share, self.flip, self.mean, self.std)
        return hash_of([repr(facts).encode()])

    @property
    def in_memory(self) -> bool:
        """Whether all images are decoded."""
        return self.train.images is not None

    @property
    def remarks(self) -> list[str]:
        """What to know before training on it, one sentence each."""
        remarks = []
        if self.skipped:
            what = "image that cannot be read is" if len(self.skipped) == 1 else "images that cannot be read are"
            remarks.append(f"{len(self.skipped)} {what} left out: {named(list(self.skipped))}")
        if self.evaluation == HELD_OUT:
            remarks.append(
                f"there is no part to test: {len(self.test)} images, one in {HELD_OUT_OF} of each class, are {HELD_OUT}"
            )
        return [printable(remark) for remark in (*remarks, *self.notes)]


def open_data(
    name: str = "embedded",
    directory: str | os.PathLike | None = None,
    image_size: int | None = None,
    download: bool = False,
    loading: str = "auto",
    skip_corrupt: bool = False,
) -> ImageData:
    """Open a data set and look whether it can be trained on, before anything starts.

    ``name`` is one of `roadmap.data.known.data_sets`, or ``hfds/`` and the name of a Hugging Face data set, whose
    ``directory``, if any, is its cache. ``image_size`` is the side in pixels that images are resized and cropped to;
    by default 32 for the embedded set and CIFAR, 224 for ImageNet, else the usual size of the images, 224 at most.
    ``loading`` keeps the decoded images in ``memory`` or ``stream``s them; ``auto`` streams above 2 GiB, and above 128
    pixels.
    ``skip_corrupt`` decodes every image once and leaves out those that cannot be read. Where there is a part to train
    alone, one to test is held out of it (`hold_out`).

    Raises `RoadmapError` with one sentence for a folder that is missing, empty, of one class, of different classes in
    train and test, or that holds files which are no images (named).
    """
    check_data(name)
    name = plain(name)
    check_choice("loading", loading, LOADINGS)
    if image_size is not None:
        image_size = check_int("image size", image_size, 1, 4096)
    if name == EMBEDDED.name:
        if directory is not None:
            raise RoadmapError("the embedded data set needs no data directory; for your own images say --data folder")
        if download or loading == "stream":
            raise RoadmapError("the embedded data set is made in memory: it is neither downloaded nor streamed")
        return _decoded(name, image_size, compose_embedded())
    if directory == "":
        raise RoadmapError("the data directory is empty text")
    if directory is None and not name.startswith(HUB):
        raise RoadmapError(f"data set '{name}' needs --data-dir, the folder of its files")
    root = None if directory is None else Path(directory).expanduser()
    try:
        return _open(name, root, image_size, download, loading, skip_corrupt)
    except OSError as error:
        raise RoadmapError(f"{error.filename or root} cannot be read: {cause(error)}") from None


def _open(
    name: str, root: Path | None, image_size: int | None, download: bool, loading: str, skip_corrupt: bool
) -> ImageData:
    source = data_sets().get(name)
    if download:
        if source is None or source.fetch is None or root is None:
            fetched = [one.name for one in data_sets().values() if one.fetch]
            raise RoadmapError(f"--download can fetch {listed(fetched)}, not {name}")
        source.fetch(root)
    if source is None or root is None:
        from roadmap.data.hub import list_hub

        return _listed(name, list_hub(name, root), image_size, loading, skip_corrupt)
    if not os.path.isdir(root):  # noqa: PTH112  (which also takes names that are too long)
        raise RoadmapError(f"there is no folder {root}")
    image_size, found = image_size or source.image_size, source.read(root)
    if isinstance(found, Decoded):
        return _decoded(name, image_size, found)
    if source.test_only:
        loading = "stream"
        found = [found[0].select(np.zeros(0, np.int64), "train"), *found]
    return _listed(name, found, image_size, loading, skip_corrupt)


def _decoded(name: str, image_size: int | None, data: Decoded, **facts: Any) -> ImageData:
    """The data set of decoded images, by default at their own size; ``facts`` are fields of `ImageData` that are not
    their defaults."""
    class_names, train_images, train_labels, test_images, test_labels, flip = data
    image_size = image_size or int(train_images.shape[1])
    arrays = (train_images, train_labels, test_images, test_labels)
    fingerprint = hash_of(np.ascontiguousarray(array).data for array in arrays)

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
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        fingerprint=fingerprint,
        flip=flip,
        **{"test_fingerprint": hash_of(map(np.ascontiguousarray, (test_images, test_labels))), **facts},
    )


def crop_share_of(name: str, image_size: int) -> float:
    """Share of the shorter side that the test crop of a data set keeps at this size: `ImageData.crop_share`."""
    source = data_sets().get(name)
    return source.crop_share if source and image_size < WHOLE_FROM else 1.0


def _listed(name: str, parts: list[Listing], image_size: int | None, loading: str, skip_corrupt: bool) -> ImageData:
    """The data set whose parts, one to train and perhaps one to test, are listed."""
    parts = with_same_classes(parts)
    if not skip_corrupt:
        refuse_empty(parts)
    parts = look_at(parts)
    skipped: list[str] = []
    if skip_corrupt:
        parts, skipped = without_corrupt(parts)
    left_out = sum((part.left_out for part in parts), Counter[str]())
    notes = (*told(left_out), *seen_remarks(parts), *(remark for part in parts for remark in part.remarks))
    train, test = parts = parts if len(parts) == 2 else hold_out(parts[0])
    image_size = image_size or usual_size(parts)
    shares = (1.0, crop_share_of(name, image_size))
    facts: dict[str, Any] = {
        "crop_share": shares[1],
        "evaluation": test.part,
        "skipped": tuple(skipped),
        "notes": notes,
        "test_names": test.keys,
        "test_fingerprint": hash_of(fingerprint_lines(test)),
    }
    large = (len(train) + len(test)) * image_size**2 * 3 > MEMORY_LIMIT or image_size > MEMORY_SIDE
    if loading == "stream" or (loading == "auto" and large):
        read_all(parts, lambda picture, number: None, probed(parts, PROBED_IMAGES))
        return ImageData(
            name,
            image_size,
            train.class_names,
            Split(train.labels, reader=train.reader, bits=train.bits),
            Split(test.labels, reader=test.reader, bits=test.bits),
            True,
            IMAGENET_MEAN,
            IMAGENET_STD,
            hash_of(itertools.chain(fingerprint_lines(train), fingerprint_lines(test))),
            **facts,
        )
    images = np.stack(read_all(parts, lambda picture, number: np.asarray(fit(picture, image_size, shares[number]))))
    data = Decoded(train.class_names, images[: len(train)], train.labels, images[len(train) :], test.labels)
    return _decoded(name, image_size, data, **facts)


def hash_of(parts: Iterable[Any]) -> str:
    """16 hexadecimal digits that name some bytes."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]
