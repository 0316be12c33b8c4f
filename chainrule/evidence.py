"""A run as its folder tells it: what was to be trained, how it went, and what came out.

Nothing is trained or evaluated here, and neither the weights nor the data set are needed.
"""

import csv
import json
import math
import reprlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chainrule.errors import ChainruleError, nearest

_WORDS = ("engine", "split")


@dataclass(frozen=True)
class Evidence:
    """The files of a run. ``summary`` is None and ``metrics`` may be empty when it was stopped."""

    path: Path
    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    summary: dict[str, Any] | None

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.path.resolve().name

    @property
    def engines(self) -> list[str]:
        """The names of its engines, the one whose model is the run's first."""
        return engines_of(self.config)

    @property
    def layers(self) -> list[str]:
        """The types of its layers."""
        return [str(layer["type"]) for layer in self.config["recipe"]["layers"]]

    def results(self, engine: str) -> dict[str, Any]:
        """Return what an engine has reached; of a run that was stopped, what its last whole epoch says."""
        if self.summary is not None:
            found: dict[str, Any] = self.summary["engines"][engine]
            return found
        rows = [row for row in self.metrics if row["engine"] == engine]
        last = {row["split"]: row for row in rows}  # a later epoch takes the place of an earlier one
        return {
            "epochs": max((row["epoch"] for row in rows), default=0),
            "seconds": sum(row["seconds"] for row in rows if row["split"] == "train"),
            **{
                f"{split}_{quantity}": last[split][quantity]
                for split in ("train", "test")
                if split in last
                for quantity in ("loss", "accuracy")
            },
        }


def engines_of(config: dict[str, Any]) -> list[str]:
    """Return the names of a run's engines, the one whose model is the run's first."""
    engine = config.get("engine")
    return ["numpy", "torch"] if engine == "both" else [str(engine)]


def locate(path: Path) -> Path:
    """Return the folder of a run: ``path``, or ``runs/path`` where only that exists."""
    path = path.expanduser()
    if not path.exists() and (Path("runs") / path).is_dir():
        path = Path("runs") / path
    if path.is_file():
        raise ChainruleError(f"{path} is a file: expected the folder of a run")
    if not path.is_dir():
        parent = path.parent if path.parent != Path() else Path("runs")
        beside = [str(file.parent) for file in parent.glob("*/config.json")]
        raise ChainruleError(
            f"{path}: there is no such run.{nearest(str(path), beside) or ' chainrule runs lists them.'}"
        )
    return path


def read(path: Path) -> Evidence:
    """Return the run in a folder, ``path`` or ``runs/path``.

    Raises ChainruleError, one line that names the file, where there is none or what is there is damaged.
    """
    path = locate(path)
    run = Evidence(path, read_config(path), _metrics(path / "metrics.csv"), _json(path / "summary.json"))
    results = "metrics.csv" if run.summary is None else "summary.json"
    for file, check in (("config.json", _check_config), (results, _check_results)):
        try:
            check(run)
        except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
            raise ChainruleError(f"{path / file}: not what a run writes: {_why(error)}") from None
    return run


def read_config(path: Path) -> dict[str, Any]:
    """Return what config.json in the folder of a run says; its recipe is not looked into.

    Raises ChainruleError where there is none, or it is damaged.
    """
    file = path / "config.json"
    config = _json(file)
    if config is None:
        raise ChainruleError(f"{path} holds no run: config.json is missing")
    try:
        _expect(config, "recipe", dict)
        _expect(config, "dataset", str)
        _expect(config, "dataset_sha256", dict)
    except (KeyError, ValueError) as error:
        raise ChainruleError(f"{file}: not what a run writes: {_why(error)}") from None
    return config


def _check_config(run: Evidence) -> None:
    """Look at all that is printed later, so that what is missing or of the wrong kind shows here."""
    recipe = run.config["recipe"]
    for key in ("name", "summary"):
        _expect(recipe, key, str)
    for key in ("seed", "epochs", "batch_size"):
        _expect(recipe, key, int)
    _expect(recipe, "layers", list)
    for part in (*recipe["layers"], recipe["optimizer"]):
        _expect(part, "type", str)
        _expect(part, "arguments", dict)
    _expect({"command": [], **run.config}, "command", list)
    _expect({"versions": {}, **run.config}, "versions", dict)
    if run.config["engine"] not in ("numpy", "torch", "both"):
        raise ValueError(f"engine is {run.config['engine']!r}")


