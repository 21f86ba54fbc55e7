"""Whether the texts of a figure can be read."""

from __future__ import annotations

import itertools

from matplotlib.backends.backend_agg import FigureCanvasAgg


def texts_of(figure):
    found = list(figure.texts)
    for axes in figure.axes:
        found += axes.texts
        for side in (axis for axis in (axes.xaxis, axes.yaxis) if axis.get_visible()):
            found += [*side.get_ticklabels(), side.label]
        limits = sorted(axes.get_xlim()), sorted(axes.get_ylim())
        found = [text for text in found if not _tick_outside(text, axes, limits)]
    for legend in figure.legends:
        found += legend.get_texts()
    return [text for text in found if text.get_text().strip() and text.get_visible()]


def _tick_outside(text, axes, limits):
    place = text.get_position()
    return any(
        text in labels and not low <= place[dimension] <= high
        for dimension, (labels, (low, high)) in enumerate(
            zip((axes.get_xticklabels(), axes.get_yticklabels()), limits, strict=True)
        )
    )


def check_legible(figure):
    """Every text lies within the picture and on no other, and none is smaller than 6 points."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    width, height = figure.get_size_inches() * figure.dpi
    boxes = [(text.get_text(), text.get_window_extent(canvas.get_renderer())) for text in texts_of(figure)]
    for text in texts_of(figure):
        assert text.get_fontsize() >= 6, f"{text.get_text()!r} is too small"
    for text, box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, f"{text!r} is cut off"
    for (text, box), (other, beside) in itertools.combinations(boxes, 2):
        across = min(box.x1, beside.x1) - max(box.x0, beside.x0)
        down = min(box.y1, beside.y1) - max(box.y0, beside.y0)
        assert min(across, down) <= 1.5, f"{text!r} lies on {other!r}"
