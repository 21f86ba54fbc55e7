"""What a demo says of an image, as HTML with every name escaped: both networks' classes and evidence, and the study's
numbers."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

from PIL import Image

from roadmap.demo.compared import Comparison
from roadmap.demo.evidence import Evidence, drawn
from roadmap.formatting import label
from roadmap.markup import element, folded

#: Classes that are shown of a network, the most probable first.
TOP = 5
#: What the colours mean.
LEGEND = (
    "Orange speaks for the class, blue against it; each map has its own scale. Its mean and a constant add up to the "
    "network's logit of the class."
)


def numbers_html(one: Comparison, deciding: str) -> str:
    """What the study measured: the effect with its interval and verdict, scores and costs of both networks, and what
    else differs between them, folded. ``deciding``: what intervals and verdicts mean."""
    said = one.said
    found = said.estimate + (f" ({said.interval})" if said.interval else "")
    found += f", {said.verdict}" if said.verdict else ""
    known = {row[0] for row in one.numbers}
    others = [row for row in said.changes if row[0] not in known]
    more = folded("What else differs", _table(others)) if others else ""
    return (
        f"<section class='numbers'>{element('h2', f'{one.title}: {found}')}{element('p', said.why)}"
        f"{_table(one.numbers)}{more}<p class='note'>{escape(deciding)}</p></section>"
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    """A table of what differs: name, before, after and, where it is known, their ratio."""
    head = "".join(f"<th scope='col'>{text}</th>" for text in ("before", "after", "ratio"))
    body = "".join(
        f"<tr><th scope='row'>{escape(name)}</th>{''.join(element('td', cell) for cell in cells)}</tr>"
        for name, *cells in rows
    )
    return f"<table><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table>"


def nothing_html(why: str) -> str:
    """What stands where nothing is seen: what to do, or what is wrong with an image."""
    return f"<p class='empty'>{escape(why)}</p>"


def sides_html(
    one: Comparison,
    seen: Sequence[tuple[Image.Image, Evidence]],
    names: Sequence[str],
    chosen: int | None,
) -> str:
    """Both networks on one image: ``seen`` is what each of them saw of it, and in it. ``chosen`` is the number of the
    class whose evidence is drawn; None: each network's most probable one."""
    views = {view.size: f"What the networks see: {view.width} px" for view, _ in seen}
    shown = "".join(
        _figure(drawn(next(view for view, _ in seen if view.size == size)), caption) for size, caption in views.items()
    )
    sides = "".join(
        _side(f"{when}: {label(name)}", *both, names, chosen)
        for when, name, both in zip(("Before", "After"), (one.before, one.after), seen, strict=True)
    )
    note = f"<p class='note'>{LEGEND}</p>" if any(evidence.placed for _, evidence in seen) else ""
    return f"<div class='sides'><div class='views'>{shown}</div>{sides}</div>{note}"


def _side(title: str, picture: Image.Image, evidence: Evidence, names: Sequence[str], chosen: int | None) -> str:
    shares = evidence.probabilities
    ranked = [int(place) for place in (-shares).argsort(kind="stable")[:TOP]]
    shown = ranked[0] if chosen is None else chosen
    rows = "".join(
        f"<tr>{element('th', names[place])}<td><div style='width: {100 * shares[place]:.1f}%'></div></td>"
        f"<td>{100 * shares[place]:.1f} %</td></tr>"
        for place in ranked
    )
    if evidence.maps is None:
        figure = element("p", "No evidence map: this network does not end in average pooling and a linear layer.")
    elif not evidence.placed:
        figure = element("p", f"No evidence map: at {picture.width} px the last feature map has a single position.")
    else:
        figure = _figure(drawn(picture, evidence.maps[shown]), f"Evidence for {names[shown]}")
    return f"<article>{element('h3', title)}{figure}<table class='classes'><tbody>{rows}</tbody></table></article>"


def _figure(picture: Image.Image, caption: str) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    source = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    return f"<figure><img src='{source}' alt=''><figcaption>{escape(caption)}</figcaption></figure>"
