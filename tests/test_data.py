"""Data sets from every source, their batches, and what is said about bad ones."""

from __future__ import annotations

import dataclasses
import pickle
import random

import numpy as np
import pytest
import torch
from folders import make_cifar10, make_image_folder, make_images
from PIL import Image

from roadmap import RoadmapError
from roadmap.data import embedded, sources
from roadmap.data.batches import EPOCH, IMAGE, Batcher, seed_everything
from roadmap.data.images import fit, read_image
from roadmap.data.sources import open_data
from roadmap.recipes.recipe import Recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_image_folder(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def data(folder):
    return open_data("folder", folder)


# --- sources


def test_embedded_set_is_balanced_and_the_same_every_time():
    one, two = open_data("embedded"), open_data()
    assert one.fingerprint == two.fingerprint == "7fae78d87d96e211", "the images that kept results are of"
    assert not np.shares_memory(one.train.images, two.train.images), "who changes one changes no other"
    composed = [one.train.images, one.train.labels, one.test.images, one.test.labels]
    assert all(map(np.array_equal, composed, embedded.compose()))
    assert one.train.images.shape[1:] == (32, 32, 3) and one.train.images.dtype == np.uint8
    for split in (one.train, one.test):
        counts = np.bincount(split.labels, minlength=10)
        assert counts.min() > 0.5 * counts.max()
    assert not one.flip


def test_embedded_set_has_no_image_in_train_and_test():
    data = open_data("embedded")
    train = {image.tobytes() for image in data.train.images}
    assert len(train) == len(data.train)
    assert not train & {image.tobytes() for image in data.test.images}


def test_embedded_set_at_another_size():
    assert open_data("embedded", image_size=24).train.images.shape[1:] == (24, 24, 3)


@pytest.mark.parametrize("evaluation", ["val", "test"])
def test_folder(tmp_path, evaluation):
    data = open_data("folder", make_image_folder(tmp_path, evaluation=evaluation))
    assert data.class_names == ("blue", "green", "red")
    assert (len(data.train), len(data.test), data.image_size) == (72, 24, 32)
    assert data.train.labels.tolist() == [0] * 24 + [1] * 24 + [2] * 24
    first = np.asarray(Image.open(tmp_path / "train" / "blue" / "000.png"))
    # 36 x 32 pixels: the middle square is left
    assert np.array_equal(data.train.images[0], first[:, 2:34])
    pixels = data.train.images.reshape(-1, 3) / 255
    assert np.allclose(data.mean, pixels.mean(0)) and np.allclose(data.std, pixels.std(0))


def test_images_of_every_mode_are_read_as_rgb(tmp_path):
    root = make_image_folder(tmp_path, train=2, test=1, size=(32, 32))
    noise = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    for mode in ("L", "P", "RGBA", "LA", "1"):
        Image.fromarray(noise).convert(mode).save(root / "train" / "red" / f"{mode}.png")
    Image.fromarray(noise).convert("CMYK").save(root / "train" / "red" / "cmyk.JPG")
    data = open_data("folder", root)
    assert len(data.train) == 12


def test_sixteen_bits_keep_their_upper_eight_and_transparency_is_black(tmp_path):
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    assert np.array_equal(np.asarray(read_image(tmp_path / "ramp.png", "ramp.png"))[..., 0], ramp // 256)
    Image.new("RGBA", (2, 2), (255, 255, 255, 0)).save(tmp_path / "clear.png")
    assert not np.asarray(read_image(tmp_path / "clear.png", "clear.png")).any()
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "fractions.tif")
    with pytest.raises(RoadmapError, match="fractions.tif holds fractions"):
        read_image(tmp_path / "fractions.tif", "fractions.tif")


def test_fingerprint_is_of_the_images_not_of_the_place(tmp_path):
    one = open_data("folder", make_image_folder(tmp_path / "a"))
    two = open_data("folder", make_image_folder(tmp_path / "b"))
    assert one.fingerprint == two.fingerprint
    path = tmp_path / "b" / "train" / "red" / "003.png"
    pixels = np.asarray(Image.open(path)).copy()
    pixels[16, 16] ^= 1
    Image.fromarray(pixels).save(path)
    assert open_data("folder", tmp_path / "b").fingerprint != one.fingerprint


def test_identity_tells_how_the_images_are_held_and_cut(folder, data):
    others = [
        open_data("folder", folder, loading="stream"),
        open_data("imagenet", folder, image_size=32),
        dataclasses.replace(data, flip=False),
    ]
    assert len({data.identity, *(other.identity for other in others)}) == 4
    assert open_data("folder", folder).identity == data.identity


def test_generators_of_weights_epochs_and_images_differ():
    states = set()
    for keys in ((7,), (7, 0, EPOCH), (7, 1, EPOCH), (7, 0, IMAGE, 0), (7, 0, IMAGE, 1), (7, 1, IMAGE, 0), (8,)):
        seed_everything(*keys)
        states.add((random.random(), np.random.rand(), float(torch.rand(1))))
    assert len(states) == 7


def test_streamed_folder_has_the_same_images(folder, data):
    streamed = open_data("folder", folder, loading="stream")
    assert not streamed.in_memory
    assert np.array_equal(fit(streamed.train.picture(5), 32), data.train.images[5])


def test_large_folder_is_streamed(folder, monkeypatch):
    monkeypatch.setattr(sources, "MEMORY_LIMIT", 1000)
    assert not open_data("folder", folder).in_memory


def test_large_images_are_streamed(folder):
    assert open_data("folder", folder, image_size=128).in_memory
    assert not open_data("folder", folder, image_size=160).in_memory


def test_cifar10_batches(tmp_path):
    images = make_cifar10(tmp_path)
    data = open_data("cifar10", tmp_path)
    assert np.array_equal(data.train.images, images)
    assert (len(data.test), data.class_names[3], data.image_size) == (20, "class 3", 32)


def test_cifar100_batches(tmp_path):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (8, 3072), dtype=np.uint8)
    for name in ("train", "test"):
        labels = {"data": pixels, "fine_labels": list(range(92, 100)), "coarse_labels": [0] * 8}
        (folder / name).write_bytes(pickle.dumps(labels, protocol=2))
    meta = {"fine_label_names": [str(n) for n in range(100)], "coarse_label_names": ["all"]}
    (folder / "meta").write_bytes(pickle.dumps(meta, protocol=2))
    data = open_data("cifar100", tmp_path)
    assert len(data.class_names) == 100 and data.train.labels.tolist() == list(range(92, 100))


