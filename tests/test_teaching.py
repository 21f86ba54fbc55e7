"""What helps to teach: operations by purpose, effective receptive fields, and the questions of a step."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from commands import call

import roadmap
from roadmap import RoadmapError
from roadmap.explaining.spatial import draw_fields, draw_operations, effective_field, half_side, operations
from roadmap.network.design import Design

SMALL = roadmap.ladder().scaled(8, 0.34)


def test_operations_sum_to_what_fvcore_counts():
    for step in ("resnet50", "depthwise_conv", "separate_downsample"):
        network = roadmap.explain(step, SMALL, 64).after
        assert sum(operations(network).values()) == pytest.approx(network.gmacs)


def test_spatial_operations_by_hand():
    """9 C² of every position and block, C being the width within the bottleneck; of depthwise ones 9 C."""
    dense, depthwise = (roadmap.explain(step, SMALL, 64).after for step in ("patchify_stem", "depthwise_conv"))
    widths = [(8 * 2**stage, 16 // 2**stage, blocks) for stage, blocks in enumerate(dense.design["blocks"])]
    by_hand = sum(9 * width**2 * side**2 * blocks for width, side, blocks in widths) / 1e9
    assert operations(dense)["spatial"] == pytest.approx(by_hand)
    by_hand = sum(9 * width * side**2 * blocks for width, side, blocks in widths) / 1e9
    assert operations(depthwise)["spatial"] == pytest.approx(by_hand)
    figure = draw_operations({"dense": dense, "depthwise": depthwise}, "column")
    shares = [round(100 * operations(one)["spatial"] / one.gmacs) for one in (dense, depthwise)]
    assert figure.headline == (
        f"Spatial convolutions: {shares[0]} % of the operations of dense, {shares[1]} % of the operations of depthwise"
    )
    bars = [patch.get_width() for patch in figure.axes[0].patches]
    assert sum(bars) == pytest.approx(1e3 * (dense.gmacs + depthwise.gmacs))  # MMACs


def test_a_field_ends_where_theory_ends():
    """Of a stem of 4x4 patches and two blocks of 3x3: 4 pixels a patch, one patch more to either side a block."""
    design = Design(blocks=(2,), widths=(8,), stem="patchify", groups="depthwise")
    state = torch.random.get_rng_state()
    field = effective_field(design, side=64, images=1, stage=0)
    assert torch.equal(torch.random.get_rng_state(), state)
    seen = np.flatnonzero(field.sum(axis=0))
    assert (seen.min(), seen.max()) == (32 - 2 * 4, 32 + 3 * 4 - 1) and seen.size == 5 * 4
    assert np.array_equal(field, effective_field(design, side=64, images=1, stage=0))


def test_half_of_a_field():
    field = np.zeros((10, 10))
    field[4:6, 4:6] = 1
    assert half_side(field) == 2
    assert half_side(np.ones((10, 10))) == 8  # 8 x 8 of 100 is the first square with at least 50


def test_fields_are_drawn_side_by_side():
    wide, narrow = np.ones((10, 10)), np.pad(np.ones((2, 2)), 4)
    for width in ("page", "column", "slide"):
        figure = draw_fields({"kernel_11": wide, "gelu": narrow}, width)
        assert figure.headline == "Half of what kernel 11 sees lies within 8 px, of gelu within 2 px"
        assert [axes.get_label() for axes in figure.axes] == ["kernel_11", "gelu"]
        assert [axes.patches[0].get_width() for axes in figure.axes] == [8, 2]
        assert np.array_equal(figure.axes[1].images[0].get_array(), narrow)
    with pytest.raises(RoadmapError, match="width"):
        draw_fields({"gelu": narrow}, "poster")


# --- questions


class Terminal(io.StringIO):
    def isatty(self):
        return True


def spoken(text):
    return " ".join(text.split())


def test_a_quiz_waits_for_enter_before_each_answer(monkeypatch):
    asked = roadmap.explain("gelu", SMALL, 64).questions
    monkeypatch.setattr("sys.stdin", Terminal("\n"))  # Enter once, then the end of the input
    shown = call("explain", "gelu", "--width", 8, "--image-size", 64, "--quiz")
    said = spoken(shown.out)
    assert shown.code == 130 and spoken(asked[0].answer) in said
    assert spoken(asked[1].question) in said and spoken(asked[1].answer) not in said


def test_without_a_terminal_a_quiz_hides_the_answers(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    shown = call("explain", "gelu", "--width", 8, "--image-size", 64, "--quiz")
    said = spoken(shown.out)
    assert shown.code == 0 and said.endswith("Answers: roadmap explain gelu") and "GMACs, " not in said
    for question in roadmap.explain("gelu", SMALL, 64).questions:
        assert spoken(question.question) in said and spoken(question.answer) not in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["se", "--quiz"], "no questions have been written about 'se'"),
        (["gelu", "--quiz", "--json"], "give one of them"),
    ],
)
def test_a_quiz_that_cannot_be(words, sentence):
    shown = call("explain", *words, "--width", 8, "--image-size", 64)
    assert shown.code == 2 and sentence in shown.err
