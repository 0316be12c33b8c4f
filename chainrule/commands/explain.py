"""``chainrule explain``: the chain rule with the numbers put in."""

import json
import math
import shutil
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chainrule.commands.options import OneEngine, Weights, check_least
from chainrule.errors import WrongUsage, nearest

if TYPE_CHECKING:
    from chainrule.explaining import Subject, Wanted


_MOST_PATHS = 1000  # so many are kept of every neuron behind the weight


class Activation(StrEnum):
    """Values of ``--activation``."""

    relu = "relu"
    leaky_relu = "leaky_relu"
    sigmoid = "sigmoid"
    tanh = "tanh"
    elu = "elu"
    silu = "silu"
    gelu = "gelu"
    none = "none"


class LossName(StrEnum):
    """Values of ``--loss``."""

    cross_entropy = "cross-entropy"
    mse = "mse"
    bce = "bce"


class Split(StrEnum):
    """Values of ``--split``."""

    test = "test"
    train = "train"


class OptimizerName(StrEnum):
    """Values of ``--optimizer``."""

    SGD = "SGD"
    Adam = "Adam"
    AdamW = "AdamW"


def explain(
    subject: Annotated[
        str | None,
        typer.Argument(
            help="A recipe, the folder of a run, or neuron (one neuron, one step).", show_default="neuron"
        ),
    ] = None,
    net: Annotated[
        str | None, typer.Option(help="A network written here: layer sizes, such as 2-3-2.")
    ] = None,
    activation: Annotated[
        Activation | None,
        typer.Option(help="Of --net between the layers, or of neuron.", show_default="relu"),
    ] = None,
    loss: Annotated[
        LossName | None,
        typer.Option(help="Of --net.", show_default="cross-entropy, of one output mse"),
    ] = None,
    input: Annotated[
        str | None,
        typer.Option(help="An example of your own: numbers separated by commas, a batch by semicolons."),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(help="The class of each example, such as 1 or 1,0."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="What mse, bce or neuron should give; as --input."),
    ] = None,
    index: Annotated[
        str | None,
        typer.Option(help="Images of the data set: 0, or a batch 0,5 or 0:8.", show_default="0"),
    ] = None,
    split: Annotated[Split, typer.Option(help="Which images --index counts.")] = Split.test,
    dataset: Annotated[
        str | None,
        typer.Option(help="A data set's name or its folder.", show_default="the run's; of a recipe auto"),
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Folder of the data sets.")] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Of all that is drawn: weights, masks, the example of --net.",
            show_default="0, or the recipe's",
        ),
    ] = None,
    weights: Annotated[
        Weights, typer.Option(help="A run's after the last epoch, or the best one.")
    ] = Weights.last,
    weights_of: Annotated[
        OneEngine | None, typer.Option(help="Which engine's, of a run of both.", show_default="the first")
    ] = None,
    train: Annotated[
        bool, typer.Option("--train", help="Dropout and BatchNorm as in training, not as in evaluation.")
    ] = False,
    weight: Annotated[
        str | None,
        typer.Option(help="Follow one weight, such as fc1.weight[3,17]."),
    ] = None,
    paths: Annotated[int, typer.Option(help="How many of its paths to list, the largest.")] = 10,
    step: Annotated[
        bool, typer.Option("--step", help="Take a step of the optimizer: the loss before and after.")
    ] = False,
    optimizer: Annotated[
        OptimizerName | None,
        typer.Option(help="Of the step.", show_default="the recipe's, else SGD"),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate",
            "--lr",
            help="Of the step.",
            show_default="the recipe's, of --net 0.1, of neuron 0.01",
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page that shows it, to step through.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print every number as JSON.")] = False,
    x: Annotated[
        str | None,
        typer.Option(help="Of neuron: the inputs, separated by commas.", show_default="1,2"),
    ] = None,
    w: Annotated[
        str | None,
        typer.Option(help="Of neuron: as many weights.", show_default="0.1,0.5"),
    ] = None,
    b: Annotated[float | None, typer.Option(help="Of neuron: the bias.", show_default="0.2")] = None,
) -> None:
    """Show one forward and one backward with every number: layer by layer, upstream times local = gradient.

    A recipe is shown untrained, a run with what it learnt, --net draws small weights. Large layers are
    summarised; --json and --html have all numbers.

    Example: chainrule explain --net 2-3-2 --activation tanh --weight fc1.weight[0,1] --step
    """
    of_neuron = {"--x": x, "--w": w, "--b": b}
    of_net = {"--loss": loss, "--net": net}
    of_example = {"--input": input, "--label": label, "--index": index, "--dataset": dataset, "--root": root}
    of_network = {
        **of_example,
        "--seed": seed,
        "--train": train or None,
        "--weight": weight,
        "--step": step or None,
        "--optimizer": optimizer,
        "--html": html,
    }
    if subject is None and net is None and any(value is not None for value in of_network.values()):
        raise WrongUsage("explain what? Give a recipe, the folder of a run, or --net, such as --net 2-3-2")
    if learning_rate is not None and not (math.isfinite(learning_rate) and learning_rate > 0):
        raise WrongUsage(f"--learning-rate must be a finite number above 0, found {learning_rate}")
    if net is None and subject in (None, "neuron"):
        _refuse({**of_network, **of_net}, "neuron")
        from chainrule.explaining import one_neuron

        one_neuron.show(
            "1,2" if x is None else x,
            "0.1,0.5" if w is None else w,
            0.2 if b is None else b,
            activation or "relu",
            "0.8" if target is None else target,
            0.01 if learning_rate is None else learning_rate,
            as_json,
        )
        return
    if net is not None and subject is not None:
        raise WrongUsage(f"--net is a network of its own: leave '{subject}' away, or --net")
    _refuse(of_neuron, "network", " (they are for: chainrule explain neuron)")
    if net is None:
        _refuse({**of_net, "--activation": activation}, "recipe or a run", " (they are for --net)")
    check_least(("--seed", seed, 0), ("--paths", paths, 1))

    if paths > _MOST_PATHS:
        raise WrongUsage(f"--paths must be at most {_MOST_PATHS:,}, found {paths:,}")

    from dataclasses import replace

    from chainrule import explaining

    wanted = explaining.Wanted(
        input, target, label, index, split, dataset, root and root.expanduser(), seed, train
    )
    if net is not None:
        network = explaining.from_net(net, activation or "relu", loss, 0.1, wanted)
    else:
        network = _named(str(subject), weights, weights_of, wanted)
    plan = explaining.with_optimizer(network.recipe, optimizer, learning_rate)
    shown = explaining.explain(replace(network, recipe=plan), weight=weight, most_paths=paths, step=step)
    if html is not None:
        import_module("chainrule.explaining.page").write(shown, html.expanduser())
        if not as_json:
            print(f"{html}: {html.expanduser().stat().st_size:,} bytes")
    if as_json:
        print(json.dumps(shown.to_dict(), indent=2, allow_nan=False))
    elif html is None:
        from chainrule.explaining import text

        for line in text.lines(shown, shutil.get_terminal_size((100, 24)).columns):
            print(line)


def _refuse(options: dict[str, Any], what: str, hint: str = "") -> None:
    """Raise WrongUsage for the first option that was given though it says nothing of ``what``."""
    for name, value in options.items():
        if value is not None:
            raise WrongUsage(f"{name} says nothing of a {what}{hint}")


def _named(name: str, weights: Weights, weights_of: OneEngine | None, wanted: "Wanted") -> "Subject":
    """Return the recipe or the run of this name."""
    from chainrule import explaining, recipe

    path = Path(name).expanduser()
    if name in recipe.known() or path.suffix == ".toml":
        if weights is not Weights.last or weights_of is not None:
            raise WrongUsage(f"--weights and --weights-of are for runs: the recipe '{name}' is untrained")
        return explaining.from_recipe(name, wanted)
    if path.exists() or (Path("runs") / path).is_dir() or len(path.parts) > 1:
        return explaining.from_run(path, weights, weights_of, wanted)
    known = ["neuron", *recipe.known()]
    raise WrongUsage(
        f"there is no '{name}' to explain. Known: {', '.join(known)}, the folder of a run, or --net 2-3-2."
        + nearest(name, known)
    )
