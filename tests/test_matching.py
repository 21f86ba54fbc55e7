"""Matched costs: recounted by other means, canonical, and the best that whole numbers allow."""

from __future__ import annotations

import itertools
import random
from fractions import Fraction

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import roadmap
from roadmap import Design, RoadmapError
from roadmap.cost import matching
from roadmap.cost.matching import Timing, counted, match, match_time
from roadmap.network.model import RoadmapNet

SCALES = {8: (1 / 3, 32, 2), 16: (1 / 3, 32, 2), 64: (1.0, 224, 4)}  # depth, image, stem stride, as studies have them
#: How far off whole channels leave a rung, measured, rounded up.
WITHIN = {8: 1.024, 16: 1.013, 64: 1.002}


def rungs_of(regime, width):
    depth, size, stride = SCALES[width]
    return roadmap.ladder(regime).scaled(width, depth, stem_stride=stride, num_classes=10), size


def some(rungs, regime, width=8):
    """Rungs of the ladder, the start among them: the larger the networks are, the fewer."""
    return list(rungs)[:: {8: 3, 16: 4, 64: 8}[width] * (2 if regime == "resnet200" else 1)]


def recounted(design, kind, size):
    with torch.device("meta"):
        network = RoadmapNet(design).eval()
        if kind == "params":
            return sum(parameter.numel() for parameter in network.parameters())
        with FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, 3, size, size))
    return counter.get_total_flops() / 2e9


def products(design):
    """A cost that is instant, and grows as a network's does."""
    return sum(n * (9 * w * w + 20 * w) for n, w in zip(design.blocks, design.widths, strict=True)) + 100


@pytest.mark.slow
@pytest.mark.parametrize("width", SCALES)
@pytest.mark.parametrize("regime", ["resnet50", "resnet200"])
@pytest.mark.parametrize("kind", ["gmacs", "params"])
def test_every_rung_comes_to_the_cost_of_the_start(regime, width, kind):
    rungs, size = rungs_of(regime, width)
    cost_of, asked = counted(kind, size), []
    target = recounted(rungs.start.design, kind, size)
    chosen = some(rungs, regime, width)
    for rung in chosen:
        matched = match(rung.design, target, lambda design: asked.append(design) or cost_of(design))
        assert recounted(matched.design, kind, size) == pytest.approx(matched.cost)
        assert matched.ratio == pytest.approx(matched.cost / target)
        assert 1 / WITHIN[width] < matched.ratio < WITHIN[width], rung.name
        assert rung.design.replace(widths=matched.design.widths) == matched.design
        assert (matched.factor == 1) == (matched.design == rung.design)
    assert len(asked) <= 5 * len(chosen), "each of them takes a tenth of a second and more"


@pytest.mark.parametrize("regime", ["resnet50", "resnet200"])
@pytest.mark.slow
def test_depth_comes_near_where_width_may_not_change(regime):
    rungs, size = rungs_of(regime, 8)
    target = recounted(rungs.start.design, "gmacs", size)
    for rung in some(rungs, regime):
        matched = match(rung.design, target, counted("gmacs", size), by="depth")
        assert 1 / 1.21 < recounted(matched.design, "gmacs", size) / target < 1.21
        assert rung.design.replace(blocks=matched.design.blocks) == matched.design


def test_the_start_stays_as_it_is():
    for width in SCALES:
        rungs, size = rungs_of("resnet50", width)
        for kind, by in itertools.product(("gmacs", "params"), ("width", "depth")):
            cost_of = counted(kind, size)
            matched = match(rungs.start.design, cost_of(rungs.start.design), cost_of, by)
            assert (matched.design, matched.factor, matched.ratio) == (rungs.start.design, 1.0, 1.0)


