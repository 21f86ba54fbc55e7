"""A folder full of traps: what is data and what is not, what is counted, and what is refused, in every source."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections import Counter

import numpy as np
import pytest
from folders import COLOURS, make_image_folder, pack
from PIL import Image

import roadmap
from roadmap import RoadmapError
from roadmap.data import seen
from roadmap.data.sources import open_data

#: Endings, and how Pillow is told to write such a file: none of them is PNG or JPEG's usual one.
KINDS = {"bmp": "BMP", "tif": "TIFF", "gif": "GIF", "jfif": "JPEG", "jp2": "JPEG2000", "tga": "TGA", "webp": "WEBP",
         "PNG": "PNG"}  # fmt: skip


def encoded(value, kind="PNG", size=(32, 32)):
    content = io.BytesIO()
    Image.new("RGB", size, (value,) * 3).save(content, kind)
    return content.getvalue()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_shard(path, files):
    """A tar of (name, content) pairs, in this order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as shard:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))


def found(data):
    """(value of the first pixel, class) of every image of both parts."""
    return sorted(
        (int(np.asarray(split.picture(index))[0, 0, 0]), data.class_names[split.labels[index]])
        for split in (data.train, data.test)
        for index in range(len(split))
    )


# --- folders


@pytest.fixture
def clean(tmp_path):
    return make_image_folder(tmp_path / "images", train=3, test=2, size=(32, 32))


def trap(root):
    """What a data set on somebody's disk holds beside its images, at every depth."""
    image = (root / "train" / "red" / "000.png").read_bytes()
    for folder in (root, root / "train", root / "train" / "red", root / "val" / "blue" / "deeper"):
        write(folder / ".ipynb_checkpoints" / "000-checkpoint.png", image)
        write(folder / ".thumbnails" / "large" / "x.png", image)
        write(folder / "._000.png", image)
        write(folder / ".DS_Store", b"x")
    write(root / "__MACOSX" / "train" / "red" / "._000.png", image)
    write(root / "train" / "__MACOSX" / "red" / "._000.png", image)
    write(root / "train" / "red" / "notes.txt", b"x")
    write(root / "train" / "red" / "Thumbs.db", b"x")
    write(root / "val" / "red" / "plan.svg", b"x")
    write(root / "val" / "red" / "plan.txt", b"x")


@pytest.mark.parametrize("loading", ["memory", "stream"])
def test_what_is_hidden_is_no_data_and_what_is_left_out_is_counted(clean, loading):
    known = open_data("folder", clean, loading=loading)
    assert known.remarks == []
    trap(clean)
    data = open_data("folder", clean, loading=loading)
    assert (data.fingerprint, data.class_names, found(data)) == (known.fingerprint, known.class_names, found(known))
    kinds, hidden, *_ = data.remarks
    assert kinds == "4 files of other kinds were left out: 2 .txt, 1 .db, 1 .svg"
    assert hidden == "hidden files or folders left out: 13"


def test_tars_of_a_folder_full_of_traps_hold_the_same_images(clean, tmp_path):
    known = open_data("folder", clean)
    trap(clean)
    for part in ("train", "val"):
        pack(tmp_path / "part" / f"{part}.tar", clean / part)
    shutil.rmtree(clean / "train" / "__MACOSX")
    for folder in clean.glob("*/[a-z]*"):
        path = tmp_path / "class" / folder.parent.name / f"{folder.name}.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as tar:
            tar.add(folder, ".")  # members such as ./000.png
    write(tmp_path / "class" / "train" / "._red.tar", b"no tar")
    for layout in ("part", "class"):
        data = open_data("tar", tmp_path / layout)
        assert data.fingerprint == known.fingerprint
        assert data.remarks[0] == "4 files of other kinds were left out: 2 .txt, 1 .db, 1 .svg"


