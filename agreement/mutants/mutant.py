"""What a mutant is: one mistake, planted in the engine and taken out again."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import wraps
from typing import Any


class Kind(StrEnum):
    """Where a mistake lies, which decides the checkers that must notice it."""

    OPERATION = "operation"  # in the backward of one operation
    KINK = "kink"  # the same, but right everywhere else than at a kink
    STATE = "state"  # in what is kept for later steps, not in the gradient of this one
    NETWORK = "network"  # in how layers and their gradients are put together
    OPTIMIZER = "optimizer"  # in the update, or the schedule
    PRECISION = "precision"  # right mathematics, but digits are lost


def _without_out(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Let a layer offer arrays for the gradients, as it does with `nn_reference.utils.Vector`; unused here."""

    @wraps(backward)
    def called(cache: Any, grad_y: Any, *others: Any, **named: Any) -> Any:
        return backward(cache, grad_y, *others[:1], **named)  # what follows need_grad_x is out

    return called


@dataclass(frozen=True)
class Mutant:
    """A wrong version of one function of the engine.

    ``operation`` is the row of the layer table that it belongs to (or the optimizer's or module's name),
    ``mistake`` what a learner did, in a sentence; ``right`` and ``wrong`` are the two formulas.
    ``where`` is the module or class that holds the function, ``attribute`` its name there, and ``function``
    takes its place: it has the signature of the right one and never calls it through ``where``. A backward
    that needs more in its cache brings its own ``forward`` along. ``shows_in`` says where lost digits show:
    "float32", "float64", or in float32 sums over "long batches"; wrong mathematics shows in both dtypes.
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
    forward: Callable[..., Any] | None = None
    shows_in: tuple[str, ...] = ("float32", "float64")

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Run with the mistake in the engine, for every network of the process."""
        planted = {self.attribute: self.function} | ({"forward": self.forward} if self.forward else {})
        before = {attribute: getattr(self.where, attribute) for attribute in planted}
        try:
            for attribute, function in planted.items():
                setattr(
                    self.where, attribute, _without_out(function) if attribute == "backward" else function
                )
            yield
        finally:
            for attribute, function in before.items():
                setattr(self.where, attribute, function)

    def __str__(self) -> str:
        return self.name