def test_cifar_batches_run_no_code(tmp_path):
    make_cifar10(tmp_path)

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(pickle.dumps({"data": Evil()}, protocol=2))
    with pytest.raises(RoadmapError, match=r"data_batch_1 is not a batch of cifar10"):
        open_data("cifar10", tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"\x80\x02garbage", pickle.dumps([1, 2]), pickle.dumps({"data": 1})])
def test_broken_cifar_batches_are_named(tmp_path, content):
    make_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(content)
    with pytest.raises(RoadmapError, match=r"data_batch_3 is not a batch of cifar10"):
        open_data("cifar10", tmp_path)


def test_cifar10_and_imagenet_as_folders(folder, tmp_path):
    for name in map(str, range(10)):
        for split in ("train", "test"):
            make_images(tmp_path / split / name, (9, 9, 9), 2, (32, 32), seed=int(name))
    assert open_data("cifar10", tmp_path).image_size == 32
    with pytest.raises(RoadmapError, match="has 3 classes, but cifar10 has 10"):
        open_data("cifar10", folder)
    data = open_data("imagenet", folder, image_size=16)
    assert data.crop_share == 0.875
    # the test crop keeps 0.875 of the shorter side
    expected = fit(Image.open(folder / "val" / "blue" / "000.png"), 16, 0.875)
    assert np.array_equal(data.test.images[0], np.asarray(expected))