def test_every_kind_that_pillow_decodes_is_read_from_every_source(tmp_path):
    expected, files = [], []
    for number, (ending, kind) in enumerate(KINDS.items()):
        for label in ("a", "b"):
            value = 100 * (label == "b") + 10 * number
            expected.append((value, label))
            write(tmp_path / "folder" / "train" / label / f"{number}.{ending}", encoded(value, kind))
            files += [(f"{label}{number}.{ending}", encoded(value, kind)), (f"{label}{number}.cls", label.encode())]
    pack(tmp_path / "tar" / "train.tar", tmp_path / "folder" / "train")
    write_shard(tmp_path / "wds" / "train-0.tar", files)
    for name in ("folder", "tar", "wds"):
        got = found(open_data(name, tmp_path / name))
        assert [label for _, label in got] == [label for _, label in sorted(expected)]
        assert np.abs(np.subtract(*([value for value, _ in pairs] for pairs in (got, sorted(expected))))).max() <= 2


def test_a_linked_folder_is_read_once_and_loops_end(clean):
    known = len(open_data("folder", clean).train)
    elsewhere = clean.parent / "elsewhere"
    write(elsewhere / "new.png", encoded(9))
    (clean / "train" / "red" / "more").symlink_to(elsewhere)
    (clean / "train" / "red" / "again").symlink_to(clean / "train" / "red")
    data = open_data("folder", clean)
    assert len(data.train) == known + 1
    assert "links to folders read already left out: 1" in data.remarks


def test_what_lies_beside_the_parts_is_named(clean):
    shutil.copytree(clean / "val", clean / "test")
    shutil.copytree(clean / "val", clean / "extra")
    assert open_data("folder", clean).remarks == ["neither for training nor for testing: extra, test"]
    write(clean / "train" / "lost.png", encoded(3))
    assert "images outside the class folders left out: 1" in open_data("folder", clean).remarks


def test_a_compressed_part_or_class_is_not_passed_over(clean):
    shutil.rmtree(clean / "val")
    write(clean / "val.zip", b"x")
    with pytest.raises(RoadmapError, match=r"val.zip is compressed: .* unpack it"):
        open_data("folder", clean)
    for name in COLOURS:
        pack(clean / "tars" / "train" / f"{name}.tar", clean / "train" / name)
    (clean / "tars" / "train" / "red.tar").rename(clean / "tars" / "train" / "red.tar.gz")
    with pytest.raises(RoadmapError, match=r"red.tar.gz is compressed"):
        open_data("tar", clean / "tars")


# --- what roadmap itself wrote


def test_what_roadmap_wrote_among_the_images_is_no_data(clean, monkeypatch):
    shutil.rmtree(clean / "val")
    root = clean / "train"
    monkeypatch.chdir(root)
    monkeypatch.delenv("ROADMAP_STORE", raising=False)
    words = {"only": "gelu", "seeds": 1, "epochs": 1, "width": 4, "image_size": 16, "stem_stride": 1, "threads": 1}
    study = roadmap.run(**words, data="imagenet22k", data_dir=".")
    assert list(study.runs["status"]) == ["done"]
    [record] = [json.loads(path.read_text()) for path in (root / "results" / "store").glob("runs/*/run.json")]
    data = open_data("imagenet22k", ".", image_size=16)
    assert (data.identity, data.class_names) == (record["run"]["data_fingerprint"], tuple(COLOURS))
    # known by what it is, whatever it is called and wherever it lies
    [folder] = [path.parent for path in (root / "results").glob("*/study.json")]
    assert list(folder.glob("*.png"))
    shutil.copytree(folder, root / "red" / "study of mine")
    (root / "results").rename(root / "outcome")
    again = open_data("imagenet22k", ".", image_size=16)
    assert again.identity == data.identity
    assert "folders that roadmap wrote left out: 3" in again.remarks
    plain = open_data("folder", clean)
    assert plain.class_names == tuple(COLOURS)
    shutil.copytree(root / "outcome", clean / "results")
    shutil.copytree(root / "outcome" / folder.name, clean / "test")
    assert open_data("folder", clean).identity == plain.identity


# --- shards


