"""``chainrule train``: a recipe, a data set, one engine or both, and the files of the run."""

import json
import platform
import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from chainrule.errors import ChainruleError, Stopped, WrongUsage


class EngineChoice(StrEnum):
    """Values of ``--engine``."""

    numpy = "numpy"
    torch = "torch"
    both = "both"


class Device(StrEnum):
    """Values of ``--device``."""

    cpu = "cpu"
    cuda = "cuda"


def train(
    recipe: Annotated[
        str, typer.Argument(help="A recipe's name, or a recipe file of your own.")
    ] = "simplenet",
    engine: Annotated[
        EngineChoice | None,
        typer.Option(help="What to train with.", show_default="both, or numpy where PyTorch is missing"),
    ] = None,
    dataset: Annotated[
        str, typer.Option(help="auto (MNIST if it is here, else digits), a name, or a folder of IDX files.")
    ] = "auto",
    device: Annotated[Device, typer.Option(help="Where PyTorch computes.")] = Device.cpu,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the training images.", show_default="the recipe's")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images per step.", show_default="the recipe's")
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads of either engine on the CPU.")] = 1,
    seed: Annotated[
        int | None,
        typer.Option(help="Decides weights and order, to the bit.", show_default="the recipe's"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run.", show_default="runs/RECIPE-DATASET")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that --out holds.")] = False,
    root: Annotated[
        Path | None, typer.Option(help="Folder of the data sets.", show_default="$CHAINRULE_DATA or data")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the summary, as JSON.")] = False,
) -> None:
    """Train a network by hand (NumPy), with PyTorch, or both side by side, and compare them.

    Example: chainrule train ann --engine both --epochs 3 --out runs/first
    """
    from chainrule import datasets, engines, training
    from chainrule import recipe as recipes
    from chainrule.runs import RunFolder, new_folder
    from chainrule.screen import Screen

    _check_least(
        ("--epochs", epochs, 1),
        ("--batch-size", batch_size, 1),
        ("--seed", seed, 0),
        ("--threads", threads, 1),
    )
    plan = recipes.load(recipe)
    names = _engine_names(engine, device)
    data = datasets.load(dataset, root)
    _check_fit(plan, data)
    settings = {
        "epochs": epochs or plan.epochs,
        "batch_size": batch_size or plan.batch_size,
        "seed": plan.seed if seed is None else seed,
    }
    screen = Screen(quiet=as_json)
    path = out or new_folder(f"{plan.name}-{data.name}")
    with RunFolder(path, overwrite=overwrite) as folder:
        screen.data(data)
        built = [engines.build(plan, name, seed=settings["seed"], device=device) for name in names]
        screen.plan(plan, names, device, **settings)
        folder.write_json("config.json", _config(plan, names, data, device, threads, settings))
        metrics: list[dict[str, Any]] = []

        def after_epoch(rows: list[dict[str, Any]]) -> None:
            metrics[:] = rows
            done = next(each for each in built if each.name == rows[-1]["engine"])
            folder.write_model(_model_file(names, done.name), done.state_dict())
            folder.write_metrics(rows)
            screen.epoch(rows[-2], rows[-1])

        try:
            with screen.progress(), engines.threads(threads):
                results = training.train(
                    built, plan, data, **settings, report=screen.report, after_epoch=after_epoch
                )
        except KeyboardInterrupt:
            kept = f"{path} holds the model after the last whole epoch" if metrics else "nothing was written"
            raise Stopped(f"stopped: {kept}") from None
        comparison = _compare(plan, data, built[0].state_dict()) if len(built) > 1 else None
        summary = _summary(plan, data, built, results, settings, comparison)
        folder.write_json("summary.json", summary)
        _draw(folder, metrics, data, results, plan.name)
    if as_json:
        print(json.dumps(summary, indent=2))
    screen.results(results, comparison, path)
    if comparison is not None and not all(row.agrees for row in comparison):
        raise ChainruleError("the two engines disagree: see the table above")


def _check_least(*options: tuple[str, int | None, int]) -> None:
    for name, value, least in options:
        if value is not None and value < least:
            raise WrongUsage(f"{name} must be at least {least}, found {value}")


def _engine_names(engine: EngineChoice | None, device: Device) -> list[str]:
    from chainrule.engines import torch_is_installed

    if engine is None:
        engine = EngineChoice.both if torch_is_installed() else EngineChoice.numpy
    if engine is EngineChoice.numpy and device is Device.cuda:
        raise WrongUsage(
            "--device cuda is for PyTorch: the NumPy engine computes on the CPU; use --engine torch or both"
        )
    return ["numpy", "torch"] if engine is EngineChoice.both else [str(engine)]


def _check_fit(plan: Any, data: Any) -> None:
    if data.train_images.shape[1:] != plan.input_shape:
        raise ChainruleError(
            f"recipe {plan.name} expects images of {plan.input_shape}, "
            f"{data.title} has {data.train_images.shape[1:]}"
        )
    if plan.shapes[-1] != (len(data.class_names),):
        raise ChainruleError(
            f"recipe {plan.name} ends with {plan.shapes[-1]} outputs, "
            f"{data.title} has {len(data.class_names)} classes"
        )


def _model_file(names: list[str], name: str) -> str:
    """The first engine's model is the run's; with two engines the other one's lies beside it."""
    return "model.safetensors" if name == names[0] else f"model-{name}.safetensors"


def _config(
    plan: Any, names: list[str], data: Any, device: str, threads: int, settings: dict[str, int]
) -> dict[str, Any]:
    return {
        "command": ["chainrule", *sys.argv[1:]],
        "recipe": asdict(plan),
        "engine": "both" if len(names) > 1 else names[0],
        "device": device,
        "threads": threads,
        **settings,
        "dataset": data.name,
        "dataset_sha256": data.sha256,
        "versions": _versions(names),
        "platform": platform.platform(),
    }


def _versions(names: list[str]) -> dict[str, str]:
    from importlib.metadata import version

    packages = ["chainrule", "numpy", *(["torch"] if "torch" in names else [])]
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def _compare(plan: Any, data: Any, state: dict[str, Any]) -> list[Any]:
    """Compare the two engines with the trained weights, in float64, on the first batch of the test images."""
    import numpy as np
    import torch

    import nn_reference
    from agreement import compare_networks

    reference = plan.build(nn_reference)
    reference.load_state_dict(state)
    images = (data.test_images[: plan.batch_size] / 255 - plan.mean) / plan.std
    return compare_networks(
        reference,
        plan.build_loss(nn_reference),
        plan.build(torch.nn),
        plan.build_loss(torch.nn),
        images,
        data.test_labels[: plan.batch_size].astype(np.int64),
    )


def _summary(
    plan: Any,
    data: Any,
    built: list[Any],
    results: list[Any],
    settings: dict[str, int],
    comparison: list[Any] | None,
) -> dict[str, Any]:
    from chainrule.training import per_class_accuracy

    engines = {
        result.engine: {
            "test_accuracy": result.test_accuracy,
            "test_loss": result.test_loss,
            "seconds": round(result.seconds, 3),
            "per_class_accuracy": per_class_accuracy(result.outputs, data.test_labels, data.class_names),
        }
        for result in results
    }
    summary = {
        "recipe": plan.name,
        "engine": "both" if len(built) > 1 else built[0].name,
        "dataset": data.name,
        **settings,
        "parameters": sum(value.size for value in built[0].state_dict().values()),
        # Of the first engine: `engines` has each one's.
        **engines[built[0].name],
        "dataset_sha256": data.sha256,
        "engines": engines,
    }
    if comparison is not None:
        summary["agreement"] = {
            "dtype": "float64",
            "error": "largest difference / largest value",
            "limit": 1e-12,
            "largest_error": max(row.error for row in comparison),
            "agrees": all(row.agrees for row in comparison),
            "tensors": {row.name: {**asdict(row), "error": row.error} for row in comparison},
        }
    return summary


def _draw(folder: Any, metrics: list[dict[str, Any]], data: Any, results: list[Any], name: str) -> None:
    from chainrule import plots
    from chainrule.training import confusion_matrix

    first = results[0]
    labels, names = data.test_labels, data.class_names
    on_test = f"{name} ({first.engine}) on {data.title}: {first.test_accuracy:.2%} of the test images right"
    folder.write("curves.png", plots.curves(metrics, f"{name} on {data.title}"))
    folder.write("samples.png", plots.samples(data.test_images, labels, first.outputs, names, on_test))
    matrix = confusion_matrix(first.outputs, labels, len(names))
    folder.write("confusion.png", plots.confusion(matrix, names, on_test))
