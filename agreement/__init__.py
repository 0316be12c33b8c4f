"""Does the hand-written engine agree with PyTorch's autograd, and both with the truth?"""

from agreement.exact import exact_training
from agreement.gradients import compare_networks
from agreement.measures import (
    FLOAT64_LIMIT,
    TensorAgreement,
    backward_limit,
    compare_tensors,
    cosine,
    error_against,
    largest_ulps,
    product_units,
    unit_roundoff,
)
from agreement.training import Report, Twins, first_difference, locked_training

__all__ = [
    "FLOAT64_LIMIT",
    "Report",
    "TensorAgreement",
    "Twins",
    "backward_limit",
    "compare_networks",
    "compare_tensors",
    "cosine",
    "error_against",
    "exact_training",
    "first_difference",
    "largest_ulps",
    "locked_training",
    "product_units",
    "unit_roundoff",
]