def _check_results(run: Evidence) -> None:
    for engine in run.engines:
        results = run.results(engine)
        _expect(results, "epochs", int)
        _expect(results, "seconds", int, float)
        for quantity in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
            if run.summary is not None or quantity in results:
                _expect(results, quantity, int, float)
    overview(run)


def _expect(table: Any, key: str, *kinds: type) -> None:
    """Raise KeyError or ValueError unless ``table[key]`` is of one of ``kinds``, and finite."""
    value = table[key]
    if not isinstance(value, kinds) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"{key} is {reprlib.repr(value)}")


def _why(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _json(file: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ChainruleError(f"{file}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ChainruleError(f"{file}: not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ChainruleError(f"{file}: expected a JSON object, found {type(value).__name__}")
    return value


def _metrics(file: Path) -> list[dict[str, Any]]:
    """Return the rows of ``metrics.csv``; a quantity that a split does not have is None."""
    try:
        with file.open(newline="", encoding="utf-8") as text:
            rows = csv.DictReader(text)
            return [_row(row) for row in rows]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ChainruleError(f"{file}: {error.strerror}") from None
    except (AttributeError, csv.Error, KeyError, TypeError, ValueError) as error:
        raise ChainruleError(f"{file}: not the metrics of a run: {_why(error)}") from None


def _row(row: dict[str, Any]) -> dict[str, Any]:
    numbers = {key: float(value) if value else None for key, value in row.items() if key not in _WORDS}
    for key in ("loss", "accuracy", "epoch"):
        if numbers[key] is None:
            raise ValueError(f"a row has no {key}")
    return {**{key: row[key] for key in _WORDS}, **numbers, "epoch": int(row["epoch"])}


def find(folder: Path) -> Iterator[Path]:
    """Give the folders in ``folder`` that hold a run, by name, or itself if it is one."""
    if not folder.is_dir():
        raise ChainruleError(f"{folder}: there is no such folder. `chainrule train` makes runs in ./runs")
    if (folder / "config.json").is_file():
        yield folder
    yield from sorted(file.parent for file in folder.glob("*/config.json"))


def overview(run: Evidence) -> list[dict[str, Any]]:
    """Return what lists of runs show, a row for each engine; what a stopped run does not know is None."""
    recipe = run.config["recipe"]
    rows = []
    for engine in run.engines:
        results = run.results(engine)
        best = results.get("best") or {}
        rows.append(
            {
                "name": run.name,
                "recipe": str(recipe["name"]),
                "engine": engine,
                "data": str(run.config["dataset"]),
                "epochs": results["epochs"],
                "seed": recipe["seed"],
                "test_accuracy": results.get("test_accuracy"),
                "test_loss": results.get("test_loss"),
                "best_epoch": best.get("epoch"),
                "best_test_accuracy": best.get("test_accuracy"),
                "seconds": results["seconds"],
                "state": "finished" if run.summary is not None else "stopped",
                "folder": str(run.path),
            }
        )
    return rows


def differences(first: Evidence, second: Evidence) -> dict[str, tuple[Any, Any]]:
    """Return in what the config.json of two runs differ, by dotted keys; None where one has no such key.

    The command and where the data lay do not count, but the data's SHA-256s do.
    """
    flat = [dict(_flat(run.config)) for run in (first, second)]
    keys = dict.fromkeys([*flat[0], *flat[1]])
    left_out = ("command", "dataset_folder", "recipe.source", "recipe.shapes")
    return {
        key: (flat[0].get(key), flat[1].get(key))
        for key in keys
        if not key.startswith(left_out) and flat[0].get(key) != flat[1].get(key)
    }


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Give every leaf with its dotted key; a layer or an optimizer is one leaf, as Python writes it."""
    if isinstance(value, dict) and "type" in value and isinstance(value.get("arguments"), dict):
        arguments = ", ".join(f"{name}={setting}" for name, setting in value["arguments"].items())
        yield key, f"{value['type']}({arguments})"
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from _flat(part, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and any(isinstance(part, dict) for part in value):
        for number, part in enumerate(value):
            name = part.get("name") if isinstance(part, dict) else None
            yield from _flat(part, f"{key}.{name or number}")
    else:
        yield key, value
