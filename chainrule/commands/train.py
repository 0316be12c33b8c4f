"""``chainrule train``: a recipe, a data set, one engine or both, and the files of the run."""

import json
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chainrule.errors import ChainruleError, Stopped, WrongUsage

if TYPE_CHECKING:
    from chainrule.datasets import Dataset
    from chainrule.engines import Engine
    from chainrule.recipe import Recipe


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
    options: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "seed": seed}
    _check_least(("--epochs", epochs, 1), ("--batch-size", batch_size, 1), ("--seed", seed, 0))
    _check_least(("--threads", threads, 1))
    names = _engine_names(engine, device)

    from chainrule import datasets, engines, records, training
    from chainrule import recipe as recipes
    from chainrule.runs import RunFolder
    from chainrule.screen import Screen

    plan = recipes.load(recipe)
    plan = replace(plan, **{name: value for name, value in options.items() if value is not None})
    data = datasets.load(dataset, root and root.expanduser())
    _check_fit(plan, data)
    screen = Screen(quiet=as_json)
    path = out.expanduser() if out else Path("runs") / f"{plan.name}-{data.name}"
    metrics: list[dict[str, Any]] = []
    with RunFolder(path, overwrite=overwrite, numbered=out is None) as folder:
        screen.data(data)
        for name in names:
            engines.rehearse(plan, name, device)
        built = [engines.build(plan, name, seed=plan.seed, device=device) for name in names]
        screen.plan(plan, names, device)
        folder.write_json("config.json", records.config(plan, names, data, device, threads))

        def after_epoch(trained: "Engine", rows: list[dict[str, Any]]) -> None:
            # The first engine's model is the run's; the other one's lies beside it.
            model = "model" if trained.name == names[0] else f"model-{trained.name}"
            folder.write_model(f"{model}.safetensors", trained.state_dict())
            folder.write_metrics(rows)
            metrics[:] = rows
            screen.epoch(rows[-2], rows[-1])

        try:
            with screen.progress(), engines.threads(threads):
                results = training.train(built, plan, data, report=screen.report, after_epoch=after_epoch)
        except KeyboardInterrupt:
            kept = f"{folder.path} holds the model after the last whole epoch"
            raise Stopped(f"stopped: {kept if folder.has_model else 'nothing was written'}") from None
        state = built[0].state_dict()
        comparison = records.compare(plan, data, state) if len(built) > 1 else None
        records.draw(folder, metrics, data, results[0], plan)
        # Written last: a run that has a summary is a whole one.
        parameters = sum(value.size for value in state.values())
        summary = records.summary(plan, data, results, parameters, comparison)
        folder.write_json("summary.json", summary)
    if as_json:
        print(json.dumps(summary, indent=2))
    screen.results(results, comparison, folder)
    if comparison is not None and not all(row.agrees for row in comparison):
        raise ChainruleError("the two engines disagree: see the table above")


def _check_least(*options: tuple[str, int | None, int]) -> None:
    for name, value, least in options:
        if value is not None and not least <= value < 2**63:
            raise WrongUsage(f"{name} must be at least {least}, found {value}")


def _engine_names(engine: EngineChoice | None, device: Device) -> list[str]:
    from chainrule.engines import torch_is_installed

    if engine is EngineChoice.numpy and device is Device.cuda:
        raise WrongUsage(
            "--device cuda is for PyTorch: the NumPy engine computes on the CPU; use --engine torch or both"
        )
    if not torch_is_installed() and (device is Device.cuda or engine not in (None, EngineChoice.numpy)):
        asked = "--device cuda" if engine is None else f"--engine {engine}"
        raise ChainruleError(
            f"{asked} needs PyTorch, which is not installed: "
            "pip install 'chainrule[torch]', or use --engine numpy"
        )
    if engine is None:
        engine = EngineChoice.both if torch_is_installed() else EngineChoice.numpy
    return ["numpy", "torch"] if engine is EngineChoice.both else [str(engine)]


def _check_fit(plan: "Recipe", data: "Dataset") -> None:
    if plan.input_shape not in (data.train_images.shape[1:], (1, *data.train_images.shape[1:])):
        raise ChainruleError(
            f"{plan.source} expects images of {plan.input_shape}, "
            f"{data.title} has {data.train_images.shape[1:]}"
        )
    if plan.shapes[-1] != (len(data.class_names),):
        raise ChainruleError(
            f"{plan.source} ends with {plan.shapes[-1]} outputs, "
            f"{data.title} has {len(data.class_names)} classes"
        )
