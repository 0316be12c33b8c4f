"""Mistakes in how layers and their gradients are put together; each layer's own mathematics is right.

`example` is a network on which every one of them shows: all layers have one width, so that even a wrong order
runs, and one of them is used twice.
"""

from collections import OrderedDict
from typing import Any

import nn_reference as nn
from agreement.mutants.mutant import Kind, Mutant
from nn_reference import dropout, linear, relu, softmax
from nn_reference.batchnorm import _BatchNorm

WIDTH = 8  # of the input, of every layer, and the number of classes


def example(library: Any) -> Any:
    """Return the network, of ``nn_reference`` or ``torch.nn``: (N, 8) to (N, 8) scores."""
    shared = library.Linear(WIDTH, WIDTH)
    return library.Sequential(
        OrderedDict(
            fc1=library.Linear(WIDTH, WIDTH),
            relu1=library.ReLU(),
            shared=shared,
            relu2=library.ReLU(),
            again=shared,
            bn1=library.BatchNorm1d(WIDTH),
            drop=library.Dropout(0.3),
            fc2=library.Linear(WIDTH, WIDTH),
        )
    )


def _overwrite(self: Any, grad: Any) -> None:
    self.grad = grad


def _add_twice(self: Any, grad: Any) -> None:
    self.grad = 2 * grad if self.grad is None else self.grad + 2 * grad


def _keep_the_gradient(self: Any, set_to_none: bool = True) -> None:
    pass


def _update_before_input_gradient(
    self: Any, cache: Any, grad_y: Any, need_grad_x: bool, lr: float = 0.1
) -> Any:
    x, weight = cache
    _, grad_weight, grad_bias = linear.backward(cache, grad_y, False)
    grad_x, _, _ = linear.backward((x, weight - lr * grad_weight), grad_y, need_grad_x)
    self.weight.accumulate(grad_weight)
    if self.bias is not None:
        self.bias.accumulate(grad_bias)
    return grad_x


def _return_early(self: Any, grad_output: Any, input_grad: bool = True) -> Any:
    grad = grad_output
    for module in reversed(list(self)[1:]):
        grad = module.backward(grad)
    return grad if input_grad else None


_backward = nn.Sequential.backward


def _forward_order(self: Any, grad_output: Any, input_grad: bool = True) -> Any:
    grad = grad_output
    for module in self:
        grad = module.backward(grad)
    return grad if input_grad else None


def _stop_before_the_first(self: Any, grad_output: Any, input_grad: bool = True) -> Any:
    return _backward(self, grad_output) if input_grad else _return_early(self, grad_output, False)


def _mask_of_next_output(self: Any, x: Any) -> Any:
    """Run the modules; then let each ReLU remember the output of the layer after it instead of its own."""
    modules, outputs = list(self), []
    for module in modules:
        x = module(x)
        outputs.append(x)
    for module, own, after in zip(modules, outputs, outputs[1:], strict=False):
        if isinstance(module, nn.ReLU) and own.shape == after.shape:
            assert module._pending
            module._pending[-1] = module._pending[-1]._replace(cache=after)
    return x


def _mask_of_last_batch(self: Any, x: Any) -> Any:
    y, mask = relu.forward(x)
    last = vars(self).get("last_mask", mask)
    self.last_mask = mask
    return y, last if last.shape == mask.shape else mask


_cross_entropy = nn.CrossEntropyLoss._forward


def _softmax_twice(self: Any, x: Any, target: Any) -> Any:
    return _cross_entropy(self, softmax.forward(x, 1)[0], target)


def _new_mask(self: Any, cache: Any, grad_y: Any, need_grad_x: bool) -> Any:
    if cache is None:
        return grad_y
    return dropout.backward(dropout.draw_mask(grad_y.shape, self.p, grad_y.dtype, self.generator), grad_y)


_draw_mask = dropout.draw_mask


def _unscaled_mask(shape: Any, p: float, dtype: Any, generator: Any) -> Any:
    return (_draw_mask(shape, p, dtype, generator) != 0).astype(dtype)


def _stay_in_evaluation(self: Any, mode: bool = True) -> Any:
    for module in self.modules():
        module.training = False
    return self


_track = _BatchNorm._track


def _no_count(self: Any, mean: Any, unbiased_var: Any) -> None:
    before = self.num_batches_tracked.copy()
    _track(self, mean, unbiased_var)
    self.num_batches_tracked = before


def _weights_swapped(self: Any, mean: Any, unbiased_var: Any) -> None:
    for running, new in ((self.running_mean, mean), (self.running_var, unbiased_var)):
        running *= self.momentum
        running += (1 - self.momentum) * new


def _network(
    name: str, operation: str, mistake: str, right: str, wrong: str, place: tuple[Any, str], function: Any
) -> Mutant:
    return Mutant(name, operation, Kind.NETWORK, mistake, right, wrong, *place, function)


