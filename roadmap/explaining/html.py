"""An `Explanation` for a notebook: the terminal's content as HTML, with a drawing of what changes."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from typing import TYPE_CHECKING

from roadmap.explaining import words
from roadmap.explaining.diagram import draw_blocks
from roadmap.explaining.text import layer_by_layer
from roadmap.markup import element, folded, items, table

if TYPE_CHECKING:
    from roadmap.explaining.explanation import Explanation


def as_html(explanation: Explanation) -> str:
    """All there is to say, as HTML that needs nothing from elsewhere."""
    before, after = explanation.before, explanation.after
    section = f" ({explanation.section})" if explanation.section else ""
    parts = [element("h3", explanation.title + section), element("p", explanation.why) if explanation.why else ""]
    parts += [element("h4", "What changes"), _changes(explanation), _picture(explanation)]
    parts.append(folded("Layer by layer", element("pre", layer_by_layer(explanation))))
    if before:
        count = f"Layers that differ: {len(explanation.layers)} of {words.count_layers(before, after)}"
        listed = items(words.grouped_layers(explanation))
        parts.append(folded(count, listed) if listed else element("p", count))
    parts.append(element("h4", f"What it costs, for one image of {explanation.image_size} px"))
    parts.append(table(words.costs(before, after), ("", "before", "after", "ratio") if before else (), numbers=True))
    if explanation.measured_on:
        parts.append(element("p", f"Measured: {explanation.measured_on}."))
    parts += [element("h4", "What a position sees: resolution, and theoretical receptive field"), _stages(explanation)]
    parts.append(element("p", f"Receptive fields: {words.SOURCE}; all: the whole image."))
    if explanation.printed:
        parts += [element("h4", "In the paper: ImageNet-1K, at full size"), items(words.printed(explanation))]
    for study in explanation.studies:
        parts.append(element("h4", f"In the study {study.study} ({study.design}; {study.setting})"))
        parts.append(items(words.measured(study)))
    if explanation.questions:
        parts.append(element("h4", words.questions_heading(explanation)))
    for number, asked in enumerate(explanation.questions, 1):
        parts.append(folded(f"{number}. {asked.question}", element("p", f"{asked.answer} ({asked.section})")))
    return f"<div>{''.join(parts)}</div>"


def _changes(explanation: Explanation) -> str:
    remark = words.remark_on_changes(explanation)
    return (element("p", remark) if remark else "") + items(
        f"{name}: {old} → {new}" for name, old, new in words.changes(explanation)
    )


def _picture(explanation: Explanation) -> str:
    before, after = explanation.before, explanation.after
    what = f"{before.name} and {after.name}, before and after" if before else after.name
    picture = b64encode(draw_blocks(explanation)._repr_png_()).decode()
    return f'<img src="data:image/png;base64,{picture}" alt="{escape(f"Feature maps of {what}")}">'


def _stages(explanation: Explanation) -> str:
    sides = ("before: ", "after: ") if explanation.before else ("",)
    header = ("", *(f"{side}{column}" for side in sides for column in words.STAGE_COLUMNS))
    return table(words.stages(explanation.before, explanation.after), header, numbers=True)
