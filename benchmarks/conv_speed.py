"""Time one training step of `cnn-same` beside PyTorch eager: `python benchmarks/conv_speed.py --threads 1`.

Both engines run in one process in turns of a few steps, changing who begins; of each turn the median step
counts, and the ratios are those of the two turns of one round. Beside the wall clock stands the processor
time of the process, which other programs on the machine disturb less. ``--layers`` shows where the NumPy
engine's time goes.
"""

import argparse
import ctypes
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

STEPS = 5  # in each turn
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="of both engines' products")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--keep-memory", action="store_true", help="let malloc return nothing to the system")
    parser.add_argument("--layers", action="store_true", help="processor time of each layer instead")
    return parser.parse_args()


def clocks(step: Callable[[], object]) -> tuple[float, float]:
    """Return the median wall and processor seconds of a few steps."""
    wall, processor = [], []
    for _ in range(STEPS):
        starts = time.perf_counter(), time.process_time()
        step()
        wall.append(time.perf_counter() - starts[0])
        processor.append(time.process_time() - starts[1])
    return statistics.median(wall), statistics.median(processor)


def compare(steps: dict[str, Callable[[], object]], rounds: int) -> None:
    """Print medians and ratios to the last of ``steps``, with the quartiles of the ratios."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for turn in range(rounds):
        for name in list(steps)[:: 1 if turn % 2 else -1]:
            times[name].append(clocks(steps[name]))
    base = list(steps)[-1]
    print(
        "| engine | wall, ms | ratio (quartiles) | processor, ms | ratio (quartiles) |\n|---|---|---|---|---|"
    )
    for name, found in times.items():
        cells = [name]
        for clock in (0, 1):
            ratios = [a[clock] / b[clock] for a, b in zip(found, times[base], strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            cells += [f"{1e3 * statistics.median(a[clock] for a in found):.1f}"]
            cells += [f"{middle:.2f} ({low:.2f} to {high:.2f})"]
        print("| " + " | ".join(cells) + " |")


def time_layers(network: Any, optimizer: Any) -> dict[str, list[float]]:
    """Make every layer note its processor time of each call."""
    times: dict[str, list[float]] = defaultdict(list)

    def timed(function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            start = time.thread_time()
            result = function(*args, **kwargs)
            times[name].append(time.thread_time() - start)
            return result

        return run

    for name, layer in network.named_children():
        for method in ("forward", "backward"):
            object.__setattr__(layer, method, timed(getattr(layer, method), f"{name} {method}"))
    optimizer.step = timed(optimizer.step, "optimizer")
    return times


def main() -> None:
    options = arguments()
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(options.threads)  # read once, when the libraries are loaded
    if options.keep_memory:
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)

    import numpy as np
    import torch
    from threadpoolctl import threadpool_info

    from chainrule import recipe
    from chainrule.engines import build

    torch.set_num_threads(options.threads)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (10 * options.batch, 1, 28, 28)).astype(np.uint8)
    labels = rng.integers(0, 10, len(images))
    network = recipe.load("cnn-same")
    engines = {name: build(network, name, seed=0) for name in ("numpy", "torch")}
    data = {name: engine.put(images, labels, 0.1307, 0.3081) for name, engine in engines.items()}

    def step(name: str) -> Callable[[], object]:
        return lambda: float(
            engines[name].train_step(data[name], rng.permutation(len(images))[: options.batch])[0]
        )

    blas = next(info for info in threadpool_info() if "numpy" in info["filepath"])
    kernels = f"{blas['internal_api']} for {blas['architecture']}"
    print(f"NumPy {np.__version__} with {kernels}, PyTorch {torch.__version__},")
    print(f"threads {options.threads}, batch {options.batch}, keep memory {options.keep_memory}\n")
    steps = {name: step(name) for name in engines}
    for run in steps.values():
        clocks(run)
    if not options.layers:
        return compare(steps, options.rounds)
    layers = time_layers(engines["numpy"].network, engines["numpy"].optimizer)
    for _ in range(options.rounds * STEPS):
        steps["numpy"]()
    print("| layer | processor, ms |\n|---|---|")
    for name, found in layers.items():
        print(f"| {name} | {1e3 * statistics.median(found):.2f} |")
    return None


if __name__ == "__main__":
    main()
