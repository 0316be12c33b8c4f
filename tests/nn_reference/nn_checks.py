"""One table of operations, and the checks that every row goes through.

A row is a hypothesis strategy for an `Example`: a module of ours, PyTorch's counterpart, and inputs. Shapes,
arguments and values are drawn; half of the values are rounded so that zeros and ties are common.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import nn_reference as nn


@dataclass
class Example:
    ours: nn.Module
    theirs: Callable[..., torch.Tensor]  # a torch module, or a function of (input, ...)
    x: np.ndarray
    target: np.ndarray | None = None
    upstream_seed: int = 0

    @property
    def inputs(self):
        return (self.x,) if self.target is None else (self.x, self.target)

    def upstream(self, shape):
        """A random gradient, never one that the values of x would make special (a seed of its own stream)."""
        return np.random.default_rng([self.upstream_seed, 1]).normal(size=shape)


@dataclass(frozen=True)
class Operation:
    name: str
    examples: st.SearchStrategy[Example]
    smooth: bool = True  # complex step holds at every input drawn

    def __str__(self):
        return self.name


# -- values ---------------------------------------------------------------------------------------

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 5)


@st.composite
def arrays(draw, shape, ties=True):
    rng = np.random.default_rng(draw(seeds))
    values = rng.normal(scale=2.0, size=shape)
    if ties:
        values = np.where(rng.random(shape) < 0.5, np.round(values), values)
    values.flat[rng.integers(values.size)] = 2.5  # so that no result consists of rounding errors only
    return values


@st.composite
def shapes(draw, least=1, most=4):
    return tuple(draw(st.lists(sizes, min_size=least, max_size=most)))


any_shape = shapes()


def give_same_state(ours, theirs, rng):
    """Random parameters and buffers in both, so that no default (bias 0, weight 1) hides a mistake."""
    for key, value in ours._live_state():
        if key.endswith("running_var"):
            value[...] = rng.uniform(0.5, 2.0, value.shape)
        elif value.dtype.kind == "f" and not key.endswith("pos_weight"):
            value[...] = rng.normal(size=value.shape)
    if isinstance(theirs, torch.nn.Module):
        theirs.load_state_dict({key: torch.from_numpy(value) for key, value in ours.state_dict().items()})


@st.composite
def pairs(draw, make, theirs_of, shape_strategy, ties=True):
    """Examples of a layer: ``make(draw, shape) -> (arguments, keywords)`` for both constructors."""
    shape = draw(shape_strategy)
    args, kwargs = make(draw, shape)
    rng = np.random.default_rng(draw(seeds))
    ours_class, theirs_class = theirs_of
    ours = ours_class(*args, **kwargs).double()
    theirs = theirs_class(*args, **kwargs).double()
    training = draw(st.booleans())
    ours.train(training)
    theirs.train(training)
    give_same_state(ours, theirs, rng)
    return Example(ours, theirs, draw(arrays(shape, ties)), upstream_seed=draw(seeds))


def layer(
    name, make=lambda draw, shape: ((), {}), shape_strategy=any_shape, ties=True, smooth=True, label=None
):
    both = (getattr(nn, name), getattr(torch.nn, name))
    return Operation(label or name, pairs(make, both, shape_strategy, ties), smooth)


# -- layers ---------------------------------------------------------------------------------------


def linear(draw, shape):
    return (shape[-1], draw(sizes)), {"bias": draw(st.booleans())}


@st.composite
def image_shapes(draw):
    batch = draw(st.sampled_from([(), (1,), (2,), (3,)]))
    return (*batch, draw(st.integers(1, 3)) * 2, draw(st.integers(3, 8)), draw(st.integers(3, 8)))


def one_or_two(draw, low, high):
    number = st.integers(low, high)
    return draw(st.one_of(number, st.tuples(number, number)))


def conv2d(draw, shape):
    channels = shape[-3]
    groups = draw(st.sampled_from([g for g in (1, 2, channels) if channels % g == 0]))
    padding = draw(st.sampled_from(["number", "same", "valid"]))
    fit = min(shape[-2:])
    kernel = one_or_two(draw, 1, 3)
    dilation = one_or_two(draw, 1, 2) if fit >= 5 else 1
    keywords = {
        "stride": 1 if padding == "same" else one_or_two(draw, 1, 3),
        "padding": one_or_two(draw, 0, 2) if padding == "number" else padding,
        "dilation": dilation,
        "groups": groups,
        "bias": draw(st.booleans()),
    }
    return (channels, groups * draw(st.integers(1, 3)), kernel), keywords


def pool_sizes(draw):
    kernel = one_or_two(draw, 1, 3)
    keywords = {"ceil_mode": draw(st.booleans()), "padding": draw(st.integers(0, 1))}
    if draw(st.booleans()):
        keywords["stride"] = one_or_two(draw, 1, 3)
    if min(np.atleast_1d(kernel)) < 2:
        keywords["padding"] = 0
    return kernel, keywords


def max_pool2d(draw, shape):
    kernel, keywords = pool_sizes(draw)
    keywords["dilation"] = draw(st.integers(1, 2)) if min(shape[-2:]) >= 5 else 1
    return (kernel,), keywords


def avg_pool2d(draw, shape):
    kernel, keywords = pool_sizes(draw)
    keywords["count_include_pad"] = draw(st.booleans())
    keywords["divisor_override"] = draw(st.sampled_from([None, None, 3]))
    return (kernel,), keywords


def batch_norm(draw, shape):
    keywords = {
        "eps": draw(st.sampled_from([1e-5, 1e-2])),
        "momentum": draw(st.sampled_from([0.1, 0.7, None])),
        "affine": draw(st.booleans()),
        "track_running_stats": draw(st.booleans()),
    }
    return (shape[1],), keywords


batch_shapes_1d = st.one_of(
    st.tuples(st.integers(4, 9), sizes), st.tuples(st.integers(2, 5), sizes, st.integers(2, 5))
)
batch_shapes_2d = st.tuples(st.integers(2, 4), sizes, st.integers(2, 4), st.integers(2, 4))


def flatten(draw, shape):
    start = draw(st.integers(0, len(shape) - 1))
    end = draw(st.integers(start, len(shape) - 1))
    return (start, draw(st.sampled_from([end, end - len(shape)]))), {}


def over_dim(draw, shape):
    return (draw(st.integers(-len(shape), len(shape) - 1)),), {}


@st.composite
def dropouts(draw):
    """Dropout beside a multiplication by the mask that ours has drawn."""
    p = draw(st.sampled_from([0.0, 0.3, 0.5, 1.0]))
    ours = nn.Dropout(p, generator=np.random.default_rng(draw(seeds)))
    ours.train(draw(st.booleans()))
    mask_source = copy.deepcopy(ours.generator)
    x = draw(arrays(draw(shapes())))
    mask = np.ones(x.shape)
    if ours.training and p > 0:
        mask = (mask_source.random(x.shape, dtype=np.float32) >= p) * (1 / (1 - p) if p < 1 else 0.0)
    return Example(ours, lambda t: t * torch.from_numpy(mask), x, upstream_seed=draw(seeds))


LAYERS = [
    layer("Linear", linear),
    layer("ReLU", smooth=False),
    layer("LeakyReLU", lambda draw, shape: ((draw(st.sampled_from([0.01, 0.3, -0.5])),), {}), smooth=False),
    layer("Sigmoid"),
    layer("Tanh"),
    layer("ELU", lambda draw, shape: ((draw(st.sampled_from([1.0, 0.4])),), {}), smooth=False),
    layer("SiLU"),
    layer("GELU"),
    layer("GELU", lambda draw, shape: ((), {"approximate": "tanh"}), label="GELU-tanh"),
    layer("Flatten", flatten),
    layer("Identity"),
    Operation("Dropout", dropouts()),
    layer("Softmax", over_dim),
    layer("LogSoftmax", over_dim),
    layer("BatchNorm1d", batch_norm, batch_shapes_1d, ties=False),
    layer("BatchNorm2d", batch_norm, batch_shapes_2d, ties=False),
    layer("Conv2d", conv2d, image_shapes().filter(lambda s: min(s[-2:]) >= 3)),
    layer("MaxPool2d", max_pool2d, image_shapes(), smooth=False),
    layer("AvgPool2d", avg_pool2d, image_shapes()),
]


# -- losses ---------------------------------------------------------------------------------------

reductions = st.sampled_from(["mean", "sum", "none"])


@st.composite
def classified(draw, name, probabilities=False):
    """Examples of a loss over classes, with weights, ignored labels and extra dimensions."""
    classes = draw(st.integers(2, 6))
    shape = draw(st.sampled_from([(classes,), (4, classes), (3, classes, 2), (2, classes, 3, 2)]))
    axis = min(1, len(shape) - 1)
    items = shape[:axis] + shape[axis + 1 :]
    rng = np.random.default_rng(draw(seeds))
    keywords = {"reduction": draw(reductions)}
    if name == "CrossEntropyLoss":
        # never 1.0: on ties its gradient is exactly zero, and rounding is all there is
        keywords["label_smoothing"] = draw(st.sampled_from([0.0, 0.0, 0.1, 0.9]))
    weight = rng.uniform(0.2, 3.0, classes) if draw(st.booleans()) else None
    x = draw(arrays(shape))
    if probabilities:
        target = np.exp(rng.normal(size=shape))
        target /= target.sum(axis, keepdims=True)
    else:
        target = rng.integers(0, classes, items)
        keywords["ignore_index"] = draw(st.sampled_from([-100, int(rng.integers(classes))]))
        if target.ndim and (target == keywords["ignore_index"]).all():
            target.flat[0] = (keywords["ignore_index"] + 1) % classes
        if not target.ndim:
            keywords["ignore_index"] = -100
    ours = getattr(nn, name)(weight, **keywords)
    theirs = getattr(torch.nn, name)(None if weight is None else torch.from_numpy(weight), **keywords)
    return Example(ours, theirs, x, np.asarray(target), draw(seeds))


@st.composite
def compared(draw, name):
    """Examples of a loss of a difference."""
    shape = draw(shapes())
    keywords = {"reduction": draw(reductions)}
    both = getattr(nn, name)(**keywords), getattr(torch.nn, name)(**keywords)
    return Example(*both, draw(arrays(shape)), draw(arrays(shape)), draw(seeds))


@st.composite
def binary(draw):
    shape = draw(shapes())
    rng = np.random.default_rng(draw(seeds))
    keywords = {
        "weight": rng.uniform(0.2, 3.0, shape[-1]) if draw(st.booleans()) else None,
        "pos_weight": rng.uniform(0.2, 3.0, shape[-1]) if draw(st.booleans()) else None,
    }
    tensors = {key: None if value is None else torch.from_numpy(value) for key, value in keywords.items()}
    reduction = draw(reductions)
    target = rng.random(shape) if draw(st.booleans()) else rng.integers(0, 2, shape).astype(float)
    ours = nn.BCEWithLogitsLoss(**keywords, reduction=reduction)
    theirs = torch.nn.BCEWithLogitsLoss(**tensors, reduction=reduction)
    return Example(ours, theirs, draw(arrays(shape)), target, draw(seeds))


LOSSES = [
    Operation("CrossEntropyLoss", classified("CrossEntropyLoss")),
    Operation("CrossEntropyLoss-probabilities", classified("CrossEntropyLoss", probabilities=True)),
    Operation("NLLLoss", classified("NLLLoss")),
    Operation("MSELoss", compared("MSELoss")),
    Operation("L1Loss", compared("L1Loss"), smooth=False),
    Operation("BCEWithLogitsLoss", binary()),
]
OPERATIONS = LAYERS + LOSSES


# -- checks ---------------------------------------------------------------------------------------


def relative_error(found, expected, scale=0.0):
    """Largest difference over the largest expected value (or ``scale``, if larger); shapes must be equal."""
    assert found.shape == expected.shape
    difference, largest = np.abs(found - expected).max(), max(np.abs(expected).max(), scale)
    return 0.0 if difference == 0 else float(difference / largest) if largest else math.inf


def assert_close(name, found, expected, tolerance, scale=0.0):
    error = relative_error(np.asarray(found), np.asarray(expected), scale)
    assert error <= tolerance, f"{name}: relative error {error:.2e}\nfound {found}\nexpected {expected}"


def freeze(*things):
    """Make arrays, also those within caches, unwritable, so that a change in place raises ValueError."""
    for thing in things:
        if isinstance(thing, np.ndarray):
            thing.flags.writeable = False
        elif isinstance(thing, tuple):
            freeze(*thing)


def run_ours(ours, inputs, upstream):
    """Forward and backward with everything frozen that must not change; returns y, grad_x."""
    freeze(*inputs)
    with nn.Tape(ours) as tape:
        y = ours(*inputs)
    for call in tape.calls:
        freeze(call.cache)
    g = np.asarray(upstream(y.shape), y.dtype)
    freeze(g)
    return y, ours.backward(g)


def assert_agrees_with_autograd(example, tolerance=1e-12):
    ours, theirs = example.ours, example.theirs
    x = torch.from_numpy(example.x.copy()).requires_grad_()
    others = [torch.from_numpy(example.target.copy())] if example.target is not None else []
    their_y = theirs(x, *others)
    y, grad_x = run_ours(ours, example.inputs, example.upstream)
    assert_close("output", y, their_y.detach().numpy(), tolerance)
    their_y.backward(torch.from_numpy(np.asarray(example.upstream(y.shape))))
    assert_close("grad of input", grad_x, x.grad.numpy(), tolerance)
    if isinstance(theirs, torch.nn.Module):
        parameters = dict(theirs.named_parameters())
        assert list(parameters) == [name for name, _ in ours.named_parameters()]
        for name, parameter in ours.named_parameters():
            assert_close(f"grad of {name}", parameter.grad, parameters[name].grad.numpy(), tolerance)
        for name, buffer in theirs.named_buffers():
            assert_close(name, ours.state_dict()[name], buffer.numpy(), tolerance)


def check(operation, examples=100, shrink=True):
    """Let hypothesis look for an example on which the operation and autograd disagree.

    Without ``shrink`` it is to find a mutant: always by the same examples, so that no chance decides.
    """
    phases = (Phase.explicit, Phase.generate, Phase.shrink) if shrink else (Phase.generate,)
    quiet = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]

    @settings(
        max_examples=examples,
        deadline=None,
        phases=phases,
        database=None,
        derandomize=not shrink,
        suppress_health_check=quiet,
    )
    @given(operation.examples)
    def run(example):
        if fits(example):
            assert_agrees_with_autograd(example)

    run()


def fits(example):
    """Whether the drawn kernel fits into the image; if PyTorch says no, so must ours."""
    if not isinstance(example.ours, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        return True
    try:
        example.theirs(torch.from_numpy(example.x.copy()))
    except RuntimeError:
        with pytest.raises(ValueError, match="the kernel spans"):
            example.ours(example.x)
        return False
    return True


def as_dtype(example, dtype):
    """The same example in another dtype: module, input and, where it is not labels, target."""
    ours = copy.deepcopy(example.ours).to(dtype)
    inputs = tuple(a if a.dtype.kind == "i" else a.astype(dtype) for a in example.inputs)
    return ours, inputs
