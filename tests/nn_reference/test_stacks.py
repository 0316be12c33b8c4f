"""Random networks of any depth against torch.autograd."""

import copy

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nn_checks import assert_close, give_same_state, run_ours, seeds

import nn_reference as nn

vector_layers = st.sampled_from(
    ["Linear", "ReLU", "LeakyReLU", "Sigmoid", "Tanh", "ELU", "SiLU", "GELU", "BatchNorm1d", "LogSoftmax",
     "Softmax", "Identity", "Dropout", "Sequential"]
)  # fmt: skip
image_layers = st.sampled_from(["Conv2d", "MaxPool2d", "AvgPool2d", "BatchNorm2d", "ReLU", "Tanh", "SiLU"])


class TheirGELU(torch.nn.Module):
    """PyTorch's GELU by erfc: its own, by 1 + erf, cancels in the left tail."""

    def forward(self, x):
        return x * torch.special.erfc(-x * 0.5**0.5) / 2


def draw_layer(draw, name, shape):
    """Return the arguments of one layer for input (N, ...) of this shape, and the shape of its output."""
    if name == "Linear":
        out = draw(st.integers(2, 6))
        return (shape[1], out), (shape[0], out)
    if name in ("BatchNorm1d", "BatchNorm2d"):
        return (shape[1],), shape
    if name in ("Softmax", "LogSoftmax"):
        return (1,), shape
    if name == "Dropout":
        return (0.0,), shape  # masks are the matter of test_operations
    if name == "Conv2d":
        out = draw(st.integers(1, 4))
        return (shape[1], out, 3, 1, 1), (shape[0], out, *shape[2:])
    if name in ("MaxPool2d", "AvgPool2d"):
        if min(shape[2:]) < 2:
            return None, shape
        return (2,), (*shape[:2], shape[2] // 2, shape[3] // 2)
    return (), shape


@st.composite
def stacks(draw):
    """The same network twice, float64, with images first or without, and its input."""
    batch = draw(st.integers(4, 6))
    images = draw(st.booleans())
    shape = (batch, 2, 6, 5) if images else (batch, draw(st.integers(2, 6)))
    x_shape = shape
    ours, theirs = [], []

    def add(name, *args):
        ours.append(getattr(nn, name)(*args))
        theirs.append(TheirGELU() if name == "GELU" else getattr(torch.nn, name)(*args))

    if images:
        for name in draw(st.lists(image_layers, max_size=5)):
            args, shape = draw_layer(draw, name, shape)
            if args is not None:
                add(name, *args)
        add("Flatten")
        shape = (batch, int(np.prod(shape[1:])))
    for name in draw(st.lists(vector_layers, max_size=12)):
        if name == "Sequential":  # nested, and ending in a layer that is used a second time
            ours.append(nn.Sequential(nn.Tanh(), nn.Linear(shape[1], 3), nn.Tanh()))
            theirs.append(torch.nn.Sequential(torch.nn.Tanh(), torch.nn.Linear(shape[1], 3), torch.nn.Tanh()))
            shape = (batch, 3)
        else:
            args, shape = draw_layer(draw, name, shape)
            add(name, *args)
    if ours and draw(st.booleans()):
        shared, their_shared = nn.SiLU(), torch.nn.SiLU()
        ours = [shared, *ours, shared]
        theirs = [their_shared, *theirs, their_shared]
    rng = np.random.default_rng(draw(seeds))
    network, their_network = nn.Sequential(*ours).double(), torch.nn.Sequential(*theirs).double()
    give_same_state(network, their_network, rng)
    training = draw(st.booleans())
    network.train(training)
    their_network.train(training)
    return network, their_network, rng.normal(size=x_shape)


def results_of_theirs(network, x, g):
    """Output and every gradient by name."""
    t = torch.from_numpy(x.copy()).requires_grad_()
    y = network(t)
    y.backward(torch.from_numpy(g))
    grads = {name: p.grad.numpy() for name, p in network.named_parameters()}
    return {"output": y.detach().numpy(), "input": t.grad.numpy(), **grads}


def one_ulp_away(network, x):
    """The control: the same network and input, each number moved to one of its neighbours.

    So is what comes out of each layer: a Softmax would make a change of its input too small to be seen.
    """
    rng = np.random.default_rng(3)
    moved = copy.deepcopy(network)

    def move(layer, inputs, output):
        sides = torch.from_numpy(rng.choice([-np.inf, np.inf], tuple(output.shape)))
        return output + (torch.nextafter(output, sides) - output).detach()

    for layer in moved:
        layer.register_forward_hook(move)
    with torch.no_grad():
        for p in moved.parameters():
            p.copy_(torch.from_numpy(np.nextafter(p.numpy(), rng.choice([-np.inf, np.inf], p.shape))))
    return moved, np.nextafter(x, rng.choice([-np.inf, np.inf], x.shape))


several = settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@several
@given(stacks())
def test_random_stacks_agree_with_autograd(stack):
    """To 1e-12 of each tensor's largest element, or to what rounding alone changes.

    It changes more where BatchNorm divides by the deviation of a feature that hardly varies (the control
    shows how much), and where it takes from a gradient all but nothing, as from that of a bias before it
    (hence the share of the largest gradient of all).
    """
    ours, theirs, x = stack
    moved, x_moved = one_ulp_away(theirs, x)
    y, grad_x = run_ours(ours, (x,), lambda shape: np.random.default_rng(7).normal(size=shape))
    g = np.random.default_rng(7).normal(size=y.shape)
    found = {"output": y, "input": grad_x, **{name: p.grad for name, p in ours.named_parameters()}}
    expected, control = results_of_theirs(theirs, x, g), results_of_theirs(moved, x_moved, g)
    assert list(found) == list(expected)
    largest = max(1e-2, *(np.abs(value).max() for value in expected.values()))  # the input's are about 1
    for name, value in expected.items():
        allowed = max(1e-12 * np.abs(value).max(), 100 * np.abs(control[name] - value).max(), 1e-13 * largest)
        assert np.abs(found[name] - value).max() <= allowed, name


@several
@given(stacks())
def test_skipping_the_input_gradient_changes_no_other(stack):
    network, _, x = stack
    again = copy.deepcopy(network)
    y = network(x)
    g = np.random.default_rng(7).normal(size=y.shape)
    network.backward(g)
    again(x)
    assert again.backward(g, input_grad=False) is None
    for p, q in zip(network.parameters(), again.parameters(), strict=True):
        assert_close("gradient", q.grad, p.grad, 0.0)
