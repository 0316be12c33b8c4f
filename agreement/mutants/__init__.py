"""A library of wrong gradients, one mistake each: what every check must be seen to catch."""

from agreement.mutants.mutant import Kind, Mutant
from agreement.mutants.networks import NETWORKS
from agreement.mutants.operations import OPERATIONS
from agreement.mutants.optimizers import OPTIMIZERS

ALL = (*OPERATIONS, *NETWORKS, *OPTIMIZERS)

__all__ = ["ALL", "NETWORKS", "OPERATIONS", "OPTIMIZERS", "Kind", "Mutant"]
