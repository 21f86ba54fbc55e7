"""Whether a network can be trusted in a study: what must hold of every design, plug-in layers and all.

A study trains for days, and a layer that is wrong at odd resolutions, keeps a weight out of the weights file or mixes
the images of a batch shows only at the end, or never. Here it shows within seconds, on a small network.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from roadmap.checking.trials import CHECKS, CLASSES, Subject, count_parameters, noise
from roadmap.checking.watching import FaultError, line_of, run_watched
from roadmap.checks import RoadmapError
from roadmap.network.building import build_network
from roadmap.network.design import Design
from roadmap.network.families import NetworkDesign
from roadmap.network.layers import NoPlaceError, in_words
from roadmap.network.model import RoadmapNet


@dataclass(frozen=True)
class Finding:
    """What one check found: its name, whether all is well, and one sentence."""

    check: str
    ok: bool
    sentence: str


def check_step(cases: Iterable[tuple[str, Design | None, Design]]) -> dict[str, list[Finding]]:
    """Check a step in several networks: (name of the case, design without the step, design with it) each.

    Gives the findings of `check_design` by case. A layer that has no place in one of the networks is fine, as long as
    there is another in which it has one.
    """
    found = {name: check_design(design, before) for name, before, design in cases}
    homeless = [findings for findings in found.values() if findings[0].check == "place"]
    if len(homeless) == len(found):
        for findings in homeless:
            findings[0] = Finding("place", False, findings[0].sentence)
    return found


def check_design(design: Design, before: Design | None = None) -> list[Finding]:
    """Check a network, which should be small: width 8 or 16 and few blocks take a few seconds.

    ``before``: the design without the step that is checked; None: whether the step changes something is not asked.
    After a failure that leaves the others without meaning they are left out. No exception of a plug-in gets through.
    """
    design = design.replace(num_classes=CLASSES, stochastic_depth=0.0)
    before = before and before.replace(num_classes=CLASSES, stochastic_depth=0.0)
    findings: list[Finding] = []
    with torch.random.fork_rng(devices=[]):
        try:
            torch.manual_seed(0)
            subject = Subject(RoadmapNet(design), before)
        except NoPlaceError as error:
            return [Finding("place", True, str(error))]
        except RoadmapError as error:
            return [Finding("builds", False, str(error))]
        findings.append(Finding("builds", True, f"it builds, with {count_parameters(subject.network)} parameters"))
        for name, check, vital in CHECKS:
            if name == "changes" and before is None:
                continue
            torch.manual_seed(1)
            try:
                sentence = check(subject)
            except FaultError as fault:
                findings.append(Finding(name, False, str(fault)))
            except RoadmapError as error:
                findings.append(Finding(name, False, str(error)))
            except Exception as error:  # of a plug-in's code, outside its forward
                findings.append(Finding(name, False, f"it fails: {in_words(error)}{line_of(subject.network, error)}"))
            else:
                findings.append(Finding(name, True, sentence))
            if vital and not findings[-1].ok:
                break
    return findings


def check_layers(design: NetworkDesign, image_size: int) -> None:
    """Run the plug-in layers of a design, if it has any, on two images of ``image_size`` pixels.

    Raises `RoadmapError` where one fails, or returns another shape than its site says, or numbers that are not finite.
    """
    if not design.layers:
        return
    design.feature_sizes(image_size)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        try:
            run_watched(build_network(design).eval(), noise(design.in_channels, (image_size, image_size), 2).float())
        except FaultError as fault:
            raise RoadmapError(str(fault)) from fault
