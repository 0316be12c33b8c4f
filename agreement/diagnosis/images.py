"""The subjects of images: convolution and pooling."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import nn_reference as nn
from agreement.diagnosis.chain import Chain, Link, own
from agreement.diagnosis.layers import AFFINE, layer
from agreement.diagnosis.subject import Probe, Suspect, batch_first
from agreement.measures import Array
from agreement.mutants.operations import mutants_of

CONV_OPTIONS = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
CONV_NAMES = {
    "weight": ["w", "W", "weights", "kernel", "kernels", "filters", "K", "k", "F", "f", "filt"],
    "stride": ["s", "step", "strides"],
    "padding": ["pad", "p"],
    "dilation": ["dil", "d"],
    "kernel_size": ["kernel", "size", "k", "pool_size", "window", "ksize", "pool", "ks", "pool_k"],
    "in_channels": ["c_in", "channels", "in_c", "cin"],
    "out_channels": ["c_out", "out_c", "cout", "n_filters", "num_filters"],
}


def _conv_draw(rng: np.random.Generator, i: int) -> Probe:
    shapes = ((3, 2, 5, 6), (3, 2, 5, 6), (4, 3, 7, 6), (3, 2, 7, 8), (3, 4, 6, 5))
    kernels = ((4, 2, 3, 2), (4, 2, 3, 2), (2, 3, 3, 2), (5, 2, 2, 3), (6, 2, 2, 3))
    options = ({}, {}, {"stride": 2, "padding": 1}, {"dilation": 2}, {"groups": 2})[i]
    shape, kernel = shapes[i], kernels[i]
    args = {
        "x": batch_first(rng, *shape),
        "weight": rng.normal(size=kernel),
        "bias": rng.normal(size=kernel[0]),
    }
    probe = Probe(args, np.zeros(()), {**CONV_OPTIONS, **options}, ("weight", "bias"), (), {}, i, shape[0])
    with nn.no_grad():
        out = _conv(probe).double()(args["x"]).shape
    sizes = {"in_channels": shape[1], "out_channels": kernel[0], "kernel_size": kernel[2:]}
    return Probe(args, rng.normal(size=out), probe.options, ("weight", "bias"), (), sizes, i, shape[0])  # type: ignore[arg-type]


def _conv(probe: Probe) -> nn.Module:
    out, inner, *kernel = probe.args["weight"].shape
    options = {key: probe.options[key] for key in CONV_OPTIONS}
    return nn.Conv2d(inner * options["groups"], out, tuple(kernel), **options)


def _plain(p: Probe) -> bool:
    return all(p.options[key] == value for key, value in CONV_OPTIONS.items())


def _windows(
    p: Probe, kernel: tuple[int, ...], stride: int | None = None
) -> Iterator[tuple[tuple[int, int], tuple[slice, slice]]]:
    """Give each output pixel and its window of the padded image, in reading order."""
    stride, step = stride or p.options["stride"], p.options.get("dilation", 1)
    for r in range(p.upstream.shape[2]):
        for c in range(p.upstream.shape[3]):
            down, across = (
                slice(k * stride, k * stride + (size - 1) * step + 1, step)
                for k, size in zip((r, c), kernel, strict=True)
            )
            yield (r, c), (down, across)


def _overwritten(p: Probe, row: str, part: Callable[[Array, Array], Array]) -> Array:
    """Return grad_x when each window, in reading order, overwrites what the ones before it gave.

    ``part(window, grad)`` gives the window's gradient from that of its output, (N, C'); NaN: not written.
    """
    size, x, border = p.options.get("kernel_size"), p.args["x"], p.options["padding"]
    kernel = p.args["weight"].shape[2:] if row == "Conv2d" else (size, size)
    around = ((0, 0), (0, 0), (border, border), (border, border))
    padded = np.pad(x, around, constant_values=-np.inf if row == "MaxPool2d" else 0.0)
    canvas = np.zeros_like(padded)
    for (r, c), place in _windows(p, kernel):
        found = part(padded[:, :, *place], p.upstream[:, :, r, c])
        canvas[:, :, *place] = np.where(np.isnan(found), canvas[:, :, *place], found)
    return canvas[:, :, border : border + x.shape[2], border : border + x.shape[3]]


def _overwriting(chain: Chain, row: str, mutant: str, part: Callable[..., Array]) -> Suspect:
    """Return a mutant's mistake as a loop over the outputs makes it, not one over the kernel."""
    same = next(m for m in mutants_of(row) if m.name == mutant)

    def change(p: Probe, t: Any) -> Any:
        return {"grad of x": _overwritten(p, row, lambda window, g: part(p, window, g))}

    return own(same.name, same.mistake, same.wrong, chain.everything, change)


