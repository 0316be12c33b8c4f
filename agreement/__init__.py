"""Does the hand-written engine agree with PyTorch's autograd, and both with the truth?"""

from agreement.compare import GradientsDisagree, assert_gradients_agree, compare
from agreement.gradients import compare_networks, compare_training
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
from agreement.numerical import check_gradients
from agreement.report import Report

__all__ = [
    "FLOAT64_LIMIT",
    "GradientsDisagree",
    "Report",
    "TensorAgreement",
    "assert_gradients_agree",
    "backward_limit",
    "check_gradients",
    "compare",
    "compare_networks",
    "compare_tensors",
    "compare_training",
    "cosine",
    "error_against",
    "largest_ulps",
    "product_units",
    "unit_roundoff",
]
