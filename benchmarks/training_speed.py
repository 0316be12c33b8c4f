"""Time of a training epoch: the NumPy engine, PyTorch, scikit-learn, what else is installed, and the floor.

    make bench                                        # the table and the picture, in build/bench
    python benchmarks/training_speed.py --networks 784-128-10 --batches 64 --contenders numpy torch
    python benchmarks/training_speed.py --scaling     # batch, width, depth and amount of data, one at a time

Every round lets each contender train for one epoch, in turns, so that what else the machine does meets all of
them; medians, quartiles and ratios are over the rounds, each ratio within one round. An epoch includes its
shuffling and batching. All have float32, Adam with 1e-3, cross-entropy, ReLU, their own start; the data are
random bytes of which a fifth is not 0, as many as --images says, touched before the clock starts.
"""

import argparse
import importlib.util
import itertools
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

Epoch = Callable[[], None]
NETWORKS = ("784-128-10", "784-120-84-10", "784-512-256-128-10")
COLOURS = ("#0072b2", "#56b4e9", "#d55e00", "#e69f00", "#cc79a7", "#009e73", "#999999", "#000000", "#f0e442")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS, metavar="WIDTHS")
    parser.add_argument("--batches", nargs="+", type=int, default=[64, 512])
    parser.add_argument("--contenders", nargs="+", choices=list(CONTENDERS), metavar="NAME")
    parser.add_argument("--images", type=int, default=12_800)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--threads", type=int, default=1, help="of BLAS and PyTorch; --workers are two processes"
    )
    parser.add_argument("--scaling", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    arguments = parser.parse_args()
    for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ[variable] = str(arguments.threads)
    names = arguments.contenders or [name for name in CONTENDERS if name not in LEFT_OUT]
    missing = [name for name in names if not is_installed(NEEDS.get(name, "numpy"))]
    print(f"Not installed, left out: {', '.join(missing)}" if missing else "All contenders are here.")
    names = [name for name in names if name not in missing]
    if "torch" in sys.modules or is_installed("torch"):
        import torch

        torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    cases = scaling() if arguments.scaling else None
    cases = cases or [("", w, b, arguments.images) for w in arguments.networks for b in arguments.batches]
    if arguments.scaling:
        names = [name for name in names if name in ("numpy", "torch", "floor")]
    results = []
    for group, widths, batch, images in cases:
        sizes = [int(width) for width in widths.split("-")]
        times = measure(names, sizes, batch, images, arguments.rounds)
        results.append(
            {"group": group, "network": widths, "batch": batch, "images": images, "seconds": times}
        )
        print(table(results[-1]), flush=True)
    stem = f"{'scaling' if arguments.scaling else 'training'}-{arguments.threads}-threads"
    (arguments.out / f"{stem}.json").write_text(json.dumps(results, indent=1), "utf-8")
    (arguments.out / f"{stem}.md").write_text("\n\n".join(map(table, results)) + "\n", "utf-8")
    draw(results, arguments.out / f"{stem}.png")
    print(f"\n{arguments.out}/{stem}.json, .md, .png")


def scaling() -> list[tuple[str, str, int, int]]:
    """One thing grows at a time, from 784-128-10 at a batch of 64 and 6,400 images."""
    cases = [("batch", "784-128-10", batch, 2 * max(batch, 3200)) for batch in (16, 64, 256, 1024, 4096)]
    cases += [("width", f"784-{width}-10", 64, 1280) for width in (32, 128, 512, 1024, 4096)]
    cases += [("depth", "-".join(["784", *["128"] * depth, "10"]), 64, 6400) for depth in (1, 2, 4, 8)]
    return cases + [("data", "784-128-10", 64, 3200 * times) for times in (1, 2, 4, 8, 16)]


def is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def measure(
    names: list[str], widths: list[int], batch: int, count: int, rounds: int
) -> dict[str, list[float]]:
    """Return the seconds of each contender's epoch in every round, after one that is not counted."""
    import numpy as np

    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, (count, widths[0]), np.uint8)
    images *= rng.random(images.shape, np.float32) < 0.2
    labels = rng.integers(0, widths[-1], count)
    epochs, closers = {}, []
    for name in names:
        made = CONTENDERS[name](widths, batch, images, labels)
        epochs[name], close = made if isinstance(made, tuple) else (made, lambda: None)
        closers.append(close)
    for epoch in epochs.values():
        epoch()
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, epoch in epochs.items():
            started = time.perf_counter()
            epoch()
            times[name].append(time.perf_counter() - started)
    for close in closers:
        close()
    return times


