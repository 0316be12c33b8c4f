"""Do two engines give the same outputs and gradients for one batch?

The error that counts is the largest difference over the largest value of the tensor: an absolute tolerance
would pass any gradient that is small enough, a zero gradient among them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

# In float64 two correct backward passes differ by rounding alone: some 1e-15 of the largest element.
FLOAT64_LIMIT = 1e-12


@dataclass(frozen=True)
class TensorAgreement:
    """How far two engines are apart in one tensor.

    ``error`` is ``largest_difference / largest_value``, with the largest value of either engine: 0 when both
    are zero everywhere, NaN when a difference is.
    """

    name: str
    shape: tuple[int, ...]
    largest_difference: float
    largest_value: float

    @property
    def error(self) -> float:
        """Largest difference over largest value."""
        return self.largest_difference / self.largest_value if self.largest_difference else 0.0

    @property
    def agrees(self) -> bool:
        """Whether the error is within the limit for float64 (NaN is not)."""
        return self.error <= FLOAT64_LIMIT


def compare_tensors(name: str, reference: np.ndarray, autograd: np.ndarray) -> TensorAgreement:
    """Compare two arrays of one shape; ValueError if the shapes differ (broadcasting would hide that)."""
    if reference.shape != autograd.shape:
        raise ValueError(f"{name}: the reference's shape is {reference.shape}, autograd's {autograd.shape}")
    return TensorAgreement(
        name=name,
        shape=reference.shape,
        largest_difference=float(np.max(np.abs(reference - autograd), initial=0.0)),
        largest_value=float(
            max(np.max(np.abs(reference), initial=0.0), np.max(np.abs(autograd), initial=0.0))
        ),
    )


def compare_networks(
    reference: Any,
    reference_loss: Any,
    autograd: Any,
    autograd_loss: Any,
    inputs: np.ndarray,
    targets: np.ndarray,
) -> list[TensorAgreement]:
    """Send one batch forward and backward through both networks, in float64, and compare what comes out.

    ``reference`` and ``reference_loss`` are of ``nn_reference``, the other two of ``torch.nn``; both networks
    are changed to float64, and PyTorch's gets the reference's weights.
    ``inputs``: (N, ...), ``targets``: (N,).

    Returns a row each for the outputs, the loss, the gradient of each parameter, and that of the inputs.
    """
    import torch

    reference.double()
    autograd.double()
    autograd.load_state_dict({name: torch.tensor(value) for name, value in reference.state_dict().items()})
    reference.zero_grad()
    autograd.zero_grad()

    inputs = inputs.astype(np.float64)
    outputs = reference(inputs)
    loss = reference_loss(outputs, targets)
    grad_inputs = reference.backward(reference_loss.backward())

    tensor_inputs = torch.tensor(inputs, requires_grad=True)
    tensor_outputs = autograd(tensor_inputs)
    tensor_loss = autograd_loss(tensor_outputs, torch.tensor(targets))
    tensor_loss.backward()

    rows = [
        compare_tensors("outputs", outputs, tensor_outputs.detach().numpy()),
        compare_tensors("loss", np.asarray(loss), tensor_loss.detach().numpy()),
    ]
    tensors = {**dict(autograd.named_parameters()), "inputs": tensor_inputs}
    grads = {name: parameter.grad for name, parameter in reference.named_parameters()}
    for name, grad in {**grads, "inputs": grad_inputs}.items():
        rows.append(compare_tensors(f"d loss / d {name}", grad, tensors[name].grad.numpy()))
    return rows
