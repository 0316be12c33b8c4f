"""Do two engines give the same outputs and gradients for one batch?"""

from typing import Any

import numpy as np

from agreement.measures import TensorAgreement, compare_tensors


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
