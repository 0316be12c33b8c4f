"""The page in which a run's network reads what one draws, with its own weights, in the browser."""

from typing import Any

import numpy as np

import nn_reference
from chainrule.errors import ChainruleError
from chainrule.explaining.encoding import encode
from chainrule.pages import assemble, options
from chainrule.saved import SavedRun

_SCRIPTS = ("data.js", "engine.js", "view.js", "strokes.js", "draw.js")


def page(run: SavedRun, state: dict[str, np.ndarray], weights: str) -> str:
    """Return the page as HTML. ``state`` is the run's state dict, ``weights`` the name of its file.

    The weights are in it as they are in that file, in float32; the browser computes in float64. Raises
    ChainruleError for a network that does not take images of one channel.
    """
    recipe = run.recipe
    if len(recipe.input_shape) not in (2, 3) or recipe.input_shape[:-2] not in ((), (1,)):
        raise ChainruleError(
            f"{run.path}: its network takes {recipe.input_shape}; one can draw an image of one channel, "
            "such as (28, 28)"
        )
    data = {
        "run": run.path.resolve().name,
        "recipe": recipe.name,
        "summary": recipe.summary,
        "dataset": run.config["dataset"],
        "weights": weights,
        "class_names": run.class_names,
        "input_shape": recipe.input_shape,
        "mean": recipe.mean,
        "std": recipe.std,
        "layers": _layers(run, state),
    }
    return assemble("draw", f"Draw for {data['run']}", _SCRIPTS, data)


def _layers(run: SavedRun, state: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    network = run.recipe.build(nn_reference).eval()
    for name, module in network.named_modules():
        if getattr(module, "track_running_stats", True) is False:
            raise ChainruleError(f"{run.path}: '{name}' has no running statistics, and one image is no batch")
    with nn_reference.Tape(network) as tape:
        network(np.zeros((1, *run.recipe.input_shape), np.float32))
    return [
        {
            "name": call.name,
            "kind": type(call.layer).__name__,
            "options": options(call.layer, call.cache),
            "parameters": {
                key.removeprefix(f"{call.name}."): encode(array)
                for key, array in state.items()
                if key.startswith(f"{call.name}.") and array.dtype == np.float32
            },
        }
        for call in tape.calls
    ]