def test_keys_with_dots_are_whole(tmp_path):
    names = [f"{20 + number * 0.21:.2f}" for number in range(16)]
    files = []
    for number, name in enumerate(names):
        label = b"%d" % (number % 2)
        kind, content = ("json", b'{"label": %b}' % label) if number % 3 else ("cls", label)
        files += [(f"deep/{name}.png", encoded(number)), (f"deep/{name}.{kind}", content)]
    write_shard(tmp_path / "train-0.tar", files)
    data = open_data("wds", tmp_path)
    assert found(data) == [(number, str(number % 2)) for number in range(16)]


def test_fields_of_a_sample_are_no_samples(tmp_path):
    files = []
    for number in range(8):
        files += [(f"{number}.png", encoded(number)), (f"{number}.mask.png", encoded(200)),
                  (f"{number}.cls", b"%d" % (number % 2)), (f"{number}.meta.json", b"{}")]  # fmt: skip
    write_shard(tmp_path / "train-0.tar", files)
    data = open_data("wds", tmp_path)
    assert found(data) == [(number, str(number % 2)) for number in range(8)]
    assert data.remarks[1:] == [
        "8 files of other kinds were left out: 8 .json",
        "further images of a sample left out: 8",
    ]
    files = [(name.replace(".png", ".left.png"), content) for name, content in files if "mask" not in name]
    write_shard(tmp_path / "train-0.tar", files)
    assert found(open_data("wds", tmp_path)) == found(data)
    write_shard(tmp_path / "train-0.tar", [*files, ("3.right.png", encoded(3))])
    with pytest.raises(
        RoadmapError, match="train-0.tar/3 has one label, but several images, such as 3.left.png and 3.ri"
    ):
        open_data("wds", tmp_path)


@pytest.mark.parametrize("source", ["wds", "tar"])
def test_a_name_that_comes_twice_is_two_images(tmp_path, source):
    files = []
    for number in range(8):
        name = f"{'ab'[number % 2]}/{number // 4}"
        files += [(f"{name}.png", encoded(number)), (f"{name}.cls", b"ab"[number % 2 : number % 2 + 1])]
    write_shard(tmp_path / ("train-0.tar" if source == "wds" else "train.tar"), files)
    data = open_data(source, tmp_path)
    assert found(data) == [(number, "ab"[number % 2]) for number in range(8)]
    assert "images that have the name of another one in their tar, and are read as well: 4" in data.remarks


def labelled(*extra):
    return [*((f"{n}.{kind}", content) for n in range(8)
              for kind, content in (("png", encoded(n)), ("cls", b"%d" % (n % 2)))), *extra]  # fmt: skip


def test_labels_without_an_image_are_counted(tmp_path):
    write_shard(tmp_path / "train-0.tar", labelled(("8.cls", b"0"), ("9.cls", b"1"), ("9.txt", b"x"), (".9.png", b"x")))
    remarks = open_data("wds", tmp_path).remarks
    assert remarks[1:] == ["1 file of another kind was left out: 1 .txt", "hidden files or folders left out: 1",
                           "labels without an image left out: 2"]  # fmt: skip


@pytest.mark.parametrize(
    ("extra", "names", "sentence"),
    [
        ([("8.png", b"x")], None, "train-0.tar/8 has no label"),
        (
            [("7.json", b'{"label": 0}')],
            None,
            r"train-0.tar/7 has the label '1' in its .cls file, but '0' in its .json",
        ),
        (
            [("7.json", b'{"label": "cat"}')],
            ["cat", "dog"],
            r"has the label '1' in its .cls file, but 'cat' in its .json",
        ),
        (
            [("6.json", b'{"label": "cat"}'), ("4.json", b'{"label": "dog"}')],
            None,
            "'0' in its .cls file, but '(cat|dog)'",
        ),
        ([("8.png", b"x"), ("8.cls", b"cat")], None, "both numbers and names as labels, such as 0 and 'cat'"),
        (
            [("8.png", b"x"), ("8.cls", b"cow")],
            ["cat", "dog"],
            "has the label 'cow', which is not among the class_names",
        ),
    ],
)
def test_contradictions_are_refused(tmp_path, extra, names, sentence):
    write_shard(tmp_path / "train-0.tar", labelled(*extra))
    if names:
        (tmp_path / "_info.json").write_text(json.dumps({"class_names": names}))
    with pytest.raises(RoadmapError, match=sentence) as caught:
        open_data("wds", tmp_path)
    assert "\n" not in str(caught.value)