def _conv_part(p: Probe, window: Array, g: Array) -> Array:
    weight, groups = p.args["weight"], p.options["groups"]
    split = weight.reshape(groups, -1, *weight.shape[1:])
    found = np.einsum("ngo,goikl->ngikl", g.reshape(len(g), groups, -1), split)
    return found.reshape(window.shape)


def _first_largest(window: Array) -> Array:
    flat = window.reshape(*window.shape[:2], -1)
    return (np.arange(flat.shape[-1]) == flat.argmax(-1)[..., None]).reshape(window.shape)


def _winner_part(p: Probe, window: Array, g: Array) -> Array:
    return np.where(_first_largest(window), g[:, :, None, None], np.nan)


def _window_part(p: Probe, window: Array, g: Array) -> Array:
    return np.where(_first_largest(window), g[:, :, None, None], 0.0)


def _mean_part(p: Probe, window: Array, g: Array) -> Array:
    divisor = p.options.get("divisor_override") or window.shape[2] * window.shape[3]
    return np.broadcast_to((g / divisor)[:, :, None, None], window.shape)


def _first_pixel(p: Probe) -> Array:
    border, (height, width) = p.options["padding"], p.args["x"].shape[2:]
    grad = np.zeros((*p.args["x"].shape[:2], height + 2 * border, width + 2 * border))
    for (r, c), (down, across) in _windows(p, (1, 1)):
        grad[:, :, down, across] += p.upstream[:, :, r : r + 1, c : c + 1]
    return grad[:, :, border : border + height, border : border + width]


def _mean_extra(chain: Chain) -> list[Suspect]:
    return [_overwriting(chain, "AvgPool2d", "AvgPool2d: average overwritten", _mean_part)]


def _without_stride(p: Probe) -> dict[str, Array]:
    """Return the gradients of a backward whose windows are neighbours, whatever the stride."""
    x, weight, border, groups = p.args["x"], p.args["weight"], p.options["padding"], p.options["groups"]
    padded = np.pad(x, ((0, 0), (0, 0), (border, border), (border, border)))
    grad_x, grad_weight = np.zeros_like(padded), np.zeros_like(weight)
    for (r, c), place in _windows(p, weight.shape[2:], stride=1):
        g, window = p.upstream[:, :, r, c], padded[:, :, *place]
        grad_x[:, :, *place] += _conv_part(p, window, g)
        split = np.einsum(
            "ngo,ngikl->goikl",
            g.reshape(len(g), groups, -1),
            window.reshape(len(g), groups, -1, *window.shape[2:]),
        )
        grad_weight += split.reshape(weight.shape)
    inner = grad_x[:, :, border : border + x.shape[2], border : border + x.shape[3]]
    return {"grad of x": inner, "grad of weight": grad_weight}


def _stride_extra(chain: Chain) -> list[Suspect]:
    """Return the stride forgotten in the weight's gradient, and in both; in x's alone it is a mutant."""
    same = next(m for m in mutants_of("Conv2d") if m.name == "Conv2d: stride forgotten")

    def of(where: str, parts: tuple[str, ...]) -> Suspect:
        def change(p: Probe, t: Any) -> Any:
            return {name: value for name, value in _without_stride(p).items() if name in parts}

        return own(same.name + where, same.mistake, same.wrong, chain.everything, change)

    return [of("", ("grad of x", "grad of weight")), of(", for the weight", ("grad of weight",))]