def spoil(root, what):
    if what == "missing":
        return root / "nowhere"
    if what == "empty":
        (root / "empty").mkdir()
        return root / "empty"
    make_image_folder(root)
    if what == "no evaluation":
        (root / "val").rename(root / "evaluation")
    elif what == "no train":
        (root / "train").rename(root / "training")
    elif what == "no classes":
        for path in (root / "val").iterdir():
            path.rename(root / path.name)
    elif what == "one class":
        for split in ("train", "val"):
            for name in ("blue", "green"):
                (root / split / name).rename(root / f"{split}{name}")
    elif what == "empty class":
        for path in (root / "train" / "green").iterdir():
            path.unlink()
    elif what == "missing class":
        (root / "val" / "green").rename(root / "green")
    elif what == "extra class":
        (root / "val" / "green").rename(root / "val" / "grey")
    elif what == "dangling":
        (root / "train" / "red" / "gone.png").symlink_to(root / "nothing")
    elif what == "text":
        (root / "train" / "red" / "001.png").write_text("this is no image")
    elif what == "truncated":
        path = root / "val" / "red" / "002.png"
        path.write_bytes(path.read_bytes()[:200])
    elif what == "nothing readable":
        for path in (root / "train" / "red").iterdir():
            path.write_bytes(b"")
    return root


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("missing", "there is no folder .*nowhere"),
        ("empty", r"must hold train/CLASS/IMAGE and val/CLASS/IMAGE .* but holds nothing"),
        ("no evaluation", r"must hold .* but holds evaluation, train"),
        ("no train", r"must hold .* but holds training, val"),
        ("no classes", r"val has no class folders"),
        ("one class", r"one class only \('red'\)"),
        ("empty class", r"class folder .*green has no images"),
        ("missing class", r"class 'green' is in .*train, but not in .*val"),
        ("extra class", r"class 'green' is in .*train, but not in .*val"),
        ("dangling", r"gone.png"),
        ("text", r"train.red.001.png is not a readable image"),
        ("truncated", r"val.red.002.png is not a readable image"),
        ("nothing readable", r"000.png, .*001.png, .*002.png and 21 more are not readable images"),
    ],
)
@pytest.mark.parametrize("loading", ["memory", "stream"])
def test_bad_folders_are_told_in_one_sentence(tmp_path, what, sentence, loading):
    root = spoil(tmp_path, what)
    with pytest.raises(RoadmapError, match=sentence) as caught:
        open_data("folder", root, image_size=32, loading=loading)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"name": "folder"}, "needs --data-dir"),
        ({"name": "folder", "directory": ""}, "empty text"),
        ({"name": "folder", "directory": "x" * 5000}, "there is no folder"),
        ({"name": "embedded", "loading": "stream"}, "neither downloaded nor streamed"),
        ({"name": "embedded", "directory": "x"}, "needs no data directory"),
        ({"name": "imagenet", "directory": ".", "download": True}, "can fetch cifar10 and cifar100, not imagenet"),
        ({"name": "embeded"}, "did you mean 'embedded'"),
        ({"image_size": 0}, "image size is 0"),
    ],
)
def test_bad_arguments(arguments, sentence):
    with pytest.raises(RoadmapError, match=sentence):
        open_data(**arguments)


# --- batches


def batches(data, epoch=0, seed=0, workers=0, **settings):
    recipe = Recipe("test", batch_size=settings.pop("batch_size", 16), **settings)
    return list(Batcher(data, recipe, seed, workers=workers).training(epoch))


def raw(data):
    pixels = torch.from_numpy(data.train.images).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (data.mean, data.std))
    return ((pixels - mean) / std).float()


def test_plain_batches_are_the_normalised_images(data):
    found = batches(data)
    assert len(found) == 72 // 16
    known = raw(data)
    for images, labels in found:
        assert images.shape == (16, 3, 32, 32)
        for image, label in zip(images, labels, strict=True):
            errors = (known - image).abs().amax((1, 2, 3))
            assert errors.min() < 1e-4
            assert data.train.labels[errors.argmin()] == label


def test_every_epoch_has_another_order_and_every_seed(data):
    first = torch.cat([labels for _, labels in batches(data)])
    assert torch.equal(first, torch.cat([labels for _, labels in batches(data)]))
    assert not torch.equal(first, torch.cat([labels for _, labels in batches(data, epoch=1)]))
    assert not torch.equal(first, torch.cat([labels for _, labels in batches(data, seed=1)]))


