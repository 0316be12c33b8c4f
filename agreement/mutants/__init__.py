"""A library of wrong gradients, one mistake each: what every check must be seen to catch."""

from agreement.mutants.mutant import Kind, Mutant

__all__ = ["Kind", "Mutant"]
