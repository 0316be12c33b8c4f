"""The published record on MNIST, and where a run stands in it."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources

from chainrule.errors import ChainruleError

KINDS = ("fully-connected", "convolutional")


@dataclass(frozen=True)
class Record:
    """One published result. ``error`` is in percent; ``committee`` is how many networks voted."""

    year: int
    network: str
    short: str
    kind: str
    error: float
    source: str
    distortions: str = "none"
    preprocessing: str = "none"
    committee: int = 1
    side: str = "right"

    @property
    def alone(self) -> bool:
        """Whether one network did it with the images as they are."""
        return self.distortions == self.preprocessing == "none" and self.committee == 1

    @property
    def how(self) -> str:
        """What helped it beyond one network and the 60,000 images."""
        helped = [] if self.distortions == "none" else [f"{self.distortions} distortions"]
        helped += [] if self.preprocessing == "none" else [self.preprocessing]
        helped += [f"{self.committee} networks"] if self.committee > 1 else []
        return ", ".join(helped) or "-"


@dataclass(frozen=True)
class Own:
    """A run to be set beside the record: its name, kind of network, and test error in percent."""

    name: str
    kind: str
    error: float


@cache
def records() -> tuple[Record, ...]:
    """Return the published results of ``history.toml``, the highest error first."""
    table = tomllib.loads(resources.files("chainrule").joinpath("history.toml").read_text("utf-8"))
    return tuple(sorted((Record(**record) for record in table["record"]), key=lambda record: -record.error))


def sources() -> list[str]:
    """Return the papers, to be cited by their place in this list."""
    return list(dict.fromkeys(f"{record.source}, {record.year}" for record in records()))


def cite(record: Record) -> str:
    """Return "[3]" for the third of the `sources`."""
    return f"[{sources().index(f'{record.source}, {record.year}') + 1}]"


def own(name: str, dataset: str, layers: list[str], test_accuracy: float) -> Own:
    """Return a run as it stands beside the record; ``layers`` are the types of its layers.

    Raises ChainruleError unless it was tested on MNIST: the errors on other images are no comparison.
    """
    if dataset != "mnist":
        raise ChainruleError(f"{name} was tested on {dataset}: the published record is that of MNIST")
    return Own(name, KINDS[any(layer.startswith("Conv") for layer in layers)], 100 * (1 - test_accuracy))


def standing(run: Own) -> str:
    """Say in one sentence where a run stands among single networks of its kind without distortions."""
    alone = [r for r in records() if r.kind == run.kind and r.alone]
    among = f"single {run.kind} networks without distortions"
    above = [record for record in alone if record.error >= run.error]
    below = [record for record in alone if record.error < run.error]
    between = []
    if above:
        between.append(f"better than {_cited(above[-1])}")
    if below:
        between.append(f"not yet {_cited(below[0])}")
    return f"Among {among}: {'; '.join(between)}."


def _cited(record: Record) -> str:
    return f"the {record.error:g} % of {record.network} ({record.source.split(',')[0]}, {record.year})"
