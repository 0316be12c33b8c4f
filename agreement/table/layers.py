"""The rows of the layers."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

import nn_reference as nn
from agreement.measures import Array
from agreement.mutants.operations import mutants_of
from agreement.table.draw import Draw
from agreement.table.row import (
    PRODUCTS,
    Accuracy,
    Example,
    Kinks,
    Row,
    first_highest,
    from_below,
)

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
EXACT = Accuracy("element", 0.5, "moves or keeps numbers, rounds none")


def example_of(
    name: str, args: tuple[Any, ...], keywords: dict[str, Any], draw: Draw, shape: tuple[int, ...], ties: bool
) -> Example:
    """Return a layer of that name, training or not, with random parameters and buffers, and an input."""
    ours: nn.Module = getattr(nn, name)(*args, **keywords).double()
    ours.train(draw.choice((True, True, False)))
    state = ours.state_dict()
    for key, value in state.items():  # no default (bias 0, weight 1), which would hide a mistake
        if key.endswith("running_var"):
            value[...] = draw.spread(value.shape, 0.5, 2.0)
        elif value.dtype.kind == "f":
            value[...] = draw.rng.normal(size=value.shape)
    ours.load_state_dict(state)
    return Example(
        ours, lambda: torch_layer(name, args, keywords, ours), (draw.values(shape, ties),), draw.seed
    )


def torch_layer(name: str, args: tuple[Any, ...], keywords: dict[str, Any], ours: nn.Module) -> Any:
    """Return ``torch.nn``'s layer of that name in float64, in the mode and with the state of ``ours``."""
    import torch

    theirs = getattr(torch.nn, name)(*args, **keywords).double()
    theirs.load_state_dict({key: torch.from_numpy(value) for key, value in ours.state_dict().items()})
    return theirs.train(ours.training)


def layer(
    name: str,
    float32: Accuracy,
    make: Callable[[Draw, tuple[int, ...]], Arguments] = lambda draw, shape: ((), {}),
    *,
    arguments: str = "none",
    shape: Callable[[Draw], tuple[int, ...]] = Draw.shape,
    ties: bool = True,
    label: str | None = None,
    **rest: Any,
) -> Row:
    """Return the row of a layer of both libraries whose constructors take ``make(draw, shape)``."""

    def draw_example(draw: Draw) -> Example:
        drawn_shape = shape(draw)
        args, keywords = make(draw, drawn_shape)
        return example_of(name, args, keywords, draw, drawn_shape, ties)

    label = label or name
    return Row(label, draw_example, arguments, float32, mutants=mutants_of(label), **rest)


# -- arguments ------------------------------------------------------------------------------------


def _linear(draw: Draw, shape: tuple[int, ...]) -> Arguments:
    return (shape[-1], draw.size()), {"bias": draw.choice((True, True, False))}


def _flatten(draw: Draw, shape: tuple[int, ...]) -> Arguments:
    start = draw.integer(0, len(shape) - 1)
    end = draw.integer(start, len(shape) - 1)
    return (start, draw.choice((end, end - len(shape)))), {}


def _over_dim(draw: Draw, shape: tuple[int, ...]) -> Arguments:
    return (draw.integer(-len(shape), len(shape) - 1),), {}


def _batch_norm(draw: Draw, shape: tuple[int, ...]) -> Arguments:
    keywords = {
        "eps": draw.choice((1e-5, 1e-2)),
        "momentum": draw.choice((0.1, 0.7, None)),
        "affine": draw.choice((True, True, False)),
        "track_running_stats": draw.choice((True, True, False)),
    }
    return (shape[1],), keywords


def _batch_norm_1d_shape(draw: Draw) -> tuple[int, ...]:
    size = draw.integer if draw.edges else draw.size  # edges, but never one value in a channel
    if draw.flag():
        return (size(4, 9), draw.size(2, 5))
    return (size(3, 5), draw.size(2, 5), size(2, 5))


def _batch_norm_2d_shape(draw: Draw) -> tuple[int, ...]:
    size = draw.integer if draw.edges else draw.size
    return (size(2, 4), draw.size(2, 5), size(2, 4), size(2, 4))


