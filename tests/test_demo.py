"""The demo: what it computes, against bare torch, and what it says."""

from __future__ import annotations

import json
import os
import shutil
import socket

import numpy as np
import pandas as pd
import pytest
import torch
from commands import call, once, one_sentence
from demonstrated import make_study
from PIL import Image
from test_report import NASTY, Page

import roadmap
from roadmap.checks import RoadmapError
from roadmap.demo.compared import comparisons, examples, read_examples, write_examples
from roadmap.demo.content import numbers_html, sides_html
from roadmap.demo.evidence import AGAINST, DRAWN, FOR, Evidence, as_input, as_tested, drawn, evidence_of
from roadmap.demo.reading import read_dropped
from roadmap.formatting import signed
from roadmap.network.building import build_network
from roadmap.network.description import Description
from roadmap.network.timm_model import TimmModel
from roadmap.results.shown import interval_text


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with images, a study of them, and its store."""
    return once(tmp_path_factory, "demo", make_study)


def stirred(network):
    """The network with statistics and factors of its norms that are not what they begin with."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in network.state_dict().items():
        if tensor.ndim == 1 and tensor.is_floating_point():
            low = 0.5 if name.endswith(("running_var", "weight")) else -0.5
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + low)
    return network.eval()


# --- what is computed


RUNGS = [rung for regime in ("resnet50", "resnet200") for rung in roadmap.ladder(regime).scaled(4, 0.1, stem_stride=2)]


@pytest.mark.parametrize("rung", RUNGS, ids=lambda rung: rung.name)
def test_the_class_maps_of_every_rung_add_up_to_its_logits(rung):
    torch.manual_seed(0)
    network = stirred(build_network(rung.design.replace(num_classes=5)))
    image = torch.randn(1, 3, 64, 48)
    found = evidence_of(network, image)
    with torch.no_grad():
        logits = network(image)[0]
    assert torch.equal(torch.tensor(found.logits), logits) and found.maps.shape == (5, 4, 3)
    np.testing.assert_allclose(found.maps.mean((1, 2)) + found.offsets, logits, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.probabilities, logits.softmax(0), rtol=1e-5)


