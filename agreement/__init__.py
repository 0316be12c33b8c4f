"""Does the hand-written engine agree with PyTorch's autograd, and both with the truth?"""

from typing import TYPE_CHECKING, Any

from agreement.compare import GradientsDisagree, assert_gradients_agree, compare
from agreement.exact import exact_training
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
from agreement.training import TrainingReport, Twins, first_difference, locked_training

if TYPE_CHECKING:
    from agreement.diagnosis import diagnose

__all__ = [
    "FLOAT64_LIMIT",
    "GradientsDisagree",
    "Report",
    "TensorAgreement",
    "TrainingReport",
    "Twins",
    "assert_gradients_agree",
    "backward_limit",
    "check_gradients",
    "compare",
    "compare_networks",
    "compare_tensors",
    "compare_training",
    "cosine",
    "diagnose",
    "error_against",
    "exact_training",
    "first_difference",
    "largest_ulps",
    "locked_training",
    "product_units",
    "unit_roundoff",
]


def __getattr__(name: str) -> Any:
    """Load the diagnosis with its catalogue of mistakes when it is asked for."""
    if name == "diagnose":
        from agreement.diagnosis import diagnose

        return diagnose
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
