"""Does the hand-written engine agree with PyTorch's autograd, and both with the truth?"""

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

__all__ = [
    "FLOAT64_LIMIT",
    "TensorAgreement",
    "backward_limit",
    "compare_networks",
    "compare_tensors",
    "cosine",
    "error_against",
    "largest_ulps",
    "product_units",
    "unit_roundoff",
]
