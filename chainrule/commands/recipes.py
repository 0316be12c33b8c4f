"""``chainrule recipes``: what can be trained, and ``recipes show``: one network, layer by layer."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chainrule.errors import ChainruleError

if TYPE_CHECKING:
    from chainrule.recipe import Part, Recipe

recipes = typer.Typer(add_completion=False, rich_markup_mode=None)

AsJson = Annotated[bool, typer.Option("--json", help="Print the same as JSON.")]


@recipes.callback(invoke_without_command=True)
def list_recipes(context: typer.Context, as_json: AsJson = False) -> None:
    """List the recipes: networks, and how each is trained.

    Example: chainrule recipes
    """
    if context.invoked_subcommand is not None:
        return
    from chainrule.recipe import known, load

    plans = [load(name) for name in known()]
    if as_json:
        print(json.dumps([_short(plan) for plan in plans], indent=2))
        return
    width = max(len(plan.name) for plan in plans)
    summaries = max(len(plan.summary) for plan in plans)
    print(f"{'recipe':{width}}  {'network':{summaries}}  parameters  epochs  batch")
    for plan in plans:
        parameters = sum(plan.parameter_counts())
        print(
            f"{plan.name:{width}}  {plan.summary:{summaries}}  {parameters:10,}"
            f"  {plan.epochs:6}  {plan.batch_size:5}"
        )


@recipes.command()
def show(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, or a recipe file of your own.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change it first: layers.fc1.out_features=64."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the layers of a recipe with output shapes and parameter counts, and its training.

    Example: chainrule recipes show ann
    """
    from chainrule.recipe import changes, load

    plan = load(recipe, changes(settings or []))
    try:
        layers = _layers(plan)
    except Exception as error:  # sizes that nothing can hold, a name that a layer cannot have
        raise ChainruleError(f"{plan.source}: the network cannot be built: {error}") from None
    total = sum(layer["parameters"] for layer in layers)
    if as_json:
        print(json.dumps({**_short(plan), "layers": layers, "training": _training(plan)}, indent=2))
        return
    rows = [
        (layer["name"], _call(layer), _shape(layer["shape"]), f"{layer['parameters']:,}") for layer in layers
    ]
    rows = [
        ("layer", "", "output shape", "parameters"),
        ("", "one image", _shape(plan.input_shape), ""),
        *rows,
        ("total", "", "", f"{total:,}"),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    print(f"{plan.name}: {plan.summary}\n")
    for name, call, shape, count in rows:
        line = f"{name:{widths[0]}}  {call:{widths[1]}}  {shape:>{widths[2]}}  {count:>{widths[3]}}"
        print(line.rstrip())
    print()
    for name, value in _training(plan).items():
        print(f"{name:10} {value}")


def _layers(plan: "Recipe") -> list[dict[str, Any]]:
    return [
        {
            "name": layer.name,
            "type": layer.type,
            "arguments": layer.arguments,
            "shape": list(shape),
            "parameters": count,
        }
        for layer, shape, count in zip(plan.layers, plan.shapes, plan.parameter_counts(), strict=True)
    ]


def _short(plan: "Recipe") -> dict[str, Any]:
    return {
        "name": plan.name,
        "source": plan.source,
        "summary": plan.summary,
        "input_shape": list(plan.input_shape),
        "parameters": sum(plan.parameter_counts()),
        "epochs": plan.epochs,
        "batch_size": plan.batch_size,
        "seed": plan.seed,
    }


def _training(plan: "Recipe") -> dict[str, str]:
    """Return how it is trained, in the words of ``torch.nn`` and ``torch.optim``."""
    weight, bias = plan.init_weight, plan.init_bias
    drawn = "torch.nn's defaults"
    if weight is not None:
        drawn = f"weights {_called(weight)}, biases {_called(bias) if bias else drawn}"
    each = f", stepped every {'epoch' if plan.interval == 'epoch' else 'batch'}"
    kept = f"{plan.validation:,} training images kept back"
    stop = f", stop after {plan.early_stopping} epochs without a better one" if plan.early_stopping else ""
    return {
        "input": f"(pixel / 255 - {plan.mean:g}) / {plan.std:g}",
        "init": drawn,
        "loss": _called(plan.loss),
        "optimizer": _called(plan.optimizer),
        **({"scheduler": _called(plan.scheduler) + each} if plan.scheduler else {}),
        "batches": f"of {plan.batch_size}",
        "epochs": str(plan.epochs),
        "seed": str(plan.seed),
        **({"validation": kept + stop} if plan.validation else {}),
    }


def _called(part: "Part") -> str:
    return _call({"type": part.type, "arguments": part.arguments})


def _call(layer: dict[str, Any]) -> str:
    return f"{layer['type']}({', '.join(f'{key}={value!r}' for key, value in layer['arguments'].items())})"


def _shape(shape: Any) -> str:
    return " x ".join(map(str, shape))
