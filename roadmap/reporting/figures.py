"""Figures as parts of a page: drawings within the HTML, whose text is text, in a font that the page brings along."""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args
from xml.etree import ElementTree

from fontTools import subset
from matplotlib.font_manager import FontProperties, findfont

from roadmap.plotting.style import FONT, Drawn, styled

Slant = Literal["normal", "oblique"]
#: Weights and slants of the figures' font by what CSS calls them.
FACES: tuple[tuple[str, Slant], ...] = tuple((one, two) for one in ("normal", "bold") for two in get_args(Slant))
#: Attributes that hold lengths, which are written with two decimals: hundredths of a point.
_LENGTHS = ("d", "x", "y", "points", "transform", "width", "height", "x1", "x2", "y1", "y2", "cx", "cy", "r")
#: What XML cannot hold, and what would turn the direction of all that follows.
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True)
class Picture:
    """A drawing for wide screens and for paper, and one for phones, as SVG elements; they may be the same one. The
    ``caption`` says how to read it."""

    wide: str
    narrow: str
    caption: str


@dataclass(frozen=True)
class Target:
    """A part of a figure that leads to a section of the page. ``box``: left, top, width and height as shares of the
    figure. ``words``: lines with its numbers, the first being its name."""

    href: str
    words: tuple[str, ...]
    box: tuple[float, float, float, float]


def clean(text: str) -> str:
    """Text that a page can hold and that changes nothing about what stands around it."""
    return UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def picture(
    draw: Callable[..., Drawn],
    name: str,
    alt: str,
    targets: Callable[[Drawn], Sequence[Target]] | None = None,
    widths: tuple[str, str] = ("page", "column"),
) -> Picture:
    """What ``draw(width=..., caption=False)`` draws, at both widths. ``name`` begins its ids, ``alt`` says what is
    seen."""
    drawn = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s)Glyph .* missing")  # of letters that a browser has
        for width in dict.fromkeys(widths):
            figure = draw(width=width, caption=False)
            drawn[width] = inline_svg(figure, f"{name}-{width}", alt, targets(figure) if targets else ())
    return Picture(drawn[widths[0]], drawn[widths[1]], figure.caption)


def inline_svg(figure: Drawn, name: str, alt: str, targets: Sequence[Target] = ()) -> str:
    """A figure as an SVG element for a page of HTML; every id begins with ``name``, so that no two of them meet."""
    buffer = io.StringIO()
    with styled():
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", buffer.getvalue()))
    _slim(root, name)
    left, top, width, height = map(float, root.attrib["viewBox"].split())
    content = list(root)
    root[:] = []
    root.attrib.clear()
    root.attrib.update(
        {
            "viewBox": f"{left:g} {top:g} {width:g} {height:g}",
            "style": f"max-width: {width:g}pt; --height: {height:g}pt",
            "role": "group" if targets else "img",
            "aria-label": clean(alt),
        }
    )
    drawing = ElementTree.SubElement(root, "g", {"aria-hidden": "true"} if targets else {})
    drawing.extend(content)
    for target in targets:
        x, y, across, down = target.box
        words = [clean(" ".join(line.split())) for line in target.words]
        link = ElementTree.SubElement(root, "a", {"href": target.href, "class": "row", "aria-label": ", ".join(words)})
        ElementTree.SubElement(link, "title").text = "\n".join(words)
        ElementTree.SubElement(
            link,
            "rect",
            {
                "x": f"{x * width:.2f}",
                "y": f"{y * height:.2f}",
                "width": f"{across * width:.2f}",
                "height": f"{down * height:.2f}",
            },
        )
    return ElementTree.tostring(root, encoding="unicode")


def _slim(root: ElementTree.Element, name: str) -> None:
    """Leave out what a page does not need, and begin every id that is needed with ``name``."""
    for parent in root.iter():
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    used = set()
    for element in root.iter():
        for value in element.attrib.values():
            used |= set(re.findall(r"url\(#([^)]+)\)", value)) | set(re.findall(r"^#(.+)$", value))
    for element in root.iter():
        element.tag = _local(element.tag)
        attributes = {_local(key): value for key, value in element.attrib.items()}
        if attributes.get("id") not in used:
            attributes.pop("id", None)
        for key, value in attributes.items():
            if key == "id":
                value = f"{name}-{value}"
            elif key in _LENGTHS:
                value = re.sub(r"(\.\d\d)\d+", r"\1", " ".join(value.split()))
            elif key == "href":
                value = value.replace("#", f"#{name}-")
            else:
                value = value.replace("url(#", f"url(#{name}-").replace(": ", ":").replace("; ", ";")
            attributes[key] = value
        element.attrib.clear()
        element.attrib.update(attributes)
        if element.tag not in ("text", "tspan"):
            element.text = None
        element.tail = None


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def font_faces(drawings: Iterable[str]) -> str:
    """CSS that brings along the letters that these drawings use, as data."""
    text = "".join(drawings)
    letters = "".join(sorted(set(text)))
    used = {  # matplotlib writes a font in one property of CSS or in several, and weights as words or as numbers
        (
            "bold" if re.search(r"\b(bold|[6-9]00)\b", style) else "normal",
            "oblique" if re.search("italic|oblique", style) else "normal",
        )
        for style in set(re.findall(r"<text [^>]*style=\"([^\"]*)", text))
    }
    return "\n".join(_font_face(*face, letters) for face in FACES if face in used)


def _font_face(weight: str, slant: Slant, letters: str) -> str:
    path = findfont(FontProperties(family=FONT, weight=weight, style=slant))
    options = subset.Options(flavor="woff", hinting=False, notdef_outline=True, name_IDs=[0, 1, 2, 13, 14])
    options.drop_tables += ["FFTM", "GSUB", "GPOS", "GDEF"]  # no ligatures and no kerning, as in matplotlib's measures
    font = subset.load_font(path, options)
    part = subset.Subsetter(options)
    part.populate(text=letters)
    part.subset(font)
    buffer = io.BytesIO()
    subset.save_font(font, buffer, options)
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'@font-face {{ font-family: "{FONT}"; font-weight: {weight}; font-style: {slant}; '
        f'src: url("data:font/woff;base64,{data}") format("woff"); }}'
    )
