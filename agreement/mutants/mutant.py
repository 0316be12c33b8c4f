"""What a mutant is: one mistake, planted in the engine and taken out again."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """Where a mistake lies, which decides the checkers that must notice it."""

    OPERATION = "operation"  # in the backward of one operation
    NETWORK = "network"  # in how layers and their gradients are put together
    OPTIMIZER = "optimizer"  # in the update, or the schedule
    PRECISION = "precision"  # right mathematics, but digits are lost


@dataclass(frozen=True)
class Mutant:
    """A wrong version of one function of the engine.

    ``operation`` is the row of the layer table that it belongs to (or the optimizer's or module's name),
    ``mistake`` what a learner did, in a sentence; ``right`` and ``wrong`` are the two formulas.
    ``where`` is the module or class that holds the function, ``attribute`` its name there, and ``function``
    takes its place: it has the signature of the right one and never calls it through ``where``.
    """

    name: str
    operation: str
    kind: Kind
    mistake: str
    right: str
    wrong: str
    where: Any
    attribute: str
    function: Callable[..., Any]

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Run with the mistake in the engine, for every network of the process."""
        before = getattr(self.where, self.attribute)
        setattr(self.where, self.attribute, self.function)
        try:
            yield
        finally:
            setattr(self.where, self.attribute, before)

    def __str__(self) -> str:
        return self.name
