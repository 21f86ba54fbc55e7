"""What a question is: the networks that it trains, the contrasts of their means that answer it, and its words.

A question is one class in one file of this package. Everything else (planning, tables, figures, report, help) goes
through the interface below and knows no question by name: a new file here is a new question. Needs no torch.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from roadmap.checks import RoadmapError
from roadmap.ladders.steps import Step, contradiction
from roadmap.markup import consecutive

#: A study of more networks than this is a mistake.
MOST_NETWORKS = 20_000
#: A network of more steps than this, with as many left out, is called by their numbers.
NAMED = 2


@dataclass(frozen=True)
class Network:
    """A network to train: its name in the study, the steps that make it of the ladder's start, and whether what follows
    builds upon it."""

    name: str
    steps: tuple[Step, ...]
    adopted: bool = True

    @property
    def key(self) -> frozenset[str]:
        """Names of its steps."""
        return frozenset(step.name for step in self.steps)


@dataclass(frozen=True)
class Plan:
    """A question that was asked of some steps: its networks in order, the steps of the ``base``, which all of them
    have, and the ``facts`` that reading its results needs, as plain values.

    Common ``facts``: the ``design``, which is the question's name; ``factors``, names of the steps that it is about;
    ``base``, names of those that are always in; ``steps``, what each is. Some questions add their own.
    """

    question: Question
    networks: tuple[Network, ...]
    base: tuple[Step, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def remarks(self) -> list[str]:
        """What a reader of the list of networks should know, in sentences."""
        remarks = []
        if any(network.name.startswith("steps ") for network in self.networks):
            listed = ", ".join(f"{number} {name}" for number, name in enumerate(self.facts["factors"], 1))
            remarks.append(f"steps: {listed}")
        return remarks + self.question.remarks(self)

    @property
    def contrasts(self) -> list[Contrast]:
        """The effects that the study will estimate once all of its networks are trained."""
        cells = [Cell(one.name, tuple(step.name for step in one.steps), one.adopted) for one in self.networks]
        return self.question.contrasts(cells, self.facts)

    @property
    def common(self) -> str | None:
        """The network that every effect is compared with, where there is one that more seeds would serve."""
        weights = [set(contrast.weights) for contrast in self.contrasts]
        shared = set.intersection(*weights) if len(weights) > 1 else set()
        return shared.pop() if self.question.favours_common and len(shared) == 1 else None


@dataclass(frozen=True)
class Cell:
    """A network that was trained, as a question sees it: its name, its steps in the order in which they came, how many
    of its runs are ``done``, and, where a table says so, the network that it is to be compared with."""

    name: str
    steps: tuple[str, ...] = ()
    adopted: bool = True
    reference: bool = False
    against: str | None = None
    done: int = 1


@dataclass(frozen=True)
class Contrast:
    """One effect: the weight of each network's mean in it; no weights where it cannot be told, since networks that it
    needs were not trained.

    ``absent``: how many networks were not trained. ``extra``: further columns of the table of effects. ``parts``: the
    pairs (network, against) whose differences the effect is the mean of, weighted by ``shares``, such as one an order;
    ``drawn``: where these are a random sample, the share of all that it leaves out, which makes the choice a source of
    error of its own; else None. ``rest``: networks that belong to the effect and have no weight in it, since others
    that it needs are missing.
    """

    effect: str
    weights: Mapping[str, float]
    absent: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)
    parts: tuple[tuple[str, str], ...] = ()
    shares: tuple[float, ...] = ()
    drawn: float | None = None
    rest: tuple[str, ...] = ()

    @property
    def pair(self) -> tuple[str, str] | None:
        """(against, network) where the effect is the plain difference of two networks, else None."""
        if sorted(self.weights.values()) != [-1.0, 1.0]:
            return None
        against, network = sorted(self.weights, key=self.weights.__getitem__)
        return against, network


def difference(effect: str, network: str | None, against: str | None, **extra: Any) -> Contrast:
    """The effect network - against, of which None was not trained."""
    if network is None or against is None:
        there = tuple(name for name in (network, against) if name is not None)
        return Contrast(effect, {}, absent=2 - len(there), extra=extra, rest=there)
    return Contrast(effect, {network: 1.0, against: -1.0}, extra=extra)


@dataclass(frozen=True)
class Question(ABC):
    """One ablation design. Its dataclass fields are settings of a study: keys of the YAML file and options of
    ``roadmap run``, in which they stand beside the general ones.

    name
        What ``--design`` calls it.
    title, asks, effect, axis, meaning
        Words for readers: a heading, the question in a few words, what one of its effects is called, the label of its
        axis, and a sentence on what the estimate of an effect is.
    networks, example
        For the help: which networks it trains, and a command.
    figures
        Methods of `roadmap.results.study.Study` that draw its answer, the most telling first.
    ranked
        Whether its effects are listed by size in figures, or in their own order.
    uses
        General settings of a study that it has a use for, of ``steps``, ``from_``, ``only`` and ``roads``.
    takes_away
        Whether it takes steps from its base, whose default is then the end of the ladder, or adds them to it.
    cumulative
        Whether each network is called by the step that it adds to those before.
    favours_common
        Whether the network that all others are compared with is trained with more seeds (Dunnett's rule).
    includes_references
        Whether models that run beside the study's networks have effects, too.
    needs
        Facts that `contrasts` cannot do without.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    asks: ClassVar[str]
    effect: ClassVar[str] = "Effect"
    axis: ClassVar[str]
    meaning: ClassVar[str]
    networks: ClassVar[str]
    example: ClassVar[str]
    rank: ClassVar[int] = 99
    figures: ClassVar[tuple[str, ...]] = ("ablation",)
    ranked: ClassVar[bool] = True
    uses: ClassVar[tuple[str, ...]] = ("steps",)
    takes_away: ClassVar[bool] = False
    cumulative: ClassVar[bool] = False
    favours_common: ClassVar[bool] = False
    includes_references: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ("factors",)

    @abstractmethod
    def plan(self, build: Builder) -> Plan:
        """The networks to train. Raises `RoadmapError` where the steps cannot answer the question."""

    @classmethod
    @abstractmethod
    def contrasts(cls, cells: Sequence[Cell], facts: Mapping[str, Any]) -> list[Contrast]:
        """The effects, in their order, over the networks that have runs (``cells``). ``facts`` are those of its `Plan`,
        or of `facts_of`. Raises `RoadmapError` where they lack what is needed."""

    @classmethod
    def facts_of(cls, cells: Sequence[Cell], baseline: str | None = None) -> dict[str, Any]:
        """What `contrasts` needs to know, found out from the networks alone: for tables of runs from elsewhere.

        ``baseline``: the network that others are compared with. Raises `RoadmapError` where the networks are not those
        of this question.
        """
        shared = frozenset.intersection(*(frozenset(cell.steps) for cell in cells))
        largest_first = sorted(cells, key=lambda cell: -len(cell.steps))
        every = dict.fromkeys(step for cell in largest_first for step in cell.steps)
        factors = [step for step in every if step not in shared]
        if not factors:
            raise RoadmapError(
                f"the networks of design {cls.name} differ in their steps, but in this table all have the same: name "
                "the column that lists them (steps)"
            )
        return {"design": cls.name, "factors": factors, "base": sorted(shared)}

    @classmethod
    def compared(cls, cells: Sequence[Cell], baseline: str | None = None) -> list[Cell]:
        """The networks of a table of runs from elsewhere, as `contrasts` takes them."""
        return list(cells)

    def check(self) -> None:  # noqa: B027  (most have no settings)
        """Raise `RoadmapError` for impossible settings."""

    def remarks(self, plan: Plan) -> list[str]:
        """Sentences about its networks, for the plan."""
        return []

    def probes(self, plan: Plan) -> list[Network]:
        """Networks that are not trained, but planned to see that each step changes something, where no two networks
        of the plan differ in a single step."""
        return []

    def pairs(self, plan: Plan) -> dict[str, list[tuple[Network, Network]]]:
        """Step -> the pairs of networks, without and with it, that differ in it alone."""
        networks = [*plan.networks, *self.probes(plan)]
        known = {network.key: network for network in networks}
        pairs: dict[str, list[tuple[Network, Network]]] = {}
        for network in networks:
            for name in network.key:
                without = known.get(network.key - {name})
                if without is not None:
                    pairs.setdefault(name, []).append((without, network))
        return pairs

    def short_title(self, plan: Plan, upto: str | None) -> str:
        """The part of a study's default name that tells of the question."""
        return f"{self.name}-{upto}" if upto else self.name


def by_factors(cells: Iterable[Cell], facts: Mapping[str, Any]) -> dict[frozenset[str], str]:
    """The factors in a network -> its name: networks with steps that are neither factors nor in the base belong to no
    such question, and one that is there under two names counts once."""
    factors = frozenset(facts["factors"])
    known = factors | frozenset(facts.get("base", ()))
    found: dict[frozenset[str], str] = {}
    for cell in cells:
        if known.issuperset(cell.steps):
            found.setdefault(factors & frozenset(cell.steps), cell.name)
    return found


@dataclass(frozen=True)
class Builder:
    """What a question is asked of, and how its networks are made.

    ``base``: steps that are always in; ``name``: what the network of the base alone is called; ``factors``: the steps
    that the question is about; ``positions``: names of steps in the order in which a network lists them; ``skipped``:
    names of ladder networks that the study leaves out; ``others``: names of networks that run beside those of the plan.
    """

    base: tuple[Step, ...]
    name: str
    factors: tuple[Step, ...]
    positions: tuple[str, ...] = ()
    skipped: frozenset[str] = frozenset()
    others: tuple[str, ...] = ()

    def network(self, chosen: Iterable[Step], called: str | None = None) -> Network:
        """The network of the base and some of the factors, in whatever order. Raises `RoadmapError` where two of them
        contradict each other."""
        wanted = list(chosen)
        taken = [step for step in self.factors if step in wanted]
        names = [*(step.name for step in self.base), *self.positions, *(step.name for step in self.factors)]
        place = {name: place for place, name in enumerate(names)}
        together = sorted([*self.base, *taken], key=lambda step: place[step.name])
        if why := contradiction(taken):
            raise RoadmapError(f"{why}; leave one of them out of steps, or sweep the flag")
        return Network(called or self._called(taken), tuple(together))

    def plan(self, question: Question, networks: Sequence[Network], **facts: Any) -> Plan:
        """The plan of these networks, with what every question's facts say."""
        steps = [
            {
                "name": step.name,
                "why": step.why,
                "section": step.section,
                "change": step.change,
                "adopted": step.adopted,
                "settings": step.settings,
            }
            for step in [*self.base, *self.factors]
        ]
        common = {
            "design": question.name,
            "factors": [step.name for step in self.factors],
            "base": [step.name for step in self.base],
            "steps": steps,
        }
        return Plan(question, tuple(networks), self.base, common | facts)

    def _called(self, taken: Sequence[Step]) -> str:
        left = [step.name for step in self.factors if step not in taken]
        if not taken:
            return self.name
        if not left:
            return "all"
        if len(taken) <= min(len(left), NAMED):
            return f"with {' & '.join(step.name for step in taken)}"
        if len(left) <= NAMED:
            return f"all but {' & '.join(left)}"
        return f"steps {ranges([self.factors.index(step) + 1 for step in taken])}"


def ranges(numbers: Sequence[int]) -> str:
    """Rising numbers as ``1-4 7 9-10``."""
    runs = consecutive(numbers)
    return " ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def subsets(items: Iterable[Any]) -> Iterable[tuple[Any, ...]]:
    """All subsets, the smaller ones first."""
    pool = list(items)
    return itertools.chain.from_iterable(itertools.combinations(pool, size) for size in range(len(pool) + 1))


def check_number_of_networks(count: int, what: str) -> None:
    """Raise `RoadmapError` for more networks than anybody trains."""
    if count > MOST_NETWORKS:
        raise RoadmapError(f"{what} would have {count} networks, but {MOST_NETWORKS} are the most: name fewer steps")
