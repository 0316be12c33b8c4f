"""The folder of one training run: ``runs/<name>/``, each file in it written whole or not at all."""

import csv
import io
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
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
# What a run writes, and may replace: first what makes it a whole one, last what makes it a run.
_FILES = (
    *("summary.json", "checkpoint*.safetensors", "metrics.csv", "model*.safetensors", "best*.safetensors"),
    *("model*.pth", "best*.pth", "model*.onnx", "best*.onnx"),  # what was exported has the old run's weights
    *("curves.png", "samples.png", "confusion.png", "mistakes.png", "classes.png", "weights.png"),
    *(
        "features.png",
        "history.png",
        "reliability.png",
        "likeness.safetensors",
        "report.html",
        "tensorboard/*/events.*",
        "config.json",
    ),
)
# The newest checkpoint, and the one before it: one of them is whole at any moment.
CHECKPOINTS = ("checkpoint.safetensors", "checkpoint-before.safetensors")
_TEMPORARY = ".idx-*.tmp"  # what `replacing` was writing to when it was killed


class RunFolder:
    """A run's folder, made on entering, for one writer at a time.

    Before there is a model or a checkpoint a run that fails leaves no trace, and the run that ``overwrite``
    allows to replace stays whole. A run that is killed can be continued from its config.json on. With
    ``numbered`` the first free name of ``path``, ``path-2``, ``path-3`` ... is taken, and ``resume`` enters a
    run that is there and not complete. ``files`` has the names of what was written.

    Raises ChainruleError on entering if the folder is not empty (or, to resume, holds no such run), cannot be
    written, or is being written by another process.
    """

    def __init__(self, path: Path, *, overwrite: bool = False, numbered: bool = False, resume: bool = False):
        self.path = path
        self.files: list[str] = []
        self.worth_keeping = resume  # whether there is something to continue
        self._overwrite = overwrite
        self._numbered = numbered
        self._resume = resume
        self._replaces = False  # a run that is there, as soon as there is something worth keeping
        self._waiting: dict[str, bytes] = {}
        self._made: list[Path] = []
        self._lock = ExitStack()

    @property
    def how_to_resume(self) -> str:
        """What a person is told when the run ends early."""
        return f"`chainrule train --resume {shlex.quote(str(self.path))}` continues it"

    def __enter__(self) -> Self:
        try:
            self._enter()
            self._lock.enter_context(_locked(self.path))
            for file in self.path.glob(_TEMPORARY):
                file.unlink()
            # Whether files can be written here is found out now, not after the training.
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            self._leave()
            raise ChainruleError(f"cannot write a run to {self.path}: {error.strerror}") from None
        except ChainruleError:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(failed=error is not None)

    def _leave(self, failed: bool = True) -> None:
        if failed and not self.worth_keeping:
            for name in self.files:
                (self.path / name).unlink(missing_ok=True)
            self._remove_made()
        self._lock.close()

    def _enter(self) -> None:
        if not self._resume:
            self._make()
            return
        if (self.path / "summary.json").exists():
            self.remove_checkpoints()  # it may have been killed just before it did so itself
            raise ChainruleError(f"{self.path} is complete: there is nothing left to train")
        if not _is_run(self.path):
            raise ChainruleError(f"{self.path} holds no run: there is no config.json of chainrule")
        top = (pattern for pattern in _FILES if "/" not in pattern)
        self.files = [file.name for pattern in top for file in sorted(self.path.glob(pattern))]

    def _make(self) -> None:
        base = self.path
        for parent in reversed(base.parents):
            self._make_one(parent)
        for number in count(2):
            made_now = self._make_one(self.path)
            if made_now or not self._numbered:
                break
            self.path = base.with_name(f"{base.name}-{number}")
        if not made_now and any(not file.match(_TEMPORARY) for file in self.path.iterdir()):
            if not self._overwrite:
                raise ChainruleError(f"{self.path} is not empty: give another --out, or --overwrite")
            if not _is_run(self.path):
                raise ChainruleError(f"{self.path} holds files but no run: --overwrite leaves it alone")
            self._replaces = True

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
        self._replace(name, content, keep=True)

    def write_checkpoint(self, content: bytes) -> None:
        """Write the newest checkpoint; the newest so far becomes the one before."""
        self._replace(CHECKPOINTS[0], content, keep=True, before=CHECKPOINTS[1])

    def remove_checkpoints(self) -> None:
        """Remove what only a run that is not complete needs."""
        for name in CHECKPOINTS:
            (self.path / name).unlink(missing_ok=True)
        self.files = [name for name in self.files if name not in CHECKPOINTS]

    def write(self, name: str, content: bytes) -> None:
        """Write ``content`` as the file ``name``; when a run is to be replaced, as soon as it is."""
        if self._replaces:
            self._waiting[name] = content
        else:
            self._replace(name, content)

    def _replace(self, name: str, content: bytes, *, keep: bool = False, before: str | None = None) -> None:
        path = self.path / name
        try:
            with replacing(path) as file:
                write_all(file, content)
                if self._replaces:  # from here on nothing can be missing for the new run to take its place
                    self._replaces = False
                    self._remove_old_run()
                    while self._waiting:
                        self._replace(*self._waiting.popitem())
                if before is not None:
                    os.fsync(file.fileno())  # else both might be lost with the power
                    with suppress(FileNotFoundError):
                        path.replace(self.path / before)
        except OSError as error:
            kept = f"; {self.how_to_resume}" if self.worth_keeping else ""
            raise ChainruleError(f"cannot write {path}: {error.strerror}{kept}") from None
        self.worth_keeping |= keep
        if name not in self.files:
            self.files.append(name)

    def _remove_old_run(self) -> None:
        for pattern in _FILES:
            for file in self.path.glob(pattern):
                if file.name not in self._waiting:  # that one is replaced in one step
                    file.unlink()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Be the only one inside: a second process gets a ChainruleError. The lock ends with its process.

    Where the system has no such locks (Windows, some network drives) nothing is locked.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ChainruleError(f"{folder} is being written by another `chainrule train`") from None
        yield
    finally:
        os.close(descriptor)


def _is_run(path: Path) -> bool:
    """Whether the folder was written by a run: other programs write a config.json too."""
    try:
        config = json.loads((path / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and {"recipe", "dataset_sha256"} <= config.keys()