def dropout(draw: Draw) -> Example:
    """Dropout, beside a multiplication by the mask that ours will draw."""
    p = draw.choice((0.0, 0.3, 0.5, 0.3, 0.5, 1.0))
    ours = nn.Dropout(p, generator=np.random.default_rng(draw.seed))
    ours.train(draw.choice((True, True, False)))
    x = draw.values(draw.shape())
    mask: Array = np.ones(x.shape)
    if ours.training and p > 0:
        kept = copy.deepcopy(ours.generator).random(x.shape, dtype=np.float32) >= p
        mask = kept * (1 / (1 - p) if p < 1 else 0.0)

    def theirs() -> Callable[..., Any]:
        import torch

        return lambda t: t * torch.from_numpy(mask).to(t.dtype)

    return Example(ours, theirs, (x,), draw.seed)


# -- images ---------------------------------------------------------------------------------------


def conv2d(draw: Draw, shape: tuple[int, ...]) -> Arguments:
    """Return arguments of a convolution whose kernel may not fit into the image."""
    channels = shape[-3]
    groups = draw.choice([g for g in (1, 2, channels) if channels % g == 0])
    padding = draw.choice(("number", "same", "valid"))
    wide = min(shape[-2:]) >= 5
    kernel = draw.one_or_two(1, 3)
    dilation = draw.one_or_two(1, 2) if wide else 1
    keywords = {
        "stride": 1 if padding == "same" else draw.one_or_two(1, 3),
        "padding": draw.one_or_two(0, 2) if padding == "number" else padding,
        "dilation": dilation,
        "groups": groups,
        "bias": draw.choice((True, True, False)),
    }
    outputs = [groups * n for n in range(1, 7) if draw.edges or groups * n not in shape]
    return (channels, draw.choice(outputs[:3]), kernel), keywords


def _pool_sizes(draw: Draw) -> tuple[int | tuple[int, int], dict[str, Any]]:
    kernel = draw.one_or_two(draw.choice((1, 2, 2)), 3)  # 1 has neither overlap nor padding
    keywords: dict[str, Any] = {"ceil_mode": draw.flag(), "padding": draw.integer(0, 1)}
    if draw.flag():  # often less than the kernel, so that windows overlap
        keywords["stride"] = draw.one_or_two(1, draw.choice((1, 2, 3)))
    if np.min(kernel) < 2:
        keywords["padding"] = 0
    return kernel, keywords


def max_pool2d(draw: Draw, shape: tuple[int, ...]) -> Arguments:
    """Return arguments of a max pooling whose kernel may not fit into the image."""
    kernel, keywords = _pool_sizes(draw)
    keywords["dilation"] = draw.integer(1, 2) if min(shape[-2:]) >= 5 else 1
    return (kernel,), keywords


def avg_pool2d(draw: Draw, shape: tuple[int, ...]) -> Arguments:
    """Return arguments of an average pooling whose kernel may not fit into the image."""
    kernel, keywords = _pool_sizes(draw)
    keywords["count_include_pad"] = draw.flag()
    keywords["divisor_override"] = draw.choice((None, None, 3))
    return (kernel,), keywords


def fits(name: str, args: tuple[Any, ...], keywords: dict[str, Any], shape: tuple[int, ...]) -> bool:
    """Whether a layer with these arguments takes images of this shape."""
    try:
        with nn.no_grad():
            getattr(nn, name)(*args, **keywords)(np.zeros(shape, np.float32))
    except ValueError:
        return False
    return True


def image_layer(
    name: str,
    float32: Accuracy,
    make: Callable[[Draw, tuple[int, ...]], Arguments],
    *,
    arguments: str,
    **rest: Any,
) -> Row:
    """Return the row of a layer of images; arguments are drawn until the kernel fits."""

    def fitting(draw: Draw, shape: tuple[int, ...]) -> Arguments:
        while True:
            args, keywords = make(draw, shape)
            if fits(name, args, keywords, shape):
                return args, keywords

    return layer(name, float32, fitting, arguments=arguments, shape=Draw.images, **rest)


# -- the rows -------------------------------------------------------------------------------------

