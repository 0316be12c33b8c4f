"""``chainrule train``: a recipe, a data set, one engine or both, and the files of the run."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chainrule.commands.options import Device, EngineChoice, check_least, engine_names
from chainrule.errors import ChainruleError, Stopped

if TYPE_CHECKING:
    from chainrule.datasets import Dataset
    from chainrule.recipe import Recipe
    from chainrule.training import Course


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
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change the recipe: training.optimizer.lr=0.01. Repeatable."
        ),
    ] = None,
    validation: Annotated[
        int | None,
        typer.Option(
            help="Training images kept back to find the best epoch.", show_default="the recipe's: none"
        ),
    ] = None,
    early_stopping: Annotated[
        int | None,
        typer.Option(
            metavar="PATIENCE", help="Stop after this many epochs without a better one.", show_default="never"
        ),
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads of either engine on the CPU.")] = 1,
    seed: Annotated[
        int | None,
        typer.Option(help="Decides weights and order, to the bit.", show_default="the recipe's"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run.", show_default="runs/RECIPE-DATASET")
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Log for TensorBoard too: tensorboard --logdir runs.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that --out holds.")] = False,
    root: Annotated[
        Path | None, typer.Option(help="Folder of the data sets.", show_default="$CHAINRULE_DATA or data")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the summary, as JSON.")] = False,
) -> None:
    """Train a network by hand (NumPy), with PyTorch, or both side by side, and compare them.

    Example: chainrule train ann --engine both --epochs 3 --out runs/first
    """
    check_least(("--epochs", epochs, 1), ("--batch-size", batch_size, 1), ("--seed", seed, 0))
    check_least(("--threads", threads, 1), ("--validation", validation, 0))
    check_least(("--early-stopping", early_stopping, 1))
    names = engine_names(engine, device)

    from chainrule import datasets, engines, records, training
    from chainrule import recipe as recipes
    from chainrule.runs import RunFolder
    from chainrule.screen import Screen
    from chainrule.tensorboard import Log, check_installed

    if tensorboard:
        check_installed()
    options = {"epochs": epochs, "batch_size": batch_size, "seed": seed}
    options |= {"validation": validation, "early_stopping": early_stopping}
    given = {f"training.{key}": value for key, value in options.items() if value is not None}
    plan = recipes.load(recipe, recipes.changes(settings or []) | given)
    data = datasets.load(dataset, root and root.expanduser())
    _check_fit(plan, data)
    screen = Screen(quiet=as_json)
    path = out.expanduser() if out else Path("runs") / f"{plan.name}-{data.name}"
    metrics: list[dict[str, Any]] = []
    with RunFolder(path, overwrite=overwrite, numbered=out is None) as folder:
        screen.data(data)
        for name in names:
            steps = training.steps_per_epoch(len(data.train_labels), plan)
            engines.rehearse(plan, name, device, steps)
        built = [engines.build(plan, name, seed=plan.seed, device=device) for name in names]
        screen.plan(plan, names, device)
        folder.write_json("config.json", records.config(plan, names, data, device, threads))

        def after_epoch(course: "Course", rows: list[dict[str, Any]], best: bool) -> None:
            # The first engine's model is the run's; the other one's lies beside it.
            name = course.engine.name
            suffix = "" if name == names[0] else f"-{name}"
            state = course.engine.state_dict()
            folder.write_model(f"model{suffix}.safetensors", state)
            if best:
                folder.write_model(f"best{suffix}.safetensors", state)
            metrics.extend(rows)
            folder.write_metrics(metrics)
            if tensorboard:
                log.add(rows)
            screen.epoch(rows, best)

        try:
            with screen.progress(), engines.threads(threads), Log(folder.path / "tensorboard") as log:
                results = training.train(built, plan, data, report=screen.report, after_epoch=after_epoch)
        except KeyboardInterrupt:
            kept = f"{folder.path} holds the model after the last whole epoch"
            raise Stopped(f"stopped: {kept if folder.has_model else 'nothing was written'}") from None
        comparison = records.compare(plan, data, built[0].state_dict()) if len(built) > 1 else None
        records.draw(folder, metrics, data, results[0], plan, built[0].state_dict())
        # Written last: a run that has a summary is a whole one.
        summary = records.summary(plan, data, results, comparison)
        folder.write_json("summary.json", summary)
    if as_json:
        print(json.dumps(summary, indent=2))
    screen.results(results, comparison, folder)
    screen.mistakes(summary["most_confused"], folder)
    if comparison is not None and not all(row.agrees for row in comparison):
        raise ChainruleError("the two engines disagree: see the table above")


def _check_fit(plan: "Recipe", data: "Dataset") -> None:
    count = len(data.train_labels)
    if plan.validation >= count:
        raise ChainruleError(
            f"a validation split of {plan.validation:,} images leaves none to learn from: "
            f"{data.title} has {count:,} training images"
        )
    if (count - plan.validation) % plan.batch_size == min(1, plan.batch_size - 1) and any(
        layer.type == "BatchNorm1d" for layer in plan.layers
    ):
        raise ChainruleError(
            f"batches of {plan.batch_size} leave a last one of a single image, which has no variance for "
            "BatchNorm1d: give another --batch-size"
        )
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
