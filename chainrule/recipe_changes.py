"""``--set training.epochs=5``: changes to a recipe's table before it is read, checked by name."""

import tomllib
from collections.abc import Iterable
from typing import Any

from chainrule.errors import WrongUsage, nearest

# The keys of a recipe's tables; "" is the whole file.
REQUIRED = {
    "": {"summary", "layers", "input", "training"},
    "input": {"shape", "mean", "std"},
    "training": {"loss", "optimizer", "batch_size", "epochs", "seed"},
    "init": {"weight"},
}
OPTIONAL = {
    "": {"init"},
    "training": {"scheduler", "validation", "early_stopping", "augment"},
    "init": {"bias"},
}


def changes(settings: Iterable[str]) -> dict[str, Any]:
    """Return what ``--set`` says: "training.epochs=5" gives ``{"training.epochs": 5}``.

    Values are TOML; a word without quotes is text. Raises WrongUsage.
    """
    result: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        key, text = key.strip(), text.strip()
        if not equals or not key or not text:
            raise WrongUsage(f"--set takes KEY=VALUE, such as training.epochs=5, found '{setting}'")
        try:
            table = tomllib.loads(f"value = {text}")
        except tomllib.TOMLDecodeError:
            if not text.replace("-", "_").isidentifier():
                raise WrongUsage(f"--set {key}: expected a value in TOML, found '{text}'") from None
            table = {"value": text}
        if table.keys() != {"value"}:
            raise WrongUsage(f"--set {key}: expected one value in TOML, found '{text}'")
        result[key] = table["value"]
    return result


def apply_change(table: dict[str, Any], path: str, value: Any) -> None:
    """Set what ``path`` names in a recipe's table; WrongUsage if there is nothing of that name.

    Arguments of a part are checked where all of them are, in `recipe_parts.read_part`.
    """
    here: Any = table
    *sections, last = path.split(".")
    for depth, key in enumerate(sections):
        where = ".".join(sections[:depth])
        if where == "layers":
            layers = {str(layer.get("name")): layer for layer in here if isinstance(layer, dict)}
            if key not in layers:
                raise WrongUsage(f"--set {path}: there is no layer '{key}'.{nearest(key, layers)}")
            here = layers[key]
        else:
            _check_known(path, where, key)
            here = here.setdefault(key, {})
        if not isinstance(here, dict | list):
            raise WrongUsage(
                f"--set {path}: {'.'.join(sections[: depth + 1])} is {here!r}, it has no '{last}'"
            )
    if isinstance(here, list):
        raise WrongUsage(f"--set {path}: name an argument of a layer, such as layers.fc1.out_features=64")
    _check_known(path, ".".join(sections), last)
    here[last] = value


def _check_known(path: str, section: str, key: str) -> None:
    if section in REQUIRED:
        keys = REQUIRED[section] | OPTIONAL.get(section, set())
        if key not in keys:
            raise WrongUsage(f"--set {path}: there is no '{key}'.{nearest(key, keys)}")
