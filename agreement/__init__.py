"""Does the hand-written engine agree with PyTorch's autograd?"""

from agreement.gradients import FLOAT64_LIMIT, TensorAgreement, compare_networks, compare_tensors

__all__ = ["FLOAT64_LIMIT", "TensorAgreement", "compare_networks", "compare_tensors"]