def test_labels_that_agree_in_other_words_are_fine(tmp_path):
    write_shard(
        tmp_path / "train-0.tar", labelled(("7.json", b'{"label": "dog"}'), ("8.png", encoded(8)), ("8.cls", b"dog"))
    )
    (tmp_path / "_info.json").write_text('{"class_names": ["cat", "dog"]}')
    assert Counter(label for _, label in found(open_data("wds", tmp_path))) == {"cat": 4, "dog": 5}


def test_a_shard_of_both_parts_and_one_of_none_are_not_passed_over(tmp_path):
    write_shard(tmp_path / "train-val-0.tar", labelled())
    with pytest.raises(RoadmapError, match="train-val-0.tar is named as both train and val"):
        open_data("wds", tmp_path)
    for name in ("train-0", "val-0", "more-0"):
        write_shard(tmp_path / "s" / f"{name}.tar", labelled())
    assert open_data("wds", tmp_path / "s").remarks == ["neither for training nor for testing: more-0.tar"]
    write(tmp_path / "s" / "train-1.tar.gz", b"x")
    with pytest.raises(RoadmapError, match="train-1.tar.gz is compressed"):
        open_data("wds", tmp_path / "s")


# --- content


@pytest.mark.parametrize("source", ["folder", "tar", "wds"])
def test_other_content_under_the_same_names_and_sizes_is_other_data(tmp_path, source):
    def make(value):
        for label in ("a", "b"):
            for number in range(4):
                write(tmp_path / "folder" / "train" / label / f"{number}.bmp", encoded(value * (number == 2), "BMP"))
        pack(tmp_path / "tar" / "train.tar", tmp_path / "folder" / "train")
        write_shard(tmp_path / "wds" / "train-0.tar", [
            (f"{path.parent.name}{path.stem}.{kind}", content)
            for path in sorted((tmp_path / "folder").rglob("*.bmp"))
            for kind, content in (("bmp", path.read_bytes()), ("cls", path.parent.name.encode()))
        ])  # fmt: skip
        return [open_data(source, tmp_path / source, loading=loading).identity for loading in ("memory", "stream")]

    one, again, other = make(3), make(3), make(4)
    assert one == again
    assert one[0] != other[0] and one[1] != other[1]


def test_what_was_read_once_is_read_again_only_where_it_changed(tmp_path, monkeypatch):
    for label in ("a", "b"):
        for number in range(4):
            write(tmp_path / "images" / "train" / label / f"{number}.bmp", encoded(number, "BMP"))
    read = []
    monkeypatch.setattr(seen, "see", lambda content, see=seen.see: read.append(1) or see(content))
    plain = open_data("folder", tmp_path / "images", loading="stream").identity
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(seen, "REMEMBERED_FROM", 1)
    monkeypatch.setattr(seen, "SETTLED", -60.0)

    def opened():
        read.clear()
        return open_data("folder", tmp_path / "images", loading="stream").identity, len(read)

    assert opened() == (plain, 8)
    assert opened() == (plain, 0)
    path = tmp_path / "images" / "train" / "a" / "2.bmp"
    before = path.stat()
    path.write_bytes(encoded(77, "BMP"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    other, count = opened()
    assert count == 1 and other != plain
    for kept in (tmp_path / "cache" / "roadmap").iterdir():
        kept.write_bytes(b"damaged")
    assert opened() == (other, 8)
    monkeypatch.setattr(seen, "SETTLED", 60.0)  # what has just changed is not relied upon
    path.write_bytes(encoded(78, "BMP"))
    assert opened()[1] == 1 and opened()[1] == 8
