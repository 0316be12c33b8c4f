"""``chainrule evaluate``: what a run's weights reach, on one engine or on both."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chainrule.commands.options import (
    Device,
    EngineChoice,
    RunArgument,
    Weights,
    WhichWeights,
    WhoseWeights,
    check_least,
    engine_names,
)

if TYPE_CHECKING:
    from chainrule.datasets import Dataset
    from chainrule.evaluating import Evaluation
    from chainrule.saved import SavedRun


class Split(StrEnum):
    """Values of ``--split``."""

    test = "test"
    train = "train"


def evaluate(
    run: RunArgument,
    engine: Annotated[
        EngineChoice | None,
        typer.Option(help="What to evaluate with.", show_default="both, or numpy where PyTorch is missing"),
    ] = None,
    weights: WhichWeights = Weights.last,
    weights_of: WhoseWeights = None,
    split: Annotated[Split, typer.Option(help="Which images of the data set.")] = Split.test,
    dataset: Annotated[
        str | None, typer.Option(help="Another data set: a name or a folder.", show_default="the run's")
    ] = None,
    device: Annotated[Device, typer.Option(help="Where PyTorch computes.")] = Device.cpu,
    threads: Annotated[int, typer.Option(help="Threads of either engine on the CPU.")] = 1,
    root: Annotated[
        Path | None, typer.Option(help="Folder of the data sets.", show_default="where the run found it")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Evaluate a run with either engine or both: loss, accuracy, each class, and whether the engines differ.

    The data set must be the run's, by its SHA-256s; --dataset takes another one, and says so.

    Example: chainrule evaluate runs/simplenet-mnist --engine both
    """
    check_least(("--threads", threads, 1))
    names = engine_names(engine, device)

    from chainrule import engines, evaluating, saved

    opened = saved.open_run(run)
    state = saved.load_weights(opened, weights, weights_of)
    data, same = saved.load_data(opened, dataset, root and root.expanduser())
    images, labels = getattr(data, f"{split}_images"), getattr(data, f"{split}_labels")
    with engines.threads(threads):
        results = [
            evaluating.evaluate(opened.recipe, name, state, images, labels, data.class_names, device)
            for name in names
        ]
    report = {
        "run": str(opened.path),
        "recipe": opened.recipe.name,
        "weights": saved.weights_file(opened, weights, weights_of),
        "dataset": data.name,
        "split": str(split),
        "images": len(labels),
        "same_data_as_trained": same,
        "engines": {
            result.engine: {
                "loss": result.loss,
                "accuracy": result.accuracy,
                "per_class_accuracy": result.per_class_accuracy,
            }
            for result in results
        },
        **(_difference(*results) if len(results) > 1 else {}),
    }
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        _print(opened, data, results, report)


def _difference(first: "Evaluation", second: "Evaluation") -> dict[str, Any]:
    from chainrule.evaluating import differing

    return {
        "differing_predictions": differing(first, second).tolist(),
        "largest_difference_of_outputs": float(abs(first.outputs - second.outputs).max()),
    }


def _print(run: "SavedRun", data: "Dataset", results: list["Evaluation"], report: dict[str, Any]) -> None:
    whose = "PyTorch's" if "-torch" in report["weights"] else "NumPy's"
    trained = {"both": f"both engines; these weights are {whose}"}.get(
        engine := str(run.config.get("engine")), engine
    )
    print(f"Run      {run.path}: {run.recipe.name}, {run.recipe.summary}; trained with {trained}")
    print(f"Weights  {report['weights']}")
    images = f"{report['images']:,} {'training' if report['split'] == 'train' else 'test'} images"
    other = f"not what the run was trained on, which was '{run.config['dataset']}'"
    whose = "the run's, by SHA-256" if report["same_data_as_trained"] else other
    print(f"Data     {data.title}: {images} from {data.folder} ({whose})")
    width = max(5, *(len(name) for name in data.class_names))
    print(f"\n{'':{width}}" + "".join(f"{result.engine:>10}" for result in results))
    print(f"{'loss':{width}}" + "".join(f"{result.loss:10.4f}" for result in results))
    print(f"{'right':{width}}" + "".join(f"{result.accuracy:10.2%}" for result in results))
    for name in data.class_names:
        shares = [result.per_class_accuracy[name] for result in results]
        print(f"{name:{width}}" + "".join(f"{'-' if s is None else f'{s:.2%}':>10}" for s in shares))
    if "differing_predictions" in report:
        print(f"\n{_in_words(report)}")


def _in_words(report: dict[str, Any]) -> str:
    found = report["differing_predictions"]
    gap = f"their outputs differ by at most {report['largest_difference_of_outputs']:.1e}"
    if not found:
        return f"The two engines say the same of every image; {gap}."
    shown = ", ".join(map(str, found[:5])) + (", ..." if len(found) > 5 else "")
    return f"The two engines differ on {len(found):,} of {report['images']:,} images ({shown}); {gap}."
