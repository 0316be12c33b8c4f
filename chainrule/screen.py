"""What ``chainrule train`` shows: a progress bar on a terminal, plain lines in a log."""

import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agreement import FLOAT64_LIMIT
from chainrule.metrics import Pair, in_words
from chainrule.recipe import Recipe
from chainrule.runs import RunFolder
from chainrule.training import Progress, Trained

if TYPE_CHECKING:
    from rich.progress import Progress as ProgressBar

    from agreement import TensorAgreement
    from chainrule.datasets import Dataset

# A look at the running loss makes CUDA wait for it: a few times a second is enough for the eye.
_SECONDS_BETWEEN_UPDATES = 0.1


class Screen:
    """Prints to standard output; ``quiet`` prints nothing."""

    def __init__(self, *, quiet: bool = False):
        self.quiet = quiet
        self._bar: ProgressBar | None = None
        self._engines: list[str] = []
        self._epochs = 0
        self._last_update = 0.0

    def line(self, text: str = "") -> None:
        """Print one line, above the progress bar where there is one."""
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False, soft_wrap=True)
        elif not self.quiet:
            print(text, flush=True)

    def data(self, data: "Dataset") -> None:
        """Say which data set is used, and why."""
        counts = f"{len(data.train_labels):,} training and {len(data.test_labels):,} test images"
        self.line(
            f"Data     {data.title}: {counts} from {_relative(data.folder)}"
            + (f" ({data.why})" if data.why else "")
        )

    def plan(self, recipe: Recipe, engines: list[str], device: str) -> None:
        """Say what will be trained, and head the table of epochs."""
        passes = "1 epoch" if recipe.epochs == 1 else f"{recipe.epochs} epochs"
        self.line(
            f"Recipe   {recipe.name}: {recipe.summary}; "
            f"{passes}, batches of {recipe.batch_size}, seed {recipe.seed}"
        )
        names = {"numpy": "numpy (by hand)", "torch": f"torch ({device})"}
        together = ", from the same weights over the same batches" if len(engines) > 1 else ""
        self.line(f"Engines  {' and '.join(names[engine] for engine in engines)}{together}")
        if recipe.validation:
            stop = recipe.early_stopping
            self.line(
                f"Split    {recipe.validation:,} of the training images are kept back for validation"
                + (f"; stop after {stop} epoch{'s' * (stop > 1)} without a better one" if stop else "")
            )
        self.line()
        validation = "  valid loss  accuracy" if recipe.validation else ""
        self.line(
            f"epoch  engine  train loss  accuracy{validation}  test loss  accuracy  |gradient|  seconds"
        )
        self._engines, self._epochs = engines, recipe.epochs

    @contextmanager
    def progress(self) -> Iterator[None]:
        """Show a progress bar while inside, if there is a terminal to show it on."""
        if self.quiet or not sys.stdout.isatty():
            yield
            return
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as ProgressBar

        # The bar is the whole training, so that the time left is too; the engines take turns in it, which an
        # average over many epochs evens out.
        columns = [TextColumn("{task.description}"), BarColumn(bar_width=None)]
        columns += [TextColumn("{task.fields[means]}"), TimeRemainingColumn(compact=True), TextColumn("left")]
        with ProgressBar(*columns, transient=True, expand=True, speed_estimate_period=3600) as bar:
            self._bar = bar
            self._task = bar.add_task("", total=None, means="")
            try:
                yield
            finally:
                self._bar = None

    def report(self, progress: Progress) -> None:
        """Move the progress bar."""
        now = time.monotonic()
        if self._bar is None or now - self._last_update < _SECONDS_BETWEEN_UPDATES:
            return
        self._last_update = now
        loss, accuracy = progress.means()
        before = (progress.epoch - 1) * len(self._engines) + self._engines.index(progress.engine)
        self._bar.update(
            self._task,
            description=f"epoch {progress.epoch}/{self._epochs} {progress.engine} "
            f"{progress.batch}/{progress.batches}",
            completed=before * progress.batches + progress.batch,
            total=self._epochs * len(self._engines) * progress.batches,
            means=f"loss {loss:.4f} {accuracy:7.2%} lr {progress.learning_rate:.2g} "
            f"{progress.images_per_second:,.0f} img/s",
        )

    def epoch(self, rows: list[dict[str, Any]], best: bool) -> None:
        """Print an epoch for one engine, from its rows of ``metrics.csv``; the best one so far is marked."""
        train = rows[0]
        evaluated = "".join(
            f"  {row['loss']:{10 if row['split'] == 'validation' else 9}.4f}  {row['accuracy']:8.2%}"
            for row in rows[1:]
        )
        self.line(
            f"{train['epoch']:5}  {train['engine']:6}  {train['loss']:10.4f}  {train['accuracy']:8.2%}"
            f"{evaluated}  {train['gradient_norm']:10.4f}  {train['seconds']:7.2f}"
            + ("  best so far" if best else "")
        )

    def results(
        self, results: list[Trained], comparison: "list[TensorAgreement] | None", folder: RunFolder
    ) -> None:
        """Print what was reached, how far the engines agree, and where the files are."""
        self.line()
        for result in results:
            best, early = result.best, result.epochs < self._epochs
            self.line(
                f"{result.engine:6}  {result.test_accuracy:.2%} of the test images right, "
                f"{result.seconds:.1f} s of training"
                + (f"; stopped early, after epoch {result.epochs}" if early else "")
                + (
                    f"; the best by validation is epoch {best.epoch}: {best.test_accuracy:.2%}"
                    if best
                    else ""
                )
            )
        if comparison is not None:
            self.comparison(comparison)
        self.line()
        logged = ["tensorboard/"] if (folder.path / "tensorboard").is_dir() else []
        self.line(f"Files    {_relative(folder.path)}/: {', '.join(sorted([*folder.files, *logged]))}")

    def mistakes(self, pairs: list[Pair], folder: RunFolder) -> None:
        """Print what is most often taken for what, and where to see more."""
        words = "; ".join(map(in_words, pairs[:3])) or "none on the test images"
        self.line(f"Mistakes {words}")
        self.line(f"More     chainrule report {shlex.quote(_relative(folder.path))}")

    def comparison(self, rows: "list[TensorAgreement]") -> None:
        """Print the table of the two engines' differences on one batch."""
        self.line()
        self.line("Do the two agree? One batch of test images in float64, with the trained weights:")
        width = max(len(row.name) for row in rows)
        self.line(f"{'':{width}}  {'shape':>12}  largest difference  largest value    ratio")
        for row in rows:
            shape = "x".join(map(str, row.shape)) or "scalar"
            self.line(
                f"{row.name:{width}}  {shape:>12}  {row.largest_difference:18.1e}"
                f"  {row.largest_value:13.2e}  {row.error:7.1e}"
                + ("" if row.agrees else "  <- too far apart")
            )
        verdict = "They agree: every" if all(row.agrees for row in rows) else "They DISAGREE: not every"
        self.line(f"{verdict} ratio is at most {FLOAT64_LIMIT:g}.")


def _relative(path: Path) -> str:
    """Return the path as seen from here when it lies below, else whole."""
    path = path.absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