def _conv_extra(chain: Chain) -> list[Suspect]:
    def convolved(p: Probe) -> Any:
        turned = {**p.args, "weight": p.args["weight"][..., ::-1, ::-1].copy()}
        from dataclasses import replace

        return {"output": chain.evaluate(replace(p, args=turned))["output"]}

    def turned_both(p: Probe) -> Any:
        turned = {**p.args, "weight": p.args["weight"][..., ::-1, ::-1].copy()}
        from dataclasses import replace

        found = chain.evaluate(replace(p, args=turned))
        return {**found, "grad of weight": found["grad of weight"][..., ::-1, ::-1]}

    def channel_lost(p: Probe) -> Any:
        x, w, g = p.args["x"], p.args["weight"], p.upstream
        if not _plain(p):
            return {}
        grad = np.zeros_like(w)
        for r in range(g.shape[2]):
            for c in range(g.shape[3]):
                patch = x[:, :, r : r + w.shape[2], c : c + w.shape[3]]
                grad += np.einsum("no,nikl->oikl", g[:, :, r, c], patch) if (r, c) == (0, 0) else 0
        return {"grad of weight": grad}

    return [
        *_stride_extra(chain),
        _overwriting(chain, "Conv2d", "Conv2d: overwritten where windows overlap", _conv_part),
        own(
            "the kernel turned in the forward",
            "Forward slides the kernel turned by 180 degrees: a true convolution, where networks correlate.",
            "y[r] = sum_i x[r + i] weight[k - 1 - i]",
            chain.everything,
            lambda p, t: convolved(p),
        ),
        own(
            "the kernel turned in both directions",
            "Forward and backward slide the kernel turned by 180 degrees: a true convolution, where "
            "networks correlate.",
            "y[r] = sum_i x[r + i] weight[k - 1 - i]",
            chain.everything,
            lambda p, t: turned_both(p),
        ),
        own(
            "the bias is forgotten in the forward",
            "The output is the correlation alone: the bias is not added.",
            "y = x * weight",
            chain.everything,
            lambda p, t: {"output": t["output"] - p.args["bias"].reshape(1, -1, 1, 1)},
        ),
        own(
            "the kernel's gradient of one place",
            "The kernel's gradient has only what one place of the window gives; it is used at every place.",
            "grad_weight = what the window at [0, 0] gives",
            chain.everything,
            lambda p, t: channel_lost(p),
        ),
        own(
            "the bias summed over images alone",
            "The bias's gradient is a map: the pixels of a channel share the bias, too.",
            "grad_bias = sum_n grad_y[n]    (C, H, W)",
            chain.everything,
            lambda p, t: {"grad of bias": p.upstream.sum(0)},
        ),
        own(
            "the bias summed over pixels alone",
            "The bias's gradient has a row for each image: the images of a batch share the bias, too.",
            "grad_bias = sum over pixels of grad_y    (N, C)",
            chain.everything,
            lambda p, t: {"grad of bias": p.upstream.sum((2, 3))},
        ),
        own(
            "the mean over images and pixels in the bias",
            "The bias's gradient is a mean where it should be a sum over all images and pixels.",
            "grad_bias = mean of grad_y over images and pixels",
            chain.everything,
            lambda p, t: {"grad of bias": p.upstream.mean((0, 2, 3))},
        ),
        own(
            "images swapped in height and width",
            "Height and width of the kernel's gradient have changed places.",
            "grad_weight[..., j, i]",
            chain.everything,
            lambda p, t: {"grad of weight": t["grad of weight"].swapaxes(-1, -2)},
        ),
    ]


CONV_WORDS = {
    "grad of x": (
        "A pixel is seen by several windows, and collects the gradients of all outputs that it has a part "
        "in.",
        "dL/dx[n, c, u, v] = sum over o, r, s of dL/dy[n, o, r, s] · dy[n, o, r, s]/dx[n, c, u, v]"
        "      (N, C, H, W), from (N, C', H', W')",
    ),
    "grad of weight": (
        "The same kernel is used at every place of every image, so its gradient is a sum over places and "
        "images.",
        "dL/dweight[o, c, i, j] = sum over n, r, s of dL/dy[n, o, r, s] · dy[n, o, r, s]/dweight[o, c, i, j]"
        "      (C', C, kh, kw), from (N, C', H', W')",
    ),
    "grad of bias": (
        "The bias of a channel is added at every place of every image.",
        "dL/dbias[o] = sum over n, r, s of dL/dy[n, o, r, s] · dy[n, o, r, s]/dbias[o]"
        "      (C',), from (N, C', H', W')",
    ),
}

# -- pooling --------------------------------------------------------------------------------------------

POOL_OPTIONS: dict[str, Any] = {"kernel_size": 2, "stride": None, "padding": 0}


def _pool_draw(kind: str) -> Any:
    def draw(rng: np.random.Generator, i: int) -> Probe:
        shapes = ((3, 2, 6, 4), (3, 2, 6, 4), (4, 3, 8, 6), (3, 2, 7, 8), (3, 4, 5, 7), (3, 2, 6, 8))
        options = (
            {},
            {},
            {},
            {"kernel_size": 3, "stride": 2},
            {"kernel_size": 2, "stride": 1},
            {"kernel_size": 3, "stride": 2, "padding": 1},
        )[i]
        if kind == "AvgPool2d" and i == 4:
            options = {**options, "divisor_override": 3}
        x = batch_first(rng, *shapes[i])
        x = np.where(rng.random(x.shape) < 0.6, np.round(x), x)  # ties
        upstream_of = Probe({"x": x}, np.zeros(()), {**POOL_OPTIONS, **options})
        with nn.no_grad():
            out = _pool(kind)(upstream_of)(x).shape
        given = {**POOL_OPTIONS, **options}
        given["stride"] = given["kernel_size"] if given["stride"] is None else given["stride"]
        return Probe({"x": x}, rng.normal(size=out), given, batch=len(x), seed=i)

    return draw


def _pool(kind: str) -> Any:
    def make(probe: Probe) -> nn.Module:
        return getattr(nn, kind)(**probe.options)

    return make


