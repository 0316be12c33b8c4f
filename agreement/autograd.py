"""PyTorch's side of a comparison: one forward and one backward by autograd, from arrays to arrays."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class AutogradFailed(Exception):
    """PyTorch raised an error; the message is its first line."""


class Autograd:
    """A ``torch.nn.Module``, or a function of tensors, called with arrays; the original is left as it is."""

    def __init__(self, model: Any):
        try:
            import torch
        except ImportError:
            raise ImportError("agreement.compare needs PyTorch: pip install 'chainrule[torch]'") from None
        if isinstance(model, type):
            raise TypeError(f"found the class {model.__name__}, expected an object: {model.__name__}(...)")
        self._module = copy.deepcopy(model) if isinstance(model, torch.nn.Module) else None
        if self._module is None and not callable(model):
            raise TypeError(
                f"found a {type(model).__name__}, expected a torch.nn.Module or a function of tensors"
            )
        self._function = model
        self.is_module = self._module is not None

    @property
    def parameters(self) -> dict[str, Array]:
        """The module's parameters; none for a function."""
        if self._module is None:
            return {}
        return {name: value.detach().cpu().numpy().copy() for name, value in self._module.named_parameters()}

    def take_buffers(self, buffers: Mapping[str, Array]) -> None:
        """Take the reference's buffers (running statistics) where the module has them under that name."""
        import torch

        for name, buffer in () if self._module is None else self._module.named_buffers():
            if name in buffers:
                buffer.copy_(torch.tensor(buffers[name]))

    def run(
        self,
        inputs: Sequence[Array],
        parameters: Mapping[str, Array],
        upstream: Callable[[tuple[int, ...]], Array],
        dtype: npt.DTypeLike,
    ) -> tuple[Array, list[Array | None], dict[str, Array]]:
        """Return the output, the gradients of the inputs (None for integers) and those of the parameters.

        Everything is computed in ``dtype``. A value that the output does not depend on has gradient zero.
        Raises AutogradFailed.
        """
        import torch

        tensors = [_tensor(array, dtype) for array in inputs]
        learnt = {name: _tensor(array, dtype) for name, array in parameters.items()}
        try:
            if self._module is not None:
                buffers = {
                    name: value.detach().clone().to(torch.from_numpy(np.empty(0, dtype)).dtype)
                    if value.is_floating_point()
                    else value.detach().clone()
                    for name, value in self._module.named_buffers()
                }
                y = torch.func.functional_call(self._module, {**learnt, **buffers}, tuple(tensors))
            else:
                y = self._function(*tensors, *learnt.values())
            if not isinstance(y, torch.Tensor):
                raise AutogradFailed(f"the autograd model returns a {type(y).__name__}, expected one tensor")
            wanted = [t for t in (*tensors, *learnt.values()) if t.requires_grad]
            grad_y = torch.tensor(upstream(tuple(y.shape))).to(y.dtype)
            grads = torch.autograd.grad(y, wanted, grad_y, allow_unused=True)
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            first_line = str(error).strip().splitlines()[0] if str(error) else ""
            raise AutogradFailed(f"the autograd model raises {type(error).__name__}: {first_line}") from error
        by_id = {
            id(t): (torch.zeros_like(t) if g is None else g).detach().numpy()
            for t, g in zip(wanted, grads, strict=True)
        }
        of_parameters = {name: by_id[id(t)] for name, t in learnt.items() if t.requires_grad}
        return y.detach().numpy(), [by_id.get(id(t)) for t in tensors], of_parameters


def _tensor(array: Array, dtype: npt.DTypeLike) -> Any:
    """Return a tensor of its own; of floating-point numbers in ``dtype`` and with a gradient."""
    import torch

    if array.dtype.kind != "f":
        return torch.tensor(np.array(array, order="C"))
    return torch.tensor(np.array(array, dtype, order="C")).requires_grad_()
