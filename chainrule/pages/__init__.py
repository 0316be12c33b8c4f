"""Pages that compute: one HTML file each, with its style, scripts and data inside, that needs no network.

The sources lie beside this file and are put into the page as they are: `engine.js` is the network in the
browser, `view.js` draws arrays, `data.js` reads what the page was given; each page has a script of its own.
"""

import base64
import hashlib
import json
from html import escape
from importlib import resources
from string import Template
from typing import Any

import numpy as np


def assemble(name: str, title: str, scripts: tuple[str, ...], data: dict[str, Any]) -> str:
    """Return the page ``name``.html with these scripts, in this order, and ``data`` as JSON.

    What is in ``data`` stays text: the JSON holds no ``<``, and the page's policy lets the browser run
    nothing but these scripts, by their SHA-256, and load nothing at all.
    """
    sources = [f"\n{_source(script)}" for script in scripts]
    policy = [
        "default-src 'none'",
        "img-src data:",
        "style-src 'unsafe-inline'",
        f"script-src {' '.join(_fingerprint(source) for source in sources)}",
    ]
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Template(_source(f"{name}.html")).substitute(
        title=escape(title),
        policy=escape("; ".join(policy), quote=False),
        style=_source("style.css"),
        data=text.replace("<", "\\u003c"),
        scripts="\n".join(f"<script>{source}</script>" for source in sources),
    )


def _source(name: str) -> str:
    return resources.files("chainrule.pages").joinpath(name).read_text("utf-8")


def _fingerprint(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


def options(module: Any, cache: Any) -> dict[str, Any]:
    """Return what `engine.js` needs to know of a layer, defaults included.

    ``cache`` is what it remembered of a forward, as a Tape records it: of convolution and pooling it has the
    windows that the layer laid on its image, border and all.
    """
    kind = type(module).__name__
    if kind in ("BatchNorm1d", "BatchNorm2d"):
        return {"eps": float(module.eps)}
    if kind in ("Conv2d", "MaxPool2d", "AvgPool2d"):
        windows = cache.windows if kind == "Conv2d" else cache[2]
        found = {"kernel_size": windows.kernel, "stride": windows.stride, "dilation": windows.dilation}
        found |= {"border": windows.border}
        found |= {"groups": module.groups} if kind == "Conv2d" else {}
        return found | ({"divisor": np.ravel(cache[1]).tolist()} if kind == "AvgPool2d" else {})
    names = ("start_dim", "end_dim", "dim", "negative_slope", "alpha", "approximate")
    return {name: getattr(module, name) for name in names if hasattr(module, name)}
