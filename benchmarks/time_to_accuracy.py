"""Seconds of training until MNIST is read with 97, 98 and 98.5 % accuracy, by both engines.

    make time-to-accuracy                                            # 5 seeds, into build/bench
    python benchmarks/time_to_accuracy.py --dataset FOLDER --targets 98 --engines numpy

A run trains one of benchmarks/recipes/ on 50,000 of the training images. 10,000, drawn by the seed, are kept
back for validation: they are read after each epoch, and the run ends after the first epoch at which the share
read correctly is the target or more, or when the recipe's epochs are over. The test images are read once,
after that, and decide nothing. The recipes too were chosen on validation images, with seeds 0 and 10 to 14.

Counted: the training steps, with shuffling and batching, and the validation checks. Not counted: starting
Python, loading the images and bringing them to the engine, building the network, the test. With --workers 2,
starting the second process is part of the first step, and so is counted.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
# For each target in %: a network without convolution, where one is known, and one that begins with one.
RECIPES = {97.0: ("mlp-97", "cnn-97"), 98.0: ("mlp-98", "cnn-98"), 98.5: ("cnn-98.5",)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--targets", nargs="+", type=float, choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument(
        "--recipes",
        nargs="+",
        choices=sum(RECIPES.values(), ()),
        metavar="NAME",
        help="only these of the targets' recipes",
    )
    parser.add_argument("--engines", nargs="+", choices=("numpy", "torch"), default=["numpy", "torch"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--threads", type=int, default=1, help="of either engine")
    parser.add_argument(
        "--workers", nargs="+", type=int, default=[1], help="of the NumPy engine: 1, 2 or both"
    )
    parser.add_argument("--dataset", default="mnist", help="its name, or a folder with the four files")
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    arguments = parser.parse_args()
    for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ[variable] = str(arguments.threads)
    from chainrule import datasets, engines, errors

    try:
        dataset = datasets.load(arguments.dataset)
    except errors.ChainruleError as error:
        raise SystemExit(f"time_to_accuracy: {error}") from None
    if "torch" in arguments.engines:
        if not engines.torch_is_installed():
            raise SystemExit("time_to_accuracy: PyTorch is not installed; give --engines numpy")
        import torch  # noqa: F401 (so that engines.threads sets its number of threads too)
    contenders = [("numpy", workers) for workers in arguments.workers if "numpy" in arguments.engines]
    contenders += [("torch", 1)] if "torch" in arguments.engines else []
    cases = [
        (target, name, engine, workers)
        for target in arguments.targets
        for name in RECIPES[target]
        if arguments.recipes is None or name in arguments.recipes
        for engine, workers in contenders
    ]
    runs = []
    with engines.threads(arguments.threads):
        for seed in arguments.seeds:  # in turns, so that what else the machine does meets all of them
            for target, name, engine, workers in cases:
                runs.append(train(target, name, engine, workers, seed, dataset))
                print(line(runs[-1]), file=sys.stderr, flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    stem = f"time-to-accuracy-{arguments.threads}-threads"
    (arguments.out / f"{stem}.json").write_text(json.dumps(runs, indent=1), "utf-8")
    (arguments.out / f"{stem}.md").write_text(table(runs), "utf-8")
    print(table(runs))
    print(f"{arguments.out}/{stem}.json, .md")


def train(
    target: float, name: str, engine_name: str, workers: int, seed: int, dataset: Any
) -> dict[str, Any]:
    """Train until the target is reached or the recipe's epochs are over, and return what was measured."""
    from chainrule import engines, recipe, training

    plan = recipe.load(str(HERE / "recipes" / f"{name}.toml"), {"training.seed": seed})
    engine: Any = engines.build(plan, engine_name, seed=seed, workers=workers)
    course = training.begin(engine, plan, dataset)
    assert course.validation is not None
    accuracies: list[float] = []
    wall, processor = time.perf_counter(), time.process_time()
    while len(accuracies) < plan.epochs and 100 * max(accuracies, default=0.0) < target:
        training.train_epoch(course, plan, len(accuracies) + 1, lambda progress: None)
        course.running = training.Running()
        accuracies.append(training.evaluate(engine, *course.validation)[1])
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    test_accuracy = training.evaluate(engine, *course.test)[1]
    getattr(engine, "close", lambda: None)()
    return {
        "target": target,
        "recipe": name,
        "network": plan.summary,
        "engine": engine_name,
        "workers": workers,
        "seed": seed,
        "reached": 100 * accuracies[-1] >= target,
        "epochs": len(accuracies),
        "wall_seconds": wall,
        "processor_seconds": processor if workers == 1 else None,  # it would be that of one of the processes
        "validation_accuracy": accuracies,
        "test_accuracy": test_accuracy,
    }


def line(run: dict[str, Any]) -> str:
    """Return one run in words, for whoever waits."""
    processor = f", {run['processor_seconds']:.2f} of the processor" if run["processor_seconds"] else ""
    return (
        f"{run['recipe']}, {run['engine']}, {run['workers']} workers, seed {run['seed']}: "
        f"{run['wall_seconds']:.2f} s{processor}, {run['epochs']} epochs, "
        f"validation {100 * run['validation_accuracy'][-1]:.2f} %, test {100 * run['test_accuracy']:.2f} %"
        + ("" if run["reached"] else f": {run['target']:g} % NOT REACHED")
    )


def table(runs: list[dict[str, Any]]) -> str:
    """Return a Markdown table of the medians over the seeds; a run that fell short took for ever."""
    lines = [
        "| target | network | engine | reached | epochs | wall clock, s: median (range) "
        "| processor, s: median (range) | test, %: mean (range) |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    keys = ("target", "recipe", "engine", "workers")
    for case in dict.fromkeys(tuple(run[key] for key in keys) for run in runs):
        mine = [run for run in runs if tuple(run[key] for key in keys) == case]
        target, _, engine, workers = case
        tests = [100 * run["test_accuracy"] for run in mine]
        cells = [
            f"{target:g} %",
            mine[0]["network"],
            engine + (f", {workers} workers" if workers > 1 else ""),
            f"{sum(run['reached'] for run in mine)} of {len(mine)}",
            f"{statistics.median(run['epochs'] for run in mine):g}",
            spread(mine, "wall_seconds"),
            spread(mine, "processor_seconds") if workers == 1 else "",
            f"{statistics.mean(tests):.2f} ({min(tests):.2f} to {max(tests):.2f})",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def spread(runs: list[dict[str, Any]], key: str) -> str:
    seconds = [run[key] if run["reached"] else float("inf") for run in runs]
    return f"**{statistics.median(seconds):.2f}** ({min(seconds):.2f} to {max(seconds):.2f})"


if __name__ == "__main__":
    main()