def _max_extra(chain: Chain) -> list[Suspect]:
    def plain(p: Probe) -> bool:
        k = p.options["kernel_size"]
        return bool(
            p.options["stride"] == k
            and not p.options["padding"]
            and p.upstream.shape[2] * k == p.args["x"].shape[2]
            and p.upstream.shape[3] * k == p.args["x"].shape[3]
        )

    def spread(p: Probe) -> Array:
        k = p.options["kernel_size"]
        return np.repeat(np.repeat(p.upstream, k, 2), k, 3)

    def last(p: Probe) -> Array:
        """Return the gradient given to the last of the largest."""
        from dataclasses import replace

        turned = replace(
            p, args={"x": p.args["x"][..., ::-1, ::-1].copy()}, upstream=p.upstream[..., ::-1, ::-1].copy()
        )
        return chain.evaluate(turned)["grad of x"][..., ::-1, ::-1]

    return [
        _overwriting(chain, "MaxPool2d", "MaxPool2d: maximum overwritten", _winner_part),
        _overwriting(chain, "MaxPool2d", "MaxPool2d: maximum overwritten", _window_part),
        own(
            "the first pixel of the window",
            "The gradient goes to the same corner of every window, whichever pixel was the largest.",
            "grad_x = grad_y at [0, 0] of the window",
            chain.everything,
            lambda p, t: {"grad of x": _first_pixel(p)},
        ),
        own(
            "all pixels of the window",
            "Every pixel of the window gets the gradient, not the largest alone.",
            "grad_x = grad_y, at every pixel of the window",
            chain.everything,
            lambda p, t: {"grad of x": spread(p)} if plain(p) else {},
        ),
        own(
            "the last of the largest",
            "Of equal pixels the last one gets the gradient; by the convention of PyTorch it is the first.",
            "the last of the largest pixels gets grad_y",
            chain.everything,
            lambda p, t: {"grad of x": last(p)} if plain(p) else {},
        ),
        own(
            "multiplied by the maximum",
            "The gradient is multiplied by the maximum itself; the derivative of a maximum is 1 where it is "
            "taken.",
            "grad_x = grad_y y, at the largest",
            chain.everything,
            lambda p, t: {
                "grad of x": chain.evaluate(_scaled(p, t["output"]))["grad of x"],
            },
        ),
        own(
            "the mean in the forward",
            "The forward takes the mean of the window, not its maximum.",
            "y = mean of the window",
            chain.everything,
            lambda p, t: {"output": _mean(p)} if plain(p) else {},
        ),
    ]


def _scaled(p: Probe, by: Array) -> Probe:
    from dataclasses import replace

    return replace(p, upstream=p.upstream * by)


def _mean(p: Probe) -> Array:
    k = p.options["kernel_size"]
    n, c, h, w = p.args["x"].shape
    return p.args["x"].reshape(n, c, h // k, k, w // k, k).mean((3, 5))


MAX_WORDS = {
    "grad of x": (
        "Moving a pixel that is not the largest of its window by a little moves no output.",
        "dL/dx[n, c, u, v] = sum over r, s of dL/dy[n, c, r, s] · dy[n, c, r, s]/dx[n, c, u, v]"
        "      (N, C, H, W), from (N, C, H', W')",
    )
}
MEAN_WORDS = {
    "grad of x": (
        "Each pixel of a window has the same part in its mean.",
        MAX_WORDS["grad of x"][1],
    )
}

IMAGES = [
    layer(
        "conv2d",
        "convolution",
        Link(_conv, "Conv2d", AFFINE),
        _conv_draw,
        variants=5,
        extra=_conv_extra,
        aliases=CONV_NAMES,
        options=CONV_OPTIONS,
        explain=CONV_WORDS,
        names=("conv", "convolution"),
    ),
    layer(
        "max_pool2d",
        "max pooling",
        Link(_pool("MaxPool2d"), "MaxPool2d", {}),
        _pool_draw("MaxPool2d"),
        variants=6,
        extra=_max_extra,
        aliases=CONV_NAMES,
        options={**POOL_OPTIONS, "stride": 2},
        explain=MAX_WORDS,
        names=("maxpool", "max_pool", "pool"),
    ),
    layer(
        "avg_pool2d",
        "average pooling",
        Link(_pool("AvgPool2d"), "AvgPool2d", {}),
        _pool_draw("AvgPool2d"),
        variants=6,
        extra=_mean_extra,
        aliases={**CONV_NAMES, "divisor_override": ["divisor"]},
        options={**POOL_OPTIONS, "stride": 2, "divisor_override": None},
        explain=MEAN_WORDS,
        names=("avgpool", "avg_pool", "pool", "mean_pool"),
    ),
]
