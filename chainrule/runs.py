"""The folder of one training run: ``runs/<name>/``, each file in it written whole or not at all."""

import csv
import io
import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from chainrule.errors import ChainruleError
from idx.writing import replacing, write_all

METRICS_COLUMNS = ("epoch", "engine", "split", "loss", "accuracy", "learning_rate", "seconds")


class RunFolder:
    """A run's folder: made on entering; taken away again when the run fails before anything of use is in it.

    Raises ChainruleError on entering if the folder holds anything and ``overwrite`` is false.
    """

    def __init__(self, path: Path, *, overwrite: bool = False):
        self.path = path
        self.overwrite = overwrite
        self.worth_keeping = False
        self._made: list[Path] = []
        self._written: list[Path] = []

    def __enter__(self) -> Self:
        try:
            if self.path.is_dir() and any(self.path.iterdir()):
                if not self.overwrite:
                    raise ChainruleError(f"{self.path} is not empty: give another --out, or --overwrite")
                self._remove_old_run()
            self._make(self.path)
            # Whether files can be written here is found out now, not after the training.
            with replacing(self.path / "config.json"):
                pass
            (self.path / "config.json").unlink()
        except OSError as error:
            self._remove_made()
            raise ChainruleError(f"cannot write a run to {self.path}: {error.strerror}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or self.worth_keeping:
            return
        for file in self._written:
            file.unlink(missing_ok=True)
        self._remove_made()

    def _remove_old_run(self) -> None:
        if not (self.path / "config.json").is_file():
            raise ChainruleError(
                f"{self.path} holds files but no run (no config.json): --overwrite leaves it alone"
            )
        for file in self.path.iterdir():
            if file.is_file() and file.suffix in (".json", ".csv", ".safetensors", ".png"):
                file.unlink()

    def _make(self, path: Path) -> None:
        if not path.exists():
            self._make(path.parent)
            path.mkdir()
            self._made.append(path)
        elif not path.is_dir():
            raise ChainruleError(f"cannot write a run to {self.path}: {path} is a file, not a folder")

    def _remove_made(self) -> None:
        for path in reversed(self._made):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        """Write ``value`` as ``name``."""
        self.write(name, (json.dumps(value, indent=2) + "\n").encode())

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

        self.write(name, save({key: np.ascontiguousarray(value) for key, value in state.items()}))

    def write(self, name: str, content: bytes) -> None:
        """Write ``content`` as the file ``name``; the run is then worth keeping if that is a model."""
        path = self.path / name
        try:
            with replacing(path) as file:
                write_all(file, content)
        except OSError as error:
            raise ChainruleError(f"cannot write {path}: {error.strerror}") from None
        self._written.append(path)
        self.worth_keeping |= path.suffix == ".safetensors"


def new_folder(name: str, root: Path = Path("runs")) -> Path:
    """Return ``root/name``, or ``root/name-2`` and so on: the first that does not exist."""
    path, number = root / name, 2
    while path.exists():
        path, number = root / f"{name}-{number}", number + 1
    return path