def test_shift_moves_each_image_by_its_own_draw(data):
    # an image whose pixels tell their place
    places = np.stack(np.broadcast_arrays(np.arange(32)[:, None], np.arange(32)[None], 7), -1).astype(np.uint8)
    split = dataclasses.replace(data.train, images=np.repeat(places[None], 72, 0))
    marked = dataclasses.replace(data, train=split, mean=(0.0,) * 3, std=(1 / 255,) * 3, flip=False)
    images = torch.cat([images for images, _ in batches(marked, crop="shift", crop_pixels=4, flip=True)])
    corner = images[:, :2, 16, 16] - 16
    assert corner.abs().max() == 4 and len(corner.unique(dim=0)) > 30
    row, column = corner[0].long()
    expected = np.pad(places, ((4, 4), (4, 4), (0, 0)), "reflect")[4 + row : 36 + row, 4 + column : 36 + column]
    assert torch.equal(images[0], torch.from_numpy(expected).permute(2, 0, 1).float())


def test_flip_mirrors_about_half_where_the_data_allows(data):
    known = raw(data)

    def mirrored(data):
        images = torch.cat([images for images, _ in batches(data, flip=True, batch_size=72)])
        plain = torch.cdist(images.flatten(1), known.flatten(1)).amin(1) < 0.1
        turned = torch.cdist(images.flip(3).flatten(1), known.flatten(1)).amin(1) < 0.1
        assert (plain ^ turned).all()
        return int(turned.sum())

    assert 20 < mirrored(data) < 52
    assert mirrored(dataclasses.replace(data, flip=False)) == 0


def test_resized_crop_of_the_whole_area_is_a_mild_change(data):
    images = torch.cat([images for images, _ in batches(data, crop="resized", crop_scale=(0.2, 1.0), batch_size=72)])
    assert images.shape == (72, 3, 32, 32) and images.isfinite().all()
    # colours survive: each class keeps its dominant channel
    labels = torch.cat([labels for _, labels in batches(data, crop="resized", crop_scale=(0.2, 1.0), batch_size=72)])
    means = torch.stack([images[labels == label].mean((0, 2, 3)) for label in range(3)])
    assert means.argmax(1).tolist() == [2, 1, 0]


def test_mixed_targets_are_shares(data):
    seed_everything(0)
    for images, targets in batches(data, mixup=0.8, cutmix=1.0, label_smoothing=0.1):
        assert images.shape == (16, 3, 32, 32) and targets.shape == (16, 3)
        assert torch.allclose(targets.sum(1), torch.ones(16))


PER_IMAGE = {"crop": "shift", "flip": True, "randaugment": "rand-m9-mstd0.5-inc1", "random_erasing": 0.5}


@pytest.mark.parametrize("settings", [PER_IMAGE, PER_IMAGE | {"crop": "resized"}])
def test_per_image_augmentation_does_not_depend_on_workers(folder, data, settings):
    for source in (data, open_data("folder", folder, loading="stream")):
        alone = batches(source, **settings)
        random.seed(5)  # nor on what was drawn before
        helped = batches(source, workers=2, **settings)
        for (images, labels), (others, their_labels) in zip(alone, helped, strict=True):
            assert torch.equal(images, others) and torch.equal(labels, their_labels)
        assert not torch.equal(alone[0][0], batches(source, epoch=1, **settings)[0][0])


def test_per_image_augmentation_leaves_the_network_its_generators(data):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    batches(data, **PER_IMAGE)
    assert torch.equal(torch.rand(1), expected)


def test_streamed_test_images_are_those_in_memory(folder, data):
    streamed = dataclasses.replace(open_data("folder", folder, loading="stream"), mean=data.mean, std=data.std)
    recipe = Recipe("test")
    for (images, labels), (others, their_labels) in zip(
        Batcher(data, recipe, 0).testing(), Batcher(streamed, recipe, 0).testing(), strict=True
    ):
        assert torch.allclose(images, others, atol=1e-5) and torch.equal(labels, their_labels)


def test_a_batch_larger_than_the_set_is_the_set(data):
    assert [len(labels) for _, labels in batches(data, batch_size=1000)] == [72]
