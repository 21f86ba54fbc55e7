"""Whether the texts of a figure can be read."""

from __future__ import annotations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg


def texts_of(figure):
    """All texts that are shown: ticks only where they are on their axis."""
    found = list(figure.texts)
    for axes in figure.axes:
        found += axes.texts
        for side, limits, place in ((axes.xaxis, axes.get_xlim(), 0), (axes.yaxis, axes.get_ylim(), 1)):
            if side.get_visible():
                found += [
                    tick for tick in side.get_ticklabels() if min(limits) <= tick.get_position()[place] <= max(limits)
                ]
                found.append(side.label)
    for legend in figure.legends:
        found += legend.get_texts()
    return [text for text in found if text.get_text().strip() and text.get_visible()]


def check_legible(figure):
    """Every text lies within the picture and on no other, and none is smaller than 6 points."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    width, height = figure.get_size_inches() * figure.dpi
    texts = texts_of(figure)
    words = [text.get_text() for text in texts]
    small = [text.get_text() for text in texts if text.get_fontsize() < 6]
    assert not small, f"{small} are too small"
    left, bottom, right, top = np.array([text.get_window_extent(renderer).extents for text in texts]).T
    outside = (left < 0) | (bottom < 0) | (right > width) | (top > height)
    assert not outside.any(), f"{[words[index] for index in np.flatnonzero(outside)]} are cut off"
    across = np.minimum.outer(right, right) - np.maximum.outer(left, left)
    down = np.minimum.outer(top, top) - np.maximum.outer(bottom, bottom)
    overlaid = np.argwhere(np.triu(np.minimum(across, down) > 1.5, k=1))
    assert not len(overlaid), f"on each other: {[(words[one], words[other]) for one, other in overlaid]}"
