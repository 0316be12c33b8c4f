"""An explanation as one page of HTML: stepped forward and backward, its numbers live, without a network."""

from pathlib import Path
from typing import Any

import numpy as np

from chainrule.errors import WrongUsage
from chainrule.explaining.encoding import encode
from chainrule.explaining.explanation import Explanation
from chainrule.files import write as write_file
from chainrule.pages import assemble, options

# From so many parameters on, large arrays are rounded to float32 and autograd's are left out: the page of the
# largest recipe, 1.5 million, would have 30 MB, and has 12.
MANY = 300_000
# A browser takes long over more, and a phone gives up: the examples of a batch then are too many.
MOST_MEGABYTES = 100

_SCRIPTS = (
    *("data.js", "engine.js", "losses.js", "view.js", "terms.js"),
    *("frames.js", "graph.js", "cards.js", "panel.js", "live.js", "explain.js"),
)


def write(explanation: Explanation, path: Path) -> None:
    """Write the page.

    Raises WrongUsage where it would be larger than MOST_MEGABYTES, and ChainruleError, which names ``path``,
    where it cannot be written.
    """
    write_file(path, page(explanation).encode())


def page(explanation: Explanation) -> str:
    """Return the page as HTML: the dictionary of the explanation, and scripts that show it.

    ``layers[i].options`` is added for the browser's engine, and ``autograd.apart``, by parameter: autograd's
    gradient minus the engine's, in float32, which gives autograd's back to the last digit but one.
    """
    layers = explanation.trace.layers
    many = _many(explanation)
    megabytes = _megabytes(explanation)
    if megabytes > MOST_MEGABYTES:
        raise WrongUsage(
            f"--html: the page would have about {megabytes:,.0f} MB; it is to have at most {MOST_MEGABYTES}. "
            "Give it fewer examples, or a smaller network"
        )
    data: dict[str, Any] = explanation.to_dict(single=many)
    if "step" in data:
        del data["step"]["after"]  # the page takes its steps itself
    for layer, traced in zip(data["layers"], layers, strict=True):
        layer["options"] = options(traced.module, traced.cache)
    if explanation.autograd is not None and not many:
        own = explanation.trace.gradients()
        apart = {key: array - own[key] for key, array in explanation.autograd.gradients.items()}
        data["autograd"]["apart"] = {key: encode(array.astype(np.float32)) for key, array in apart.items()}
    name = data["subject"]["name"]
    return assemble("explain", f"{name}: forward and backward", _SCRIPTS, data)


def _many(explanation: Explanation) -> bool:
    return sum(array.size for array in explanation.trace.parameters().values()) > MANY


def _megabytes(explanation: Explanation) -> float:
    """Return about how large the page will be, from its largest arrays: base64 makes 4 bytes of 3."""
    numbers = 0
    for layer in explanation.trace.layers:
        numbers += layer.output.size + layer.grad_output.size + layer.grad_input.size
        numbers += 0 if layer.local.values is None else layer.local.values.size
        numbers += 2 * sum(array.size for array in layer.parameters.values())
    return numbers * (4 if _many(explanation) else 8) * 4 / 3 / 1e6
