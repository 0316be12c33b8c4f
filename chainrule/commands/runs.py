"""``chainrule runs``: which runs there are, what they reached, and in what two of them differ."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chainrule.errors import ChainruleError

if TYPE_CHECKING:
    from chainrule.evidence import Evidence


class Order(StrEnum):
    """Values of ``--sort``."""

    name = "name"
    recipe = "recipe"
    data = "data"
    accuracy = "accuracy"
    seconds = "seconds"


def runs(
    folder: Annotated[Path, typer.Argument(help="The folder that holds the runs.")] = Path("runs"),
    sort: Annotated[Order, typer.Option(help="What to sort by; accuracy begins with the best.")] = Order.name,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A B", help="Show instead in what two runs differ.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the same as JSON.")] = False,
) -> None:
    """List the runs and what they reached, a line for each engine; or compare two.

    Example: chainrule runs --sort accuracy
    """
    from chainrule import evidence

    if compare is not None:
        first, second = (evidence.read(path) for path in compare)
        _print_comparison(first, second, as_json)
        return
    rows: list[dict[str, Any]] = []
    broken: list[str] = []
    for path in evidence.find(folder.expanduser()):
        try:
            rows += evidence.overview(evidence.read(path))
        except ChainruleError as error:  # one damaged run must not hide the others
            broken.append(str(error))
    if sort is Order.accuracy:
        rows.sort(
            key=lambda row: -1.0 if row["test_accuracy"] is None else row["test_accuracy"], reverse=True
        )
    else:
        rows.sort(key=lambda row: (row[str(sort)], row["name"]))
    if as_json:
        print(json.dumps(rows, indent=2))
    elif rows:
        _print(rows)
    else:
        print(f"no runs in {folder}: `chainrule train` makes one")
    for problem in broken:
        print(f"chainrule: {' '.join(problem.split())}", file=sys.stderr)


def _print(rows: list[dict[str, Any]]) -> None:
    heads = ("name", "recipe", "engine", "data", "epochs", "seed", "test accuracy", "seconds")
    table = [
        (
            str(row["name"]),
            str(row["recipe"]),
            str(row["engine"]),
            str(row["data"]),
            str(row["epochs"]),
            str(row["seed"]),
            _percent(row["test_accuracy"]),
            f"{row['seconds']:.1f}",
            "" if row["state"] == "finished" else "stopped before its end",
        )
        for row in rows
    ]
    widths = [max(len(head), *(len(line[i]) for line in table)) for i, head in enumerate(heads)]
    for line in ((*heads, ""), *table):
        left = [f"{text:{width}}" for text, width in zip(line[:4], widths[:4], strict=True)]
        right = [f"{text:>{width}}" for text, width in zip(line[4:8], widths[4:], strict=True)]
        print("  ".join([*left, *right, line[8]]).rstrip())


def _print_comparison(first: "Evidence", second: "Evidence", as_json: bool) -> None:
    from chainrule import evidence

    settings = evidence.differences(first, second)
    engines = [engine for engine in first.engines if engine in second.engines]
    # Two runs that share no engine are compared by the engine that each calls its own.
    pairs = [(engine, engine) for engine in engines] or [(first.engines[0], second.engines[0])]
    results = {
        " and ".join(dict.fromkeys(pair)): _results(first.results(pair[0]), second.results(pair[1]))
        for pair in pairs
    }
    if as_json:
        print(json.dumps({"differences": settings, "results": results}, indent=2))
        return
    print("How they were trained" if settings else "Both were trained in the same way.")
    if settings:
        _print_pairs(
            ("", first.name, second.name),
            [(key, _short(one), _short(other), "") for key, (one, other) in settings.items()],
        )
    for engine, table in results.items():
        print(f"\nWhat they reached ({engine})")
        lines = []
        for key, (one, other) in table.items():
            show = _percent if "accuracy" in key else _number
            change = ""
            if one is not None and other is not None:
                gap = other - one
                change = f"{100 * gap:+.2f} points" if "accuracy" in key else f"{gap:+.4g}"
            lines.append((key.replace("_", " "), show(one), show(other), change))
        _print_pairs(("", first.name, second.name), lines)


_QUANTITIES = ("test_accuracy", "test_loss", "train_accuracy", "train_loss", "epochs", "seconds")


def _results(first: dict[str, Any], second: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {key: (first.get(key), second.get(key)) for key in _QUANTITIES}


def _print_pairs(heads: tuple[str, str, str], lines: list[tuple[str, str, str, str]]) -> None:
    table = [(*heads, ""), *lines]
    widths = [max(len(line[i]) for line in table) for i in range(3)]
    for name, one, other, change in table:
        print(f"  {name:{widths[0]}}  {one:>{widths[1]}}  {other:>{widths[2]}}  {change}".rstrip())


def _short(value: Any) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:12]}...{text[-6:]}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
