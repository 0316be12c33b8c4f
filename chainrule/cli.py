"""The command line ``chainrule``: it parses, calls a command, and turns each known error into one line."""

import os
import sys

import typer

from chainrule import __version__
from chainrule.commands.compare import compare
from chainrule.commands.datasets import datasets
from chainrule.commands.diagnose import diagnose
from chainrule.commands.download import download
from chainrule.commands.draw import draw
from chainrule.commands.evaluate import evaluate
from chainrule.commands.exercises import exercises
from chainrule.commands.explain import explain
from chainrule.commands.export import export
from chainrule.commands.grade import grade
from chainrule.commands.history import history
from chainrule.commands.recipes import recipes
from chainrule.commands.report import report
from chainrule.commands.runs import runs
from chainrule.commands.train import train
from chainrule.errors import ChainruleError

app = typer.Typer(
    name="chainrule",
    help="Backpropagation by hand in NumPy, proven against PyTorch.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


COMMANDS = (
    *(download, train, compare, evaluate, report, runs, history, export),
    *(explain, draw, diagnose, exercises, grade),
)
for command in COMMANDS:
    app.command()(command)
app.add_typer(datasets, name="datasets")
app.add_typer(recipes, name="recipes")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"chainrule {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Show the version."
    ),
) -> None:
    pass


def run(arguments: list[str] | None = None) -> int:
    """Run one command line and return its exit status: 0, 1 (it failed) or 2 (it was used wrongly)."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without · or ² shows ? in its place
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        status = app(args=arguments or ["--help"], prog_name="chainrule", standalone_mode=False)
        sys.stdout.flush()
        # Typer turns Ctrl-C into this status.
        return _fail("stopped", 130) if status == 130 else int(status or 0)
    except typer.TyperException as error:
        return _fail(error.format_message().replace("Value error, ", ""), error.exit_code)
    except ChainruleError as error:
        return _fail(str(error), error.exit_status)
    except (BrokenPipeError, SystemExit) as error:
        # The reader of our output (`head`) has gone, for which typer exits.
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains at its end
        return 0
    except OSError as error:
        return _fail(f"{error.filename or 'standard output'}: {error.strerror or error}", 1)


def _fail(message: str, status: int) -> int:
    print(f"chainrule: {' '.join(message.split())}", file=sys.stderr)
    return status


def main() -> None:
    """Run the command line of this process and exit with its status."""
    sys.exit(run())


if __name__ == "__main__":
    main()