# The contenders: each takes widths, batch size, images (N, 784) in uint8 and labels (N,), and returns a
# function that trains for an epoch (and, perhaps, one that lets its processes go).


def numpy_engine(workers: int) -> Callable[..., Any]:
    """`chainrule train --engine numpy --workers N`, without its progress bar."""

    def make(widths: list[int], batch: int, images: Any, labels: Any) -> Any:
        return engine_epoch("numpy", widths, batch, images, labels, workers)

    return make


def torch_engine(widths: list[int], batch: int, images: Any, labels: Any) -> Any:
    """`chainrule train --engine torch`."""
    return engine_epoch("torch", widths, batch, images, labels, 1)


def engine_epoch(name: str, widths: list[int], batch: int, images: Any, labels: Any, workers: int) -> Any:
    from chainrule import engines, recipe, training

    layers = []
    for i, width in enumerate(widths[1:], 1):
        layers.append(f'{{ name = "fc{i}", type = "Linear", out_features = {width} }}')
        if i < len(widths) - 1:
            layers.append(f'{{ name = "relu{i}", type = "ReLU" }}')
    text = f"""summary = "benchmark"\nlayers = [{", ".join(layers)}]
        [input]\nshape = [{widths[0]}]\nmean = 0.0\nstd = 1.0
        [training]\nloss = {{ type = "CrossEntropyLoss" }}\noptimizer = {{ type = "Adam", lr = 1e-3 }}
        batch_size = {batch}\nepochs = 1\nseed = 0\n"""
    plan = recipe.parse(text, name="benchmark", source="benchmark")
    engine: Any = engines.build(plan, name, seed=0, **({"workers": workers} if workers > 1 else {}))
    data = engine.put(images, labels, plan.mean, plan.std)
    numbers = itertools.count(1)

    def epoch() -> None:
        total: Any = 0.0
        for indices in training.batches(len(labels), batch, 0, next(numbers)):
            loss, _, _ = engine.train_step(data, indices)
            total = total + loss
        float(total)

    return epoch, getattr(engine, "close", lambda: None)


