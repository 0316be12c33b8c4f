"""Wrong versions of the operations' backward functions, one mistake each, a file for each family."""

from agreement.mutants.mutant import Mutant
from agreement.mutants.operations import (  # noqa: F401  (each enters its mutants)
    activations,
    batchnorm,
    images,
    linear,
    losses,
    probabilities,
    shapes,
)
from agreement.mutants.operations._register import CATALOGUE

OPERATIONS: tuple[Mutant, ...] = tuple(CATALOGUE)


def mutants_of(operation: str) -> tuple[Mutant, ...]:
    """Return the mutants of one row of the layer table."""
    return tuple(mutant for mutant in OPERATIONS if mutant.operation == operation)
