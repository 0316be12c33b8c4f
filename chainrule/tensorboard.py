"""A run's metrics as TensorBoard reads them: ``tensorboard --logdir runs``.

Written with TensorBoard's own writer, not with torch.utils.tensorboard: a run of the NumPy engine needs no
PyTorch.
"""

from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from chainrule.errors import ChainruleError

_QUANTITIES = ("loss", "accuracy", "learning_rate", "gradient_norm", "seconds")


def check_installed() -> None:
    """Raise ChainruleError, with what to do, unless TensorBoard is installed."""
    if find_spec("tensorboard") is None:
        raise ChainruleError(
            "--tensorboard needs TensorBoard, which is not installed: pip install 'chainrule[tensorboard]'"
        )


class Log:
    """Event files below ``folder``, one folder for each engine, so that TensorBoard draws them as two runs.

    Nothing is made before the first row is added, and nothing at all if ``folder`` is None.
    """

    def __init__(self, folder: Path | None):
        self.folder = folder
        self._writers: dict[Path, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in self._writers.values():
            writer.close()

    def begin(self, rows: list[dict[str, Any]]) -> None:
        """Log the rows that a resumed run has already, in place of what it had logged when it was killed."""
        if self.folder is not None and rows:
            for old in self.folder.glob("*/events.*"):
                old.unlink()
            self.add(rows)

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Add rows of ``metrics.csv``, as "loss/train", "accuracy/test" ... at the step of their epoch."""
        for row in rows if self.folder is not None else ():
            writer = self._writer(self.folder / row["engine"])
            for quantity in _QUANTITIES:
                if row.get(quantity) is not None:
                    writer.add_scalar(f"{quantity}/{row['split']}", row[quantity], row["epoch"])
        for writer in self._writers.values():
            writer.flush()

    def _writer(self, folder: Path) -> Any:
        if folder not in self._writers:
            from tensorboard.summary import Writer

            try:
                folder.mkdir(parents=True, exist_ok=True)
                self._writers[folder] = Writer(str(folder))
            except OSError as error:
                raise ChainruleError(f"cannot write {folder}: {error.strerror}") from None
        return self._writers[folder]