def torch_network(widths: list[int]) -> Any:
    import torch

    layers: list[Any] = []
    for a, b in itertools.pairwise(widths):
        layers += [torch.nn.Linear(a, b), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def torch_eager(widths: list[int], batch: int, images: Any, labels: Any, compiled: bool = False) -> Epoch:
    """PyTorch as one writes it who knows it: tensors made once, batches by index."""
    import torch

    network = torch_network(widths)
    criterion, optimizer = torch.nn.CrossEntropyLoss(), torch.optim.Adam(network.parameters())
    forward = torch.compile(network) if compiled else network
    x, y = torch.from_numpy(images).float() / 255, torch.from_numpy(labels)

    def epoch() -> None:
        total = torch.zeros(())
        order = torch.randperm(len(y))
        for i in range(0, len(y), batch):
            indices = order[i : i + batch]
            loss = criterion(forward(x[indices]), y[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
        total.item()

    return epoch


def torch_compile(widths: list[int], batch: int, images: Any, labels: Any) -> Epoch:
    return torch_eager(widths, batch, images, labels, compiled=True)


def torch_loader(widths: list[int], batch: int, images: Any, labels: Any) -> Epoch:
    """PyTorch as tutorials write it: a Dataset that converts one image at a time, and a DataLoader."""
    import torch

    class Images(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(labels)

        def __getitem__(self, i: int) -> tuple[Any, int]:
            return torch.from_numpy(images[i]).float() / 255, int(labels[i])

    network = torch_network(widths)
    criterion, optimizer = torch.nn.CrossEntropyLoss(), torch.optim.Adam(network.parameters())
    loader = torch.utils.data.DataLoader(Images(), batch, shuffle=True)

    def epoch() -> None:
        total = 0.0
        for x, y in loader:
            optimizer.zero_grad()
            loss = criterion(network(x), y)
            loss.backward()
            optimizer.step()
            total += loss.item()

    return epoch


def scikit_learn(widths: list[int], batch: int, images: Any, labels: Any) -> Epoch:
    import numpy as np
    from sklearn.neural_network import MLPClassifier

    network = MLPClassifier(tuple(widths[1:-1]), alpha=0.0, batch_size=batch, random_state=0)
    x = images.astype(np.float32) / 255
    classes = np.arange(widths[-1])

    def epoch() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network.partial_fit(x, labels, classes=classes)

    return epoch


def jax_jit(widths: list[int], batch: int, images: Any, labels: Any) -> Epoch:
    import jax
    import jax.numpy as jnp
    import numpy as np

    rng = np.random.default_rng(0)
    weights = [
        (jnp.array(rng.normal(size=(a, b)) / a**0.5, jnp.float32), jnp.zeros(b, jnp.float32))
        for a, b in itertools.pairwise(widths)
    ]

    def loss_of(weights: Any, x: Any, y: Any) -> Any:
        for w, b in weights[:-1]:
            x = jax.nn.relu(x @ w + b)
        logits = x @ weights[-1][0] + weights[-1][1]
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).mean()

    @jax.jit
    def step(weights: Any, m: Any, v: Any, t: Any, x: Any, y: Any) -> Any:
        loss, grads = jax.value_and_grad(loss_of)(weights, x, y)
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, grads)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, grads)
        rate = 1e-3 * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        weights = jax.tree.map(lambda w, m, v: w - rate * m / (jnp.sqrt(v) + 1e-8), weights, m, v)
        return weights, m, v, t + 1, loss

    zeros = jax.tree.map(jnp.zeros_like, weights)
    state = [weights, zeros, zeros, jnp.float32(1)]
    x_all, y_all = images.astype(np.float32) / 255, labels

    def epoch() -> None:
        order = np.random.default_rng().permutation(len(labels))
        loss = None
        for i in range(0, len(labels), batch):
            indices = order[i : i + batch]
            *state[:], loss = step(*state, x_all[indices], y_all[indices])
        float(loss)

    return epoch


def hips_autograd(widths: list[int], batch: int, images: Any, labels: Any) -> Epoch:
    import autograd
    import autograd.numpy as anp
    import numpy as np

    rng = np.random.default_rng(0)
    weights = []
    for a, b in itertools.pairwise(widths):
        weights += [(rng.normal(size=(a, b)) / a**0.5).astype("f4"), np.zeros(b, "f4")]
    m, v = ([np.zeros_like(w) for w in weights] for _ in range(2))
    steps = itertools.count(1)

    def loss_of(weights: Any, x: Any, one_hot: Any) -> Any:
        for w, b in (
            itertools.batched(weights[:-2], 2) if sys.version_info >= (3, 12) else pairs(weights[:-2])
        ):
            x = anp.maximum(anp.dot(x, w) + b, 0)
        logits = anp.dot(x, weights[-2]) + weights[-1]
        top = anp.max(logits, axis=1, keepdims=True)
        log_p = logits - top - anp.log(anp.sum(anp.exp(logits - top), axis=1, keepdims=True))
        return -anp.sum(one_hot * log_p) / len(x)

    def pairs(flat: Any) -> Any:
        return zip(flat[::2], flat[1::2], strict=True)

    gradient = autograd.grad(loss_of)
    x_all, one_hot = images.astype(np.float32) / 255, np.eye(widths[-1], dtype="f4")[labels]

    def epoch() -> None:
        order = np.random.default_rng().permutation(len(labels))
        for i in range(0, len(labels), batch):
            indices, t = order[i : i + batch], next(steps)
            rate = 1e-3 * (1 - 0.999**t) ** 0.5 / (1 - 0.9**t)
            for k, g in enumerate(gradient(weights, x_all[indices], one_hot[indices])):
                m[k] = np.float32(0.9) * m[k] + np.float32(0.1) * g
                v[k] = np.float32(0.999) * v[k] + np.float32(0.001) * g * g
                weights[k] = weights[k] - np.float32(rate) * m[k] / (np.sqrt(v[k]) + np.float32(1e-8))

    return epoch


def floor(widths: list[int], batch: int, images: Any, labels: Any) -> Epoch:
    """The matrix products of the steps and nothing else, in the order in memory that suits each best."""
    import numpy as np

    rng = np.random.default_rng(0)
    values = [rng.random((batch, width), np.float32) for width in widths]
    weights = [rng.random(shape, np.float32) for shape in itertools.pairwise(widths)]  # (in, out)
    results = [np.empty_like(value) for value in values]
    grads = [np.empty_like(weight) for weight in weights]

    def epoch() -> None:
        for _ in range(-(-len(labels) // batch)):
            for k, weight in enumerate(weights):
                np.matmul(values[k], weight, out=results[k + 1])
            for k in reversed(range(len(weights))):
                np.matmul(values[k].T, values[k + 1], out=grads[k])
                if k:
                    np.matmul(values[k + 1], weights[k].T, out=results[k])

    return epoch


CONTENDERS: dict[str, Callable[..., Any]] = {
    "numpy": numpy_engine(1),
    "numpy-2-workers": numpy_engine(2),
    "torch": torch_eager,
    "torch-engine": torch_engine,
    "torch-compile": torch_compile,
    "torch-dataloader": torch_loader,
    "scikit-learn": scikit_learn,
    "jax": jax_jit,
    "autograd": hips_autograd,
    "floor": floor,
}
NEEDS = {"scikit-learn": "sklearn", "jax": "jax", "autograd": "autograd"}
NEEDS |= {name: "torch" for name in CONTENDERS if name.startswith("torch")}
LEFT_OUT = {"torch-compile"}  # compiles for a minute, and needs a C++ compiler: only when it is asked for


def ratio(times: dict[str, list[float]], name: str, other: str) -> str:
    if other not in times:
        return ""
    return f"{statistics.median(a / b for a, b in zip(times[name], times[other], strict=True)):.2f}"


def table(result: dict[str, Any]) -> str:
    """Return a Markdown table of one network and batch size."""
    times = result["seconds"]
    steps = -(-result["images"] // result["batch"])
    lines = [
        f"**{result['network']}**, batch {result['batch']}, {result['images']:,} images",
        "",
        "| | epoch of 60,000, s | step, us: median (quartiles) | of torch | of scikit-learn | of the floor |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, seconds in times.items():
        low, middle, high = (1e6 * q / steps for q in statistics.quantiles(seconds, n=4))
        epoch = statistics.median(seconds) * 60_000 / result["images"]
        ratios = " | ".join(ratio(times, name, other) for other in ("torch", "scikit-learn", "floor"))
        lines.append(f"| {name} | {epoch:.2f} | {middle:,.0f} ({low:,.0f} to {high:,.0f}) | {ratios} |")
    return "\n".join(lines)


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """Draw the ratios as bars, or the medians as lines on logarithmic scales where something grows."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(results[0]["seconds"])
    colours = dict(zip(names, itertools.cycle(COLOURS)))
    groups = [(group, list(of)) for group, of in itertools.groupby(results, lambda result: result["group"])]
    if groups[0][0]:
        figure, axes = plt.subplots(1, len(groups), figsize=(4 * len(groups), 4), layout="constrained")
        for axis, (group, of) in zip(axes, groups, strict=True):
            keys = {"batch": "batch", "data": "images"}
            places = [r[keys[group]] if group in keys else size(r["network"], group) for r in of]
            for name in names:
                steps = [-(-r["images"] // r["batch"]) for r in of]
                micro = [
                    1e6 * statistics.median(r["seconds"][name]) / n for r, n in zip(of, steps, strict=True)
                ]
                axis.loglog(places, micro, "o-", color=colours[name], label=name)
            axis.set(xlabel=group, ylabel="a step, microseconds")
            axis.set_xticks(places, [f"{place:,}" for place in places], fontsize=8)
            axis.minorticks_off()
        axes[0].legend()
    else:
        figure, axis = plt.subplots(figsize=(9, 1 + 0.22 * len(names) * len(results)), layout="constrained")
        places, labels, y = [], [], 0.0
        against = "torch" if "torch" in names else names[0]
        for result in results:
            times = result["seconds"]
            for name in names:
                ratios = [a / b for a, b in zip(times[name], times[against], strict=True)]
                low, middle, high = statistics.quantiles(ratios, n=4)
                axis.barh(y, middle, color=colours[name], height=0.8)
                axis.plot([low, high], [y, y], color="black", linewidth=1)
                places.append(y)
                labels.append(name)
                y += 1
            middle_of_group = y - len(names) / 2 - 0.5
            words = f"{result['network']}\nbatch {result['batch']}"
            axis.text(1.02, middle_of_group, words, transform=axis.get_yaxis_transform(), va="center")
            y += 0.8
        axis.set_yticks(places, labels, fontsize=8)
        axis.invert_yaxis()
        axis.axvline(1, color="black", linewidth=0.5)
        axis.set(xlabel=f"time of an epoch, of {against}: median and quartiles of the rounds")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def size(network: str, group: str) -> int:
    widths = [int(width) for width in network.split("-")]
    return len(widths) - 2 if group == "depth" else widths[1]


if __name__ == "__main__":
    main()