def test_designs_that_differ_by_a_factor_come_to_the_same_widths():
    rungs, size = rungs_of("resnet50", 16)
    one, two = (
        match(rungs[name].design, 0.01, counted("gmacs", size)) for name in ("increase_width", "depthwise_conv")
    )
    assert one.design == two.design and one.cost == two.cost
    for target in (1e4, 1e5, 1e6, 1e7):
        matched = {
            match(Design(widths=tuple(n * w for w in (2, 5, 7, 9))), target, products).design for n in range(1, 99)
        }
        assert len(matched) == 1


def test_no_other_width_is_nearer():
    """Against the widths of all bases, one between any two at which a width changes."""
    draw = random.Random(0)
    for _ in range(100):
        shape = sorted(draw.choices(range(3, 60), k=3))
        design = Design(blocks=(2, 3, 4), widths=shape)
        target = products(design) * draw.uniform(0.1, 10)
        changes = sorted({Fraction(2 * k + 1, 2) / width for width in shape for k in range(4 * width)})
        factors = [(one + other) / 2 for one, other in itertools.pairwise([Fraction(0), *changes])]
        all_widths = [tuple(max(1, int(factor * width + Fraction(1, 2))) for width in shape) for factor in factors]
        costs = {widths: products(design.replace(widths=widths)) for widths in all_widths}
        best = min(max(cost / target, target / cost) for cost in costs.values())
        matched = match(design, target, products)
        assert matched.distance == pytest.approx(best) and costs[matched.design.widths] == matched.cost


@pytest.mark.parametrize("flags", [{}, {"block": "inverted"}, {"block": "inverted", "spatial_position": "first"}])
def test_groups_divide_the_widths(flags):
    design = Design(widths=(64, 128, 256, 512), groups=32, **flags)
    for target in (2e6, 2e7, 2e8):
        matched = match(design, target, products)
        assert matched.design.groups == 32 and matched.distance < 1.1
    fine = match(Design(widths=(64, 128, 256, 512), groups=32, block="inverted"), 2e7, products).design
    assert any(width % 32 for width in fine.widths), "groups of the hidden channels alone leave a width freer"


@pytest.mark.parametrize(("target", "by"), [(1.0, "width"), (1.0, "depth"), (50_000.0, "depth")])
def test_what_cannot_be_matched_names_the_nearest(target, by):
    with pytest.raises(RoadmapError, match=rf"no {by} brings this network's cost near .*: the nearest, [\d-]+, costs"):
        match(Design(), target, products, by)


class Clock(Timing):
    """Times that are known from the widths, and say how often they were asked for."""

    def seconds(self, design):
        self.known.setdefault(self.key(design), 1e-9 * products(design) ** 0.7)
        return self.known[self.key(design)]


def test_times_approach_the_target_in_few_measurements():
    for factor in (0.2, 0.5, 1.0, 1.1, 3.0):
        clock = Clock(32, 8, "cpu", "a computer", 1, {})
        matched = match_time(Design(), factor * clock.seconds(Design()), clock)
        assert matched.distance < 1.01 and len(clock.known) <= matching.TIMED_SIZES


def test_what_was_timed_is_not_timed_again(monkeypatch):
    monkeypatch.setattr(matching, "TIMED_SECONDS", 0.02)
    rungs, size = rungs_of("resnet50", 8)
    timing = Timing(size, 4, "cpu", "a computer", 1, {})
    target = timing.seconds(rungs.start.design)
    assert 0 < target < 1
    monkeypatch.setattr(matching, "FARTHEST", 99)  # so little time measures little
    matched = match_time(rungs["gelu"].design, target, timing)
    known = dict(timing.known)
    assert matched.cost in known.values() and all("32 px, batch 4, a computer, threads 1" in key for key in known)
    assert match_time(rungs["gelu"].design, target, timing) == matched and timing.known == known
    others = {Timing(*how, {}).key(Design()) for how in ((32, 4, "cpu", "x", 1), (32, 4, "cpu", "x", None),
              (32, 4, "cpu", "y", 1), (32, 8, "cpu", "x", 1), (64, 4, "cpu", "x", 1))}  # fmt: skip
    assert len(others) == 5
