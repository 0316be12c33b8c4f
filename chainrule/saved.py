"""A run read back from its folder: the recipe that was trained, the weights, and the data set."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import nn_reference
from chainrule import datasets
from chainrule.datasets import Dataset
from chainrule.errors import ChainruleError
from chainrule.evidence import engines_of, locate, read_config
from chainrule.manifest import sources
from chainrule.recipe import Recipe, restore

WEIGHTS = {"last": "model.safetensors", "best": "best.safetensors"}


@dataclass(frozen=True)
class SavedRun:
    """A run's folder, its recipe with all options and changes, and the rest of what config.json says."""

    path: Path
    recipe: Recipe
    config: dict[str, Any]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the outputs: those of a known data set, else their numbers."""
        known = sources().get(self.config["dataset"])
        return known.classes if known and known.classes else tuple(map(str, range(self.recipe.shapes[-1][0])))

    def temperature(self, which: str = "last", trained_by: str | None = None) -> float | None:
        """What the outputs are divided by to make probabilities true; None for a run that did not find it.

        It is found for the weights after the last epoch, by validation images: `chainrule.calibration`.
        """
        file = self.path / "summary.json"
        try:
            summary = json.loads(file.read_text("utf-8"))
            engine = trained_by or engines_of(self.config)[0]
            found = summary["engines"][engine].get("calibration", {}).get("temperature")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ChainruleError(f"{file}: not what a run writes: {error}") from None
        if found is None or which != "last":
            return None
        if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found < float("inf"):
            raise ChainruleError(f"{file}: a temperature of {found!r}: expected a number above 0")
        return float(found)


def open_run(path: Path) -> SavedRun:
    """Return the run in a folder: ``path``, or ``runs/path`` where only that exists.

    Raises ChainruleError where there is none, and if its config.json is damaged.
    """
    path = locate(path)
    config = read_config(path)
    return SavedRun(path, restore(config["recipe"], str(path / "config.json")), config)


def weights_file(run: SavedRun, which: str = "last", trained_by: str | None = None) -> str:
    """Return the name of the file with the weights that an engine reached (None: the run's first engine).

    Raises ChainruleError for an engine that the run was not trained with.
    """
    engines = engines_of(run.config)
    if trained_by is None or trained_by == engines[0]:
        return WEIGHTS[which]
    if trained_by not in engines:
        raise ChainruleError(
            f"{run.path} was trained with {engines[0]} alone: it has no weights of {trained_by}"
        )
    return f"{Path(WEIGHTS[which]).stem}-{trained_by}.safetensors"


def load_weights(run: SavedRun, which: str = "last", trained_by: str | None = None) -> dict[str, np.ndarray]:
    """Return the state dict ("last" or "best" epoch) for either engine, float32 but for counters (int64).

    Raises ChainruleError, with the file and the first thing that is wrong, unless every array of the network
    is there, with its shape and dtype and finite numbers, and none besides.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = run.path / weights_file(run, which, trained_by)
    try:
        state = load(path.read_bytes())
    except FileNotFoundError:
        why = ": a run trained with --validation keeps it" if which == "best" else ""
        raise ChainruleError(f"{path}: missing{why}") from None
    except OSError as error:
        raise ChainruleError(f"{path}: {error.strerror}") from None
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ChainruleError(f"{path}: damaged, or not a safetensors file: {error}") from None
    expected = _blank_state(run)
    wrong = [f"{key} is missing" for key in expected if key not in state]
    wrong += [f"{key} is not in the network" for key in state if key not in expected]
    for key in expected.keys() & state.keys():
        found, wanted = _kind(state[key]), _kind(expected[key])
        if found != wanted:
            wrong.append(f"{key} is {found}, expected {wanted}")
        elif not np.isfinite(state[key]).all():
            wrong.append(f"{key} holds numbers that are not finite")
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise ChainruleError(f"{path}: not the weights of this run's {run.recipe.name}: {wrong[0]}{more}")
    return state


def _blank_state(run: SavedRun) -> dict[str, np.ndarray]:
    try:
        return dict(run.recipe.build(nn_reference).state_dict())
    except Exception as error:
        raise ChainruleError(f"{run.recipe.source}: the network cannot be built: {error}") from None


def _kind(array: np.ndarray) -> str:
    return f"{array.dtype} {array.shape}"


def load_data(run: SavedRun, name: str | None = None, root: Path | None = None) -> tuple[Dataset, bool]:
    """Return the data set of a run, and whether it is the one that the run was trained on, by its SHA-256s.

    Without a ``name`` it is looked for below ``root``, in the folder that the run took it from, and in the
    default place; other bytes than those of the run are refused. A data set that is asked for by name or
    folder may be another one.

    Raises ChainruleError when it is not here, damaged, not the run's, or does not fit the network.
    """
    data = _recorded(run, root) if name is None else datasets.load(name, root)
    same = is_data_of(run, data)
    if name is None and not same:
        raise ChainruleError(
            f"{data.folder}: not the files that {run.path} was trained on, by their SHA-256; "
            f"to use them nevertheless: --dataset {data.folder}"
        )
    shape, classes = data.test_images.shape[1:], len(data.class_names)
    if run.recipe.input_shape not in (shape, (1, *shape)) or run.recipe.shapes[-1] != (classes,):
        raise ChainruleError(
            f"{data.title} has {classes} classes of images of {shape}; {run.path} takes images of "
            f"{run.recipe.input_shape} and has {run.recipe.shapes[-1]} outputs"
        )
    return data, same


def _recorded(run: SavedRun, root: Path | None) -> Dataset:
    name, folder = run.config["dataset"], run.config.get("dataset_folder")
    if name in datasets.known() and (root is not None or name == "digits"):
        return datasets.load(name, root)
    if isinstance(folder, str) and Path(folder).is_dir():
        return datasets.load(folder)
    if name in datasets.known():
        return datasets.load(name, root)
    raise ChainruleError(
        f"{run.path} was trained on '{name}' in {folder}, which is not here: give --dataset FOLDER"
    )


def is_data_of(run: SavedRun, data: Dataset) -> bool:
    """Tell whether this is what the run was trained on, by the SHA-256s."""
    return _contents(data.sha256) == _contents(run.config["dataset_sha256"])


def _contents(sha256: Any) -> set[str]:
    """Return what the files hold: of a published file the SHA-256 that it has as published, packed or not."""
    published = {
        file.raw_sha256: file.sha256
        for source in sources().values()
        for file in source.files.values()
        if file.raw_sha256
    }
    found = map(str, sha256.values()) if isinstance(sha256, dict) else ()
    return {published.get(value, value) for value in found}
