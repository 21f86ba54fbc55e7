"""Networks that build upon one another: where each stands, and how far its step took it.

The idea is that of Figure 2 of arXiv 2201.03545.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from roadmap.plotting.forest import Interval, Scale, draw_interval
from roadmap.plotting.rows import Name, Panel, TextColumn, draw_rows
from roadmap.plotting.style import FAINT, INK, MARKS, REFERENCE, Drawn, Look

#: Height of a bar, as a share of a row.
BAR = 0.62


def draw_trajectory(
    names: Sequence[Name],
    panels: Sequence[Panel],
    columns: Sequence[TextColumn],
    look: Look,
    headline: str,
    caption: str,
    key: Sequence[str | None],
) -> Drawn:
    """A row a network, from top to bottom: panels of `trajectory_panel`, then the columns."""
    return draw_rows(names, [*panels, *columns], look, headline, caption, key)


def trajectory_panel(
    name: str,
    axis: str,
    networks: Sequence[Interval],
    adopted: Sequence[bool],
    references: Sequence[bool],
    header: str = "",
    rank: int = 0,
) -> Panel:
    """Bars from where a network's step began (``start`` of its interval) to where it led, in the colour of the verdict;
    the interval that decides it as a line, and a step in the line that joins what is ``adopted``. A network without a
    start is a dot, a reference a line through all rows.
    """

    def draw(axes: Axes, look: Look, places: Mapping[int, float]) -> None:
        scale = Scale.of(networks, zero=False)
        numbered = scale.apply(axes, look, networks)
        last = None
        for index, y in places.items():
            one, mark = networks[index], MARKS[networks[index].verdict]
            if math.isnan(one.value):
                continue
            if references[index]:
                axes.plot(
                    [one.value] * 2,
                    [y, min(places.values()) - 0.5],
                    color=REFERENCE,
                    linewidth=1,
                    linestyle=(0, (3, 2)),
                    zorder=1,
                    label=f"line of {names_of(index)}",
                )
                axes.plot(one.value, y, "D", color=REFERENCE, markersize=look.size.text * 0.6, label="reference")
                continue
            if not math.isnan(one.start):
                face = mark.colour if adopted[index] else "none"
                axes.add_patch(
                    Rectangle(
                        (one.start, y - BAR / 2),
                        one.value - one.start,
                        BAR,
                        facecolor=face,
                        alpha=0.4,
                        edgecolor=mark.colour,
                        linewidth=0.8,
                        zorder=2,
                        label=f"bar {index}",
                    )
                )
                draw_interval(axes, y, one, scale, look, numbered)
            else:
                axes.plot(one.value, y, "o", color=INK, markersize=look.size.text * 0.6, zorder=4, label="start")
            if adopted[index]:
                if last is not None:
                    axes.plot([last[0]] * 2, [last[1], y], color=FAINT, linewidth=0.8, zorder=1.5, label="path")
                last = one.value, y

    def names_of(index: int) -> str:
        return f"row {index}"

    return Panel(name, axis, draw, header, least=9.0, share=1.0, rank=rank)
