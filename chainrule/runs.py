"""The folder of one training run: ``runs/<name>/``, each file in it written whole or not at all."""

import csv
import io
import json
import tempfile
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from chainrule.errors import ChainruleError
from idx.writing import replacing, write_all

METRICS_COLUMNS = (
    *("epoch", "engine", "split", "loss", "accuracy"),
    *("learning_rate", "gradient_norm", "seconds"),  # of the training: a run's other splits leave them empty
)
# What a run writes, and may replace.
_FILES = (
    *("model*.pth", "best*.pth", "model*.onnx", "best*.onnx"),  # what was exported has the old run's weights
    *("config.json", "metrics.csv", "summary.json", "model*.safetensors", "best*.safetensors"),
    *("curves.png", "samples.png", "confusion.png", "mistakes.png", "classes.png", "weights.png"),
    *("features.png", "history.png", "report.html", "tensorboard/*/events.*"),
)


class RunFolder:
    """A run's folder, made on entering.

    Nothing is written before there is a model: a run that fails earlier leaves no trace, and the run that
    ``overwrite`` allows to replace stays whole until then. With ``numbered`` the first free name of ``path``,
    ``path-2``, ``path-3`` ... is taken. ``files`` has the names of what was written.

    Raises ChainruleError on entering if the folder is not empty, or cannot be written.
    """

    def __init__(self, path: Path, *, overwrite: bool = False, numbered: bool = False):
        self.path = path
        self.files: list[str] = []
        self._overwrite = overwrite
        self._numbered = numbered
        self._waiting: dict[str, bytes] = {}
        self._made: list[Path] = []

    @property
    def has_model(self) -> bool:
        """Whether there is something in the folder that is worth keeping."""
        return bool(self.files)

    def __enter__(self) -> Self:
        try:
            self._make()
            # Whether files can be written here is found out now, not after the training.
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            self._remove_made()
            raise ChainruleError(f"cannot write a run to {self.path}: {error.strerror}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not self.has_model:
            self._remove_made()

    def _make(self) -> None:
        base = self.path
        for parent in reversed(base.parents):
            self._make_one(parent)
        for number in count(2):
            made_now = self._make_one(self.path)
            if made_now or not self._numbered:
                break
            self.path = base.with_name(f"{base.name}-{number}")
        if not made_now and any(self.path.iterdir()):
            if not self._overwrite:
                raise ChainruleError(f"{self.path} is not empty: give another --out, or --overwrite")
            if not _is_run(self.path):
                raise ChainruleError(f"{self.path} holds files but no run: --overwrite leaves it alone")

    def _make_one(self, path: Path) -> bool:
        try:
            path.mkdir()
        except OSError:
            if path.is_dir():
                return False
            if path.exists():
                message = f"cannot write a run to {self.path}: {path} is a file, not a folder"
                raise ChainruleError(message) from None
            raise
        self._made.append(path)
        return True

    def _remove_made(self) -> None:
        for path in reversed(self._made):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        """Write ``value`` as ``name``."""
        self.write(name, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())

    def write_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Write ``metrics.csv``, one row for each epoch, engine and split."""
        text = io.StringIO()
        writer = csv.DictWriter(text, METRICS_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self.write("metrics.csv", text.getvalue().encode())

    def write_model(self, name: str, state: dict[str, np.ndarray]) -> None:
        """Write a state dict in the safetensors format, under PyTorch's keys."""
        from safetensors.numpy import save

        content = save({key: np.asarray(value, order="C") for key, value in state.items()})
        self._replace(name, content, first=not self.has_model)
        while self._waiting:
            self._replace(*self._waiting.popitem())

    def write(self, name: str, content: bytes) -> None:
        """Write ``content`` as the file ``name``, as soon as there is a model."""
        if self.has_model:
            self._replace(name, content)
        else:
            self._waiting[name] = content

    def _replace(self, name: str, content: bytes, *, first: bool = False) -> None:
        path = self.path / name
        try:
            with replacing(path) as file:
                write_all(file, content)
                if first:  # from here on nothing can be missing for the new model to take its place
                    self._remove_old_run()
        except OSError as error:
            kept = f"; {self.path} holds the model after the last whole epoch" if self.has_model else ""
            raise ChainruleError(f"cannot write {path}: {error.strerror}{kept}") from None
        if name not in self.files:
            self.files.append(name)

    def _remove_old_run(self) -> None:
        for pattern in _FILES if self._overwrite and _is_run(self.path) else ():
            for file in self.path.glob(pattern):
                file.unlink()


def _is_run(path: Path) -> bool:
    """Whether the folder was written by a run: other programs write a config.json too."""
    try:
        config = json.loads((path / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and {"recipe", "dataset_sha256"} <= config.keys()