@pytest.mark.parametrize("step", ["resnet50", "layer_norm", "separate_downsample"])
def test_a_position_of_the_map_is_what_the_logit_owes_to_it(step):
    """By taking the position out of the last feature map. Where a LayerNorm follows, its deviation changes with that,
    which the map by definition leaves out: only the centred, rescaled logits agree."""
    network = stirred(build_network(roadmap.ladder().scaled(8, 0.34, stem_stride=2, num_classes=4)[step].design))
    image = torch.randn(1, 3, 64, 64)
    found = evidence_of(network, image)
    with torch.no_grad():
        features = network.forward_features(image)
        for row, column in ((0, 0), (2, 3)):
            less = features.clone()
            less[:, :, row, column] = 0
            logits = network.forward_head(less)[0].numpy()
            if step == "separate_downsample":
                ratio = less.mean((2, 3)).std(correction=0) / features.mean((2, 3)).std(correction=0)
                logits = (logits - found.offsets) * ratio.item() + found.offsets
            gone = found.logits - logits
            np.testing.assert_allclose(found.maps[:, row, column] / 16, gone, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(("name", "mapped"), [("test_resnet", True), ("test_convnext", True), ("test_vit", False)])
def test_a_reference_has_a_map_only_where_it_is_right(name, mapped):
    torch.manual_seed(0)
    network = build_network(TimmModel(name, num_classes=5, image_size=64)).eval()
    image = torch.randn(1, 3, 64, 64)
    found = evidence_of(network, image)
    assert (found.maps is not None) == mapped
    if mapped:
        np.testing.assert_allclose(found.maps.mean((1, 2)) + found.offsets, network(image)[0].detach(), atol=1e-3)


def test_evidence_is_drawn_where_it_is():
    """Orange where the class gains, blue where it loses, the image in grey where neither is."""
    picture = Image.new("RGB", (64, 64), (200, 100, 100))
    values = np.zeros((8, 8))
    values[0, 0], values[7, 7] = 4.0, -4.0
    image = np.asarray(drawn(picture, values)).astype(int)
    assert image.shape == (DRAWN, DRAWN, 3)
    for place, colour in ((5, FOR), (-5, AGAINST)):
        red, _, blue = image[place, place]
        assert (red > blue) == (colour[0] > colour[2]) and abs(red - blue) > 100
    assert np.ptp(image[DRAWN // 2, DRAWN // 2]) <= 3
    assert np.asarray(drawn(picture))[0, 0].tolist() == [200, 100, 100]


@pytest.mark.slow
def test_test_images_are_classified_as_in_the_test_of_the_run(trained):
    """Every one of them, read from its file as a dropped image is."""
    study = roadmap.load_study(trained / "study")
    (one,), _ = comparisons(study)
    data, _ = study.test_data
    for signature in one.runs[1]:
        network = roadmap.load(signature, store=trained / "results" / "store")
        right = []
        for name, label in zip(data.test_names, data.test.labels, strict=True):
            view = as_tested(
                read_dropped(trained / "images" / "val" / os.fsdecode(bytes(name))), network.description, "folder"
            )
            seen = evidence_of(network, as_input(view, network.description))
            right.append(seen.logits.argmax() == label)
        assert right == study.store.correct(signature).tolist()


def test_test_images_of_imagenet_keep_seven_eighths(tmp_path):
    picture = Image.new("RGB", (512, 256))
    picture.paste((255, 255, 255), (144, 16, 368, 240))  # the middle 224 of 256 pixels
    view = as_tested(picture, Description(roadmap.Design(), image_size=224), "imagenet")
    assert view.size == (224, 224) and np.asarray(view)[4:-4, 4:-4].min() == 255
    assert np.asarray(as_tested(picture, Description(roadmap.Design(), image_size=224), "folder"))[0].max() == 0


# --- images of any kind


def test_any_kind_of_image_is_read(tmp_path):
    colours = np.zeros((40, 60, 3), np.uint8)
    colours[:20, :, 0], colours[:, :30, 1] = 250, 250
    colour = Image.fromarray(colours)
    exif = Image.Exif()
    exif[274] = 6  # to be turned clockwise
    kinds = {
        "grey.png": (colour.convert("L"), {}),
        "see-through.png": (Image.merge("RGBA", [*colour.split(), Image.new("L", colour.size, 0)]), {}),
        "palette.gif": (colour.convert("P"), {}),
        "print.jpg": (colour.convert("CMYK"), {}),
        "turned.jpg": (colour, {"exif": exif, "quality": 100}),
        "deep.png": (Image.fromarray(np.full((40, 60), 2**12 - 1, np.uint16)), {}),
        "picture.webp": (colour, {}),
        "none": (colour, {"format": "png"}),
    }
    found = {}
    for name, (picture, options) in kinds.items():
        picture.save(tmp_path / name, **options)
        found[name] = read_dropped(tmp_path / name)
        assert found[name].mode == "RGB"
        assert found[name].size == ((40, 60) if name == "turned.jpg" else (60, 40))
    assert np.array_equal(np.asarray(found["none"]), colours)
    assert np.asarray(found["see-through.png"]).max() == 0 and np.asarray(found["deep.png"]).min() == 255
    turned = np.asarray(found["turned.jpg"]).astype(int)
    assert np.abs(turned - np.rot90(colours, -1)).mean() < 10 < np.abs(turned - np.rot90(colours)).mean()


def test_what_is_no_image_is_told_in_one_sentence(tmp_path):
    Image.new("1", (12000, 9000)).save(tmp_path / "huge.png")
    Image.new("RGB", (300, 300), "red").save(tmp_path / "whole.jpg")
    content = (tmp_path / "whole.jpg").read_bytes()
    files = {
        "cut.jpg": content[: len(content) // 2],
        "letter.jpg": b"Dear Sir",
        "empty.png": b"",
        "drawing.svg": b"<svg/>",
    }
    for name, written in files.items():
        (tmp_path / name).write_bytes(written)
        with pytest.raises(RoadmapError) as told:
            read_dropped(tmp_path / name)
        assert str(told.value) == f"{name} is not a readable image: drop another one"
    with pytest.raises(RoadmapError, match=r"^huge.png has 12000 x 9000 pixels, but the demo reads up to 100 million"):
        read_dropped(tmp_path / "huge.png")


# --- what is said


@pytest.mark.slow
def test_the_numbers_are_the_studys(trained):
    study = roadmap.load_study(trained / "study")
    (one,), left_out = comparisons(study)
    assert (one.before, one.after, [*one.runs], left_out) == ("layer_norm", "separate_downsample", [0, 1], [])
    deciding = interval_text(study.effects, study.matters)
    said = Page(numbers_html(one, deciding)).text
    effect, costs = study.effects.iloc[0], study.costs.set_index("step")
    assert f"separate downsample: {signed(effect['estimate'])} pp" in said and deciding in said
    for name in (one.before, one.after):
        mean = study.runs.loc[study.runs["step"] == name, "top1"].mean()
        assert f"{mean:.2f}" in said and f"{costs.loc[name, 'params'] / 1e6:.4g}" in said
        assert f"{1000 * costs.loc[name, 'gmacs']:.4g}" in said
    assert roadmap.ladder()["separate_downsample"].why in said


@pytest.mark.slow
def test_effects_of_more_networks_are_left_out_and_counted(trained):
    study = roadmap.load_study(trained / "study")
    effects, other = study.effects, study.effects.assign(effect="gelu × layer_norm", network=None)
    vars(study)["effects"] = pd.concat([effects, other], ignore_index=True)
    shown, left_out = comparisons(study)
    assert [one.effect for one in shown] == ["separate_downsample"]
    assert left_out == ["1 effect left out (no difference of two networks): gelu × layer norm."]
    vars(study)["effects"] = other
    with pytest.raises(RoadmapError, match=r"^study has no step to show: 1 effect left out \(no difference of two"):
        comparisons(study)


@pytest.mark.slow
def test_names_of_classes_are_only_ever_text(trained):
    (one,), _ = comparisons(roadmap.load_study(trained / "study"))
    seen = (Image.new("RGB", (8, 8)), Evidence(np.arange(6.0), np.ones((6, 2, 2)), np.zeros(6)))
    page = Page(sides_html(one, [seen, seen], NASTY, 0))
    assert not page.all("script") and not page.all("b")
    assert page.text.count(" ".join(f"Evidence for {NASTY[0]}".split())) == 2
    assert page.text.count(" ".join(NASTY[5].split())) == 2 and page.text.count("63.4 %") == 2  # e^5 of the sum


@pytest.mark.slow
def test_examples_are_test_images_with_their_classes(trained, tmp_path):
    found = examples(roadmap.load_study(trained / "study"))
    assert [name for name, _ in found] == ["blue", "green", "red"]
    for place, (_, picture) in zip((2, 1, 0), found, strict=True):
        assert np.asarray(picture).mean((0, 1)).argmax() == place
    write_examples(found, tmp_path)
    assert [name for _, name in read_examples(tmp_path)] == ["blue", "green", "red"]
    shutil.copytree(trained, tmp_path / "moved")
    for path in (tmp_path / "moved" / "results" / "store" / "runs").glob("*/run.json"):
        path.write_text(path.read_text().replace(str(trained / "images"), str(tmp_path / "lost")))
    assert examples(roadmap.load_study(tmp_path / "moved" / "study")) == []


@pytest.mark.slow
def test_what_cannot_be_shown_is_told_in_one_sentence(trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)

    def told(*words) -> str:
        shown = call("demo", *words)
        assert shown.code == 2 and one_sentence(shown.err), shown.err
        return shown.err

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port} is in use: name another one with --port" in told("study", "--port", port)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "a.txt").touch()
    assert "kept is not empty: choose another --save" in told("study", "--save", "kept")
    assert "no folder nowhere" in told("nowhere")
    for path in (tmp_path / "results" / "store" / "runs").glob("*/run.json"):
        record = json.loads(path.read_text())
        if record["run"]["step"] == "layer_norm":
            del record["files"]["weights.safetensors"]
            path.write_text(json.dumps(record))
    assert "study has no step to show: 1 effect left out (no seed with weights of both networks): sep" in told("study")
    shutil.rmtree(tmp_path / "results" / "store")
    assert "the store of study is not there: only its tables were kept" in told("study")
    monkeypatch.setattr("roadmap.cli.demo.is_installed", lambda name: name != "gradio")
    assert "pip install 'roadmap-ablation[demo]'" in told("study")
