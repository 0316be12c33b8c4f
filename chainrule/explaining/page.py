"""An explanation as one page of HTML: stepped forward and backward, its numbers live, without a network."""

from pathlib import Path
from typing import Any

import numpy as np

from chainrule.explaining.encoding import encode
from chainrule.explaining.explanation import Explanation
from chainrule.files import write as write_file
from chainrule.pages import assemble, options

# From so many parameters on, large arrays are rounded to float32 and autograd's are left out: the page of the
# largest recipe, 1.5 million, would have 30 MB, and has 12.
MANY = 300_000

_SCRIPTS = (
    *("data.js", "engine.js", "losses.js", "view.js", "terms.js"),
    *("frames.js", "graph.js", "cards.js", "panel.js", "live.js", "explain.js"),
)


def write(explanation: Explanation, path: Path) -> None:
    """Write the page. Raises ChainruleError, which names ``path``, where that cannot be written."""
    write_file(path, page(explanation).encode())


def page(explanation: Explanation) -> str:
    """Return the page as HTML: the dictionary of the explanation, and scripts that show it.

    ``layers[i].options`` is added for the browser's engine, and ``autograd.apart``, by parameter: autograd's
    gradient minus the engine's, in float32, which gives autograd's back to the last digit but one.
    """
    layers = explanation.trace.layers
    many = sum(array.size for array in explanation.trace.parameters().values()) > MANY
    data: dict[str, Any] = explanation.to_dict(single=many)
    for layer, traced in zip(data["layers"], layers, strict=True):
        layer["options"] = options(traced.module, traced.cache)
    if explanation.autograd is not None and not many:
        own = explanation.trace.gradients()
        apart = {key: array - own[key] for key, array in explanation.autograd.gradients.items()}
        data["autograd"]["apart"] = {key: encode(array.astype(np.float32)) for key, array in apart.items()}
    name = data["subject"]["name"]
    return assemble("explain", f"{name}: forward and backward", _SCRIPTS, data)
