"""Does the hand-written engine agree with PyTorch's autograd, and both with the truth?"""

from agreement.compare import GradientsDisagree, assert_gradients_agree, compare
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
from agreement.report import Report

__all__ = [
    "FLOAT64_LIMIT",
    "GradientsDisagree",
    "Report",
    "TensorAgreement",
    "assert_gradients_agree",
    "backward_limit",
    "compare",
    "compare_networks",
    "compare_tensors",
    "cosine",
    "error_against",
    "largest_ulps",
    "product_units",
    "unit_roundoff",
]
