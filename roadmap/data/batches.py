"""Augmented batches: batched tensor code for images in memory, per-image transforms and workers for the rest."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import Mixup
from timm.data.auto_augment import rand_augment_transform
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from roadmap.checks import RoadmapError
from roadmap.data.images import fit
from roadmap.data.shared import SharedMemoryError, lacks_shared_memory
from roadmap.data.sources import ImageData, Split
from roadmap.processes import prepare_sockets
from roadmap.recipes.recipe import Recipe

Batch = tuple[Tensor, Tensor]
#: Test batches hold at least this many images; without gradients they need little memory.
TEST_BATCH = 256


#: What follows (seed, epoch) among the keys of `seed_everything`: the two must not share their numbers, nor share them
#: with the initial weights, whose key is the seed alone (NumPy fills missing keys with zeros).
EPOCH, IMAGE = 1, 2


def seed_everything(*keys: int, devices: bool = True) -> None:
    """Seed the global generators of Python, NumPy and torch from a tuple of numbers, such as (seed, epoch, EPOCH).

    Without ``devices`` torch's own for the CPU alone, and not those of GPUs, which belong to the network.
    """
    state = np.random.SeedSequence(keys).generate_state(3)
    random.seed(int(state[0]))
    np.random.seed(int(state[1]))
    (torch.manual_seed if devices else torch.default_generator.manual_seed)(int(state[2]))


class Batcher:
    """Makes the batches of one run: (images float (N, 3, S, S) normalised, targets (N,) or, mixed, (N, classes)).

    Everything random in epoch e follows from (seed, e) alone, whatever was drawn before and whatever the number of
    workers, so that a run continued from the end of an epoch is the run that was never stopped: the training calls
    ``seed_everything(seed, e, EPOCH)`` when the epoch starts. Images that are in memory are augmented in batches on
    ``device``, each image by its own draw; others, and all images of a recipe with RandAugment, go one by one through
    transforms in ``workers`` processes.

    Where ``ranks`` processes train together, each takes its ``rank``-th share of every batch.
    """

    def __init__(
        self,
        data: ImageData,
        recipe: Recipe,
        seed: int,
        device: torch.device | str = "cpu",
        workers: int = 0,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.data, self.recipe, self.seed, self.workers = data, recipe, seed, workers
        self.rank, self.ranks = rank, ranks
        self.device = torch.device(device)
        self.flips = recipe.flip and data.flip
        self._stores: dict[int, Batch] = {}

    @property
    def batch_size(self) -> int:
        """Images a training step, of all ranks and parts together: the recipe's, or as many as there are."""
        whole = self.recipe.accumulate * (2 if self.recipe.mixes else 1)
        return min(self.recipe.batch_size, len(self.data.train) // whole * whole)

    @property
    def part_size(self) -> int:
        """Images of one of the `batches`: a step's, or the part of them that gradient accumulation leaves."""
        return self.batch_size // self.recipe.accumulate

    @property
    def steps(self) -> int:
        """Training steps an epoch. Images that do not fill a last batch are left out; another epoch has others."""
        return len(self.data.train) // self.batch_size

    @property
    def batches(self) -> int:
        """Batches an epoch: one a step, or as many as a step's is cut into."""
        return self.steps * self.recipe.accumulate

    def order(self, epoch: int) -> np.ndarray:
        """Places of this epoch's training images, in its order: int64, a whole number of batches."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.data.train))
        return order[: self.steps * self.batch_size]

    def training(self, epoch: int) -> Batches:
        """The training batches of this epoch, in its order."""
        order = self.order(epoch)
        mix = None
        if self.recipe.mixes:
            mix = Mixup(
                self.recipe.mixup,
                self.recipe.cutmix,
                label_smoothing=self.recipe.label_smoothing,
                num_classes=len(self.data.class_names),
            )
        if self.data.in_memory and self.recipe.randaugment is None:
            erase = self._erase(self.device.type)
            batches = _TensorBatches(self, self.data.train, order, self.part_size, self._augment(epoch), erase)
            return Batches(batches, mix)
        transform = _Labelled(transforms.Compose(self._image_transforms()))
        images = Images(self.data.train, order, transform, (self.seed, epoch, IMAGE), self.share(len(order)))
        return Batches(self.loader(images, self.part_size // self.ranks), mix)

    def testing(self, size: int | None = None) -> Batches:
        """The test batches, in order, without augmentation, of ``size`` images or as many as suit the recipe."""
        size, order = self.test_size(size), np.arange(len(self.data.test))
        if self.data.in_memory:
            return Batches(_TensorBatches(self, self.data.test, order, size))
        cut = transforms.Lambda(_Fit(self.data.image_size, self.data.crop_share))
        transform = _Labelled(transforms.Compose([cut, *self._to_tensor()]))
        images = Images(self.data.test, order, transform, (0, 0, IMAGE), self.test_places(size))
        return Batches(self.loader(images, size))

    def test_places(self, size: int | None = None) -> np.ndarray:
        """Which test images this rank is given by `testing`, in that order: their places among all, int64 (M,)."""
        size, order = self.test_size(size), np.arange(len(self.data.test))
        if not self.data.in_memory:
            return order[self.rank :: self.ranks]
        batches = np.split(order, range(size, len(order), size))
        return np.concatenate([np.array_split(batch, self.ranks)[self.rank] for batch in batches])

    def test_size(self, size: int | None = None) -> int:
        """Images of a test batch: ``size``, or as many as suit the recipe, if there are that many."""
        return min(size or max(self.recipe.part_size, TEST_BATCH), len(self.data.test))

    def share(self, count: int) -> np.ndarray:
        """This rank's places among ``count`` images that are cut into whole batches."""
        return np.arange(count).reshape(-1, self.ranks, self.part_size // self.ranks)[:, self.rank].ravel()

    def store(self, split: Split) -> Batch:
        """A split on the device: images uint8 (M, S, S, 3) and labels (M,)."""
        if id(split) not in self._stores:
            images, labels = (torch.from_numpy(array).to(self.device) for array in (split.images, split.labels))
            self._stores[id(split)] = images, labels
        return self._stores[id(split)]

    def normalize(self, pixels: Tensor) -> Tensor:
        """(N, S, S, 3) in 0..255 -> (N, 3, S, S) with the data's mean and deviation."""
        mean, std = (torch.tensor(values, device=pixels.device) for values in (self.data.mean, self.data.std))
        # The permuted view is in torch's channels_last layout: no copy.
        return torch.addcmul(-mean / std, pixels.float(), 1 / (255 * std)).permute(0, 3, 1, 2)

    def _augment(self, epoch: int) -> Callable[[Tensor, Tensor], Tensor]:
        """A function (store (M, S, S, 3), indices (N,)) -> pixels (N, S, S, 3): gathers, cuts, shifts and flips."""
        recipe = self.recipe
        generator = torch.Generator()
        generator.manual_seed(int(np.random.SeedSequence([self.seed, epoch]).generate_state(1)[0]))

        def augment(store: Tensor, indices: Tensor) -> Tensor:
            if recipe.crop == "resized":
                return _resized_crop(store[indices], recipe.crop_scale, self.flips, generator)
            count, size = len(indices), store.shape[1]
            most = min(recipe.crop_pixels, size - 1) if recipe.crop == "shift" else 0
            if not most and not self.flips:
                return store[indices]
            places = torch.arange(size)
            shifts = torch.randint(-most, most + 1, (2, count, 1), generator=generator)
            rows, columns = (_reflect(places + shift, size) for shift in shifts)
            if self.flips:
                mirrored = torch.rand(count, 1, generator=generator) < 0.5
                columns = torch.where(mirrored, columns.flip(1), columns)
            rows, columns = rows.to(store.device), columns.to(store.device)
            return store[indices[:, None, None], rows[:, :, None], columns[:, None, :]]

        return augment

    def _image_transforms(self) -> list[Callable]:
        recipe, size = self.recipe, self.data.image_size
        steps: list[Callable] = []
        if recipe.crop == "resized":
            steps.append(RandomResizedCropAndInterpolation(size, recipe.crop_scale, interpolation="bicubic"))
        else:
            steps.append(transforms.Lambda(_Fit(size, 1.0)))
            if recipe.crop == "shift":
                steps.append(transforms.RandomCrop(size, min(recipe.crop_pixels, size - 1), padding_mode="reflect"))
        if self.flips:
            steps.append(transforms.RandomHorizontalFlip())
        if recipe.randaugment:
            settings = {
                "translate_const": int(size * 0.45),
                "img_mean": tuple(round(255 * value) for value in self.data.mean),
                "interpolation": Image.Resampling.BICUBIC,
            }
            steps.append(rand_augment_transform(recipe.randaugment, settings))
        erase = self._erase("cpu")
        return [*steps, *self._to_tensor(), *([erase] if erase else [])]

    def _to_tensor(self) -> list[Callable]:
        return [transforms.ToTensor(), transforms.Normalize(self.data.mean, self.data.std)]

    def _erase(self, device: str) -> RandomErasing | None:
        probability = self.recipe.random_erasing
        return RandomErasing(probability, mode="pixel", device=device) if probability else None

    def loader(self, images: Dataset, size: int, collate: Callable[[list[Any]], Any] | None = None) -> DataLoader:
        """Batches of ``size`` images in their order, made by the workers; ``collate`` makes a batch of some."""
        # Forked where that is safe: workers, made anew each epoch, would import everything and copy the data otherwise.
        fork = self.workers > 0 and sys.platform == "linux"
        if self.workers > 0:
            prepare_sockets()
        # Its own generator, for the loader draws a number that would come from the network's.
        return DataLoader(
            images,
            size,
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),
            collate_fn=collate,
            multiprocessing_context="fork" if fork else None,
        )


def _reflect(positions: Tensor, size: int) -> Tensor:
    """Positions outside 0..size-1 mirrored at the border."""
    return (size - 1) - ((size - 1) - positions.abs()).abs()


def _resized_crop(images: Tensor, scale: tuple[float, ...], flips: bool, generator: torch.Generator) -> Tensor:
    """Inception's random resized crop (area within ``scale``, aspect 3/4 to 4/3), a draw an image, bilinear."""
    count, device = len(images), images.device
    area, aspect, x, y, mirror = torch.rand(5, count, generator=generator).to(device)
    area = scale[0] + (scale[1] - scale[0]) * area
    aspect = torch.exp((2 * aspect - 1) * float(np.log(4 / 3)))
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    affine = torch.zeros(count, 2, 3, device=device)
    affine[:, 0, 0] = torch.where(mirror < 0.5, -width, width) if flips else width
    affine[:, 1, 1] = height
    affine[:, 0, 2] = (2 * x - 1) * (1 - width)
    affine[:, 1, 2] = (2 * y - 1) * (1 - height)
    pixels = images.permute(0, 3, 1, 2).float()
    grid = torch.nn.functional.affine_grid(affine, list(pixels.shape), align_corners=False)
    # The grid stays within the image, so that only the outer half of its border pixels asks for a padding, which is
    # their own colour either way. Metal has no reflection.
    padding = "border" if device.type == "mps" else "reflection"
    cut = torch.nn.functional.grid_sample(pixels, grid, padding_mode=padding, align_corners=False)
    return cut.permute(0, 2, 3, 1)


@dataclass(frozen=True)
class _TensorBatches:
    """Batches of a split that lies decoded on the device."""

    batcher: Batcher
    split: Split
    order: np.ndarray
    size: int
    augment: Callable[[Tensor, Tensor], Tensor] | None = None
    erase: RandomErasing | None = None

    def __len__(self) -> int:
        return -(-len(self.order) // self.size)

    def __iter__(self) -> Iterator[Batch]:
        store, labels = self.batcher.store(self.split)
        rank, ranks = self.batcher.rank, self.batcher.ranks
        for indices in torch.from_numpy(self.order).to(store.device).split(self.size):
            pixels = self.augment(store, indices) if self.augment else store[indices]
            if ranks > 1:  # every rank draws the augmentation of the whole batch, so that its images have no say in it
                pixels, indices = (part.tensor_split(ranks)[rank] for part in (pixels, indices))
            images = self.batcher.normalize(pixels)
            yield (self.erase(images) if self.erase else images), labels[indices]


class Images(Dataset):
    """Images one by one, each made from its split and its index there by ``transform``, with the generators seeded by
    (seed, epoch, IMAGE, place in the epoch)."""

    def __init__(
        self, split: Split, order: np.ndarray, transform: Callable, keys: tuple[int, int, int], places: np.ndarray
    ) -> None:
        self._split, self._order, self._transform, self._keys, self._places = split, order, transform, keys, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, item: int) -> Any:
        place = int(self._places[item])
        index = int(self._order[place])
        before = random.getstate(), np.random.get_state(), torch.get_rng_state()
        try:
            seed_everything(*self._keys, place, devices=False)
            return self._transform(self._split, index)
        finally:  # in the main process the generators belong to the network
            random.setstate(before[0])
            np.random.set_state(before[1])
            torch.set_rng_state(before[2])


@dataclass(frozen=True)
class _Labelled:
    """An image, transformed, with its label."""

    transform: Callable[[Image.Image], Tensor]

    def __call__(self, split: Split, index: int) -> tuple[Tensor, int]:
        return self.transform(split.picture(index)), int(split.labels[index])


@dataclass(frozen=True)
class _Fit:
    """`fit` as a transform that worker processes can receive."""

    size: int
    share: float

    def __call__(self, picture: Image.Image) -> Image.Image:
        return fit(picture, self.size, self.share)


@dataclass
class Batches:
    """Batches, mixed where the recipe mixes. ``waited``: seconds that the training spent waiting for them."""

    source: Iterable[Any]
    mix: Callable[[Tensor, Tensor], Batch] | None = None
    waited: float = 0.0

    def __len__(self) -> int:
        return len(self.source)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        batches: Iterator[Any] | None = None
        while True:
            begun = time.perf_counter()
            try:
                batches = batches or iter(self.source)
                batch = next(batches, None)
            except RoadmapError as error:  # a worker's comes wrapped in the text of its traceback
                error.__traceback__ = None  # torch leaves the loader in a cycle with it, and workers in one end late
                raise RoadmapError(str(error).strip().rpartition(f"{RoadmapError.__name__}: ")[2]) from None
            except (OSError, RuntimeError) as error:
                if lacks_shared_memory(error):
                    raise SharedMemoryError from None
                raise
            if batch is None:
                return
            batch = batch if self.mix is None else self.mix(*batch)
            self.waited += time.perf_counter() - begun
            yield batch
