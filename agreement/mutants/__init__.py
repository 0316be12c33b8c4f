"""A library of wrong gradients, one mistake each: what every check must be seen to catch."""

from agreement.mutants.mutant import Kind, Mutant
from agreement.mutants.operations import OPERATIONS

__all__ = ["OPERATIONS", "Kind", "Mutant"]