_SIGMOID = "three or four roundings, and the last digit of exp; 1 - y cancels where the gradient is small"
_BATCH_NORM = "x - mean cancels, and what is left is divided by a standard deviation that may be small"

LAYERS = (
    layer("Linear", PRODUCTS, _linear, arguments="in, out, bias; any leading axes", sums=True),
    layer(
        "ReLU",
        EXACT,
        smooth=False,
        kinks=Kinks("x = 0", "from below: 0", (from_below,)),
    ),
    layer(
        "LeakyReLU",
        Accuracy("element", 3, "one product, with a slope that is rounded"),
        lambda draw, shape: ((draw.choice((0.01, 0.3, -0.5)),), {}),
        arguments="negative_slope, a negative one too",
        smooth=False,
        kinks=Kinks("x = 0", "from below: negative_slope", (from_below,)),
    ),
    layer("Sigmoid", Accuracy("tensor", 8, _SIGMOID)),
    layer("Tanh", Accuracy("tensor", 8, "a few roundings; 1 - y^2 cancels where the gradient is small")),
    layer(
        "ELU",
        Accuracy("element", 8, "one exp or expm1 and two products"),
        lambda draw, shape: ((draw.choice((1.0, 0.4)),), {}),
        arguments="alpha",
        smooth=False,
        kinks=Kinks("x = 0, unless alpha = 1", "from below: alpha", (from_below,)),
    ),
    layer("SiLU", Accuracy("tensor", 8, "the two terms of the derivative cancel near x = -1.28")),
    layer(
        "GELU", Accuracy("tensor", 16, "Phi is good to a few u of 1, and the two terms cancel near x = -0.75")
    ),
    layer(
        "GELU",
        Accuracy(
            "tensor",
            48,
            "exp magnifies the rounding of its argument, and the two terms cancel near x = -0.75",
        ),
        lambda draw, shape: ((), {"approximate": "tanh"}),
        arguments='approximate="tanh"',
        label="GELU-tanh",
    ),
    layer("Flatten", EXACT, _flatten, arguments="start_dim, end_dim, counted from either end"),
    layer("Identity", EXACT),
    Row(
        "Dropout",
        dropout,
        "p, 0 and 1 too; training and evaluation",
        Accuracy("element", 3, "one product with a scale that is rounded"),
        mutants=mutants_of("Dropout"),
    ),
    layer(
        "Softmax",
        Accuracy("tensor", 16, "exp turns the rounding of x - max(x), some u, into a relative error"),
        _over_dim,
        arguments="dim, from either end",
    ),
    layer(
        "LogSoftmax",
        Accuracy("tensor", 16, "exp(y) turns the rounding of y, some u, into a relative error"),
        _over_dim,
        arguments="dim, from either end",
    ),
    layer(
        "BatchNorm1d",
        Accuracy("tensor", 32, _BATCH_NORM),
        _batch_norm,
        arguments="eps, momentum, affine, track_running_stats; training and evaluation",
        shape=_batch_norm_1d_shape,
        ties=False,  # a channel of equal values has no variance
        domain="two different values in each channel",
    ),
    layer(
        "BatchNorm2d",
        Accuracy("tensor", 32, _BATCH_NORM),
        _batch_norm,
        arguments="eps, momentum, affine, track_running_stats; training and evaluation",
        shape=_batch_norm_2d_shape,
        ties=False,  # a channel of equal values has no variance
        domain="two different values in each channel",
    ),
    image_layer(
        "Conv2d",
        PRODUCTS,
        conv2d,
        arguments='channels, kernel_size, stride, padding ("same" too), dilation, groups, bias',
    ),
    image_layer(
        "MaxPool2d",
        Accuracy("tensor", 8, "the largest pixel is exact; its gradient is a sum of up to 9"),
        max_pool2d,
        arguments="kernel_size, stride, padding, dilation, ceil_mode",
        smooth=False,
        kinks=Kinks("two pixels of a window are largest", "that of the first alone", (first_highest,)),
    ),
    image_layer(
        "AvgPool2d",
        PRODUCTS,
        avg_pool2d,
        arguments="kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override",
    ),
)
