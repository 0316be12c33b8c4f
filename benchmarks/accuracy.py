"""Train every recipe with several seeds on both engines, and print the table of docs/accuracy.md.

Each run is ``chainrule train RECIPE --engine both --seed SEED``: all training images, last epoch. A run that
is there already is not repeated, so the script can be stopped and started again.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

RECIPES = ("ann", "simplenet", "fcn", "mlp", "mlp-bn", "cnn-same", "cnn")


def train(recipe: str, seed: int, dataset: str, folder: Path) -> dict:
    """Return the summary of one run, made now if there is none."""
    out = folder / f"{recipe}-{seed}"
    if not (out / "summary.json").exists():
        command = ["train", recipe, "--engine", "both", "--seed", str(seed), "--dataset", dataset]
        command = [sys.executable, "-m", "chainrule", *command, "--out", str(out), "--overwrite", "--json"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return json.loads((out / "summary.json").read_text("utf-8"))


def cell(accuracies: list[float]) -> str:
    low, high = min(accuracies), max(accuracies)
    return f"**{100 * statistics.mean(accuracies):.2f}** ({100 * low:.2f} to {100 * high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", default=RECIPES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--folder", type=Path, default=Path("runs/accuracy"))
    arguments = parser.parse_args()
    print("| recipe | NumPy: mean (range), % | PyTorch: mean (range), % | between the means |")
    print("| --- | --- | --- | --- |")
    for recipe in arguments.recipes:
        runs = [train(recipe, seed, arguments.dataset, arguments.folder) for seed in arguments.seeds]
        ours, theirs = (
            [run["engines"][engine]["test_accuracy"] for run in runs] for engine in ("numpy", "torch")
        )
        apart = 100 * abs(statistics.mean(ours) - statistics.mean(theirs))
        print(f"| `{recipe}` | {cell(ours)} | {cell(theirs)} | {apart:.2f} |", flush=True)


if __name__ == "__main__":
    main()