NETWORKS: tuple[Mutant, ...] = (
    _network(
        "accumulate-overwrites",
        "Parameter",
        "A weight is used twice, and the gradient of the second use takes the place of the first.",
        "weight.grad += grad",
        "weight.grad = grad",
        (nn.Parameter, "accumulate"),
        _overwrite,
    ),
    _network(
        "accumulate-twice",
        "Parameter",
        "Each gradient is added twice, once by the layer and once by the loop around it.",
        "weight.grad += grad",
        "weight.grad += 2 grad",
        (nn.Parameter, "accumulate"),
        _add_twice,
    ),
    _network(
        "gradients-not-zeroed",
        "Parameter",
        "zero_grad is forgotten, so each step also takes all the steps before it.",
        "weight.grad = grad of this batch",
        "weight.grad = sum of the gradients of all batches so far",
        (nn.Parameter, "zero_grad"),
        _keep_the_gradient,
    ),
    _network(
        "update-before-input-gradient",
        "Linear",
        "The weight is changed as soon as its gradient is there; the layer below sees the new weight.",
        "grad_x = grad_y weight",
        "grad_x = grad_y (weight - lr grad_weight)",
        (nn.Linear, "_backward"),
        _update_before_input_gradient,
    ),
    _network(
        "early-return",
        "Sequential",
        "The loop over the layers stops one too early: the first layer never learns.",
        "for i in reversed(range(0, n))",
        "for i in reversed(range(1, n))",
        (nn.Sequential, "backward"),
        _return_early,
    ),
    _network(
        "first-layer-skipped",
        "Sequential",
        "Where the gradient of the input is not needed, the first layer is left out, and never learns.",
        "layers[0].backward(grad, input_grad=False)",
        "nothing, if not input_grad",
        (nn.Sequential, "backward"),
        _stop_before_the_first,
    ),
    _network(
        "forward-order",
        "Sequential",
        "The gradient goes through the layers in the order of the forward; equal widths hide it.",
        "for layer in reversed(layers): grad = layer.backward(grad)",
        "for layer in layers: grad = layer.backward(grad)",
        (nn.Sequential, "backward"),
        _forward_order,
    ),
    _network(
        "relu-mask-of-next-output",
        "ReLU",
        "ReLU's mask is taken from the output of the layer after it.",
        "grad_x = grad_y (y > 0), y = relu(x)",
        "grad_x = grad_y (z > 0), z = weight y + bias",
        (nn.Sequential, "forward"),
        _mask_of_next_output,
    ),
    _network(
        "stale-cache",
        "ReLU",
        "Backward reads what the forward of the batch before left behind.",
        "grad_x = grad_y (y of this batch > 0)",
        "grad_x = grad_y (y of the last batch > 0)",
        (nn.ReLU, "_forward"),
        _mask_of_last_batch,
    ),
    _network(
        "softmax-twice",
        "CrossEntropyLoss",
        "The network ends in a softmax, and the cross-entropy takes another.",
        "loss = -log softmax(x)[label]",
        "loss = -log softmax(softmax(x))[label]",
        (nn.CrossEntropyLoss, "_forward"),
        _softmax_twice,
    ),
    _network(
        "dropout-new-mask",
        "Dropout",
        "Backward draws a mask of its own instead of using the forward's.",
        "grad_x = grad_y mask",
        "grad_x = grad_y another mask",
        (nn.Dropout, "_backward"),
        _new_mask,
    ),
    _network(
        "dropout-not-scaled",
        "Dropout",
        "What is kept is not scaled, neither forward nor backward: the two are of one mind, and both wrong.",
        "mask = kept / (1 - p)",
        "mask = kept",
        (dropout, "draw_mask"),
        _unscaled_mask,
    ),
    _network(
        "batches-not-counted",
        "BatchNorm1d",
        "The count of batches stays as it was, which shows only when momentum is None.",
        "num_batches_tracked += 1",
        "nothing",
        (_BatchNorm, "_track"),
        _no_count,
    ),
    _network(
        "eval-left-on",
        "BatchNorm1d",
        "After the first evaluation train() is forgotten: no dropout, and running for batch statistics.",
        "y = (x - mean(x)) / sqrt(var(x) + eps)",
        "y = (x - running_mean) / sqrt(running_var + eps)",
        (nn.Module, "train"),
        _stay_in_evaluation,
    ),
    _network(
        "running-statistics-swapped",
        "BatchNorm1d",
        "The momentum of the running statistics is given to the old value instead of the new one.",
        "running = (1 - momentum) running + momentum new",
        "running = momentum running + (1 - momentum) new",
        (_BatchNorm, "_track"),
        _weights_swapped,
    ),
)
