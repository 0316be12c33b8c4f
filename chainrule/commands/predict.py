"""``chainrule predict``: what a run's network reads on a person's own pictures."""

import csv
import io
import itertools
import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chainrule.commands.options import RunArgument, Weights, WhichWeights, WhoseWeights
from chainrule.errors import ChainruleError, WrongUsage

if TYPE_CHECKING:
    from chainrule.predicting.pictures import Reading
    from chainrule.predicting.reader import Answer

_CSV = ("file", "number", "digit", "probability", "second", "second_probability", "distance", "warnings")


class Preprocess(StrEnum):
    """Values of ``--preprocess``."""

    full = "full"
    naive = "naive"


def predict(
    run: RunArgument,
    pictures: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE...", help="Files, folders, patterns; - is standard input."),
    ],
    many: Annotated[
        bool, typer.Option("--many", help="Read every digit on a picture, left to right.")
    ] = False,
    preprocess: Annotated[
        Preprocess, typer.Option(help="All steps, or only what most try first: resize and invert.")
    ] = Preprocess.full,
    deskew: Annotated[bool, typer.Option("--deskew", help="Take the slant out of digits.")] = False,
    show_steps: Annotated[
        Path | None,
        typer.Option("--show-steps", metavar="FOLDER", help="Draw each digit's steps into this folder."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Draw a PNG: each picture, what the network saw, the answer.")
    ] = None,
    weights: WhichWeights = Weights.last,
    weights_of: WhoseWeights = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answers as JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the answers as CSV.")] = False,
) -> None:
    """Read digits on your own pictures: drawn or photographed, dark on light or light on dark, any format.

    A picture that cannot be read is one line on standard error, the others still are; the exit status is
    then 1.

    Example: chainrule predict runs/cnn-same-mnist photos/ my-seven.png --out grid.png
    """
    if as_json and as_csv:
        raise WrongUsage("--json and --csv exclude each other")
    if preprocess is Preprocess.naive and (many or deskew):
        raise WrongUsage(f"--preprocess naive takes no {'--many' if many else '--deskew'}")
    if out is not None and out.suffix.lower() != ".png":
        raise WrongUsage(f"--out {out}: expected a name that ends in .png")
    if pictures.count("-") > 1:
        raise WrongUsage("standard input (-) can be read only once")

    from chainrule import files, saved
    from chainrule.engines import threads
    from chainrule.predicting import drawing, sources
    from chainrule.predicting.pictures import How, read_all
    from chainrule.predicting.reader import Reader

    if out is not None:
        files.check(out)
    if show_steps is not None:
        files.check(show_steps, folder=True)
    reader = Reader(saved.open_run(run), weights, weights_of)
    problems = 0
    names = []
    for argument in pictures:
        try:
            names += list(sources.expand([argument]))
        except ChainruleError as error:
            problems += 1
            _complain(str(error))
    how = How(many, preprocess is Preprocess.naive, deskew, show_steps is not None, out is not None)
    rows: list[tuple[Any, ...]] = []
    found: list[dict[str, Any]] = []
    table = csv.writer(sys.stdout, lineterminator="\n")
    if as_csv:
        table.writerow(_CSV)
    drawn: set[str] = set()
    with threads(1):
        for reading in read_all(reader, names, how):
            if reading.problem is not None:
                problems += 1
                _complain(reading.problem)
                continue
            if as_json:
                found.append(_as_json(reading))
            elif as_csv:
                table.writerows(_as_rows(reading))
            else:
                print(_in_words(reading), flush=True)
            for number, (prepared, answer) in enumerate(
                zip(reading.prepared, reading.answers, strict=True), 1
            ):
                if out is not None:
                    rows.append((reading.picture, answer.image, _called(reading, number), *_shown(answer)))
                if show_steps is not None:
                    stem = Path(reading.name).stem + (f"-{number}" if many else "")
                    name = _unused(stem, drawn)
                    _make(show_steps)
                    page = drawing.steps(
                        _called(reading, number), prepared.steps, answer.image, _shown(answer)[0]
                    )
                    files.write(show_steps / name, page)
    if as_json:
        about = {
            "run": str(reader.run.path),
            "recipe": reader.run.recipe.name,
            "temperature": reader.temperature,
        }
        print(json.dumps({**about, "pictures": found}, indent=2))
    if out is not None and rows:
        files.write(out, drawing.grid(rows))
    if problems:
        raise ChainruleError(_sum(problems))


def _sum(problems: int) -> str:
    return f"{'1 picture was' if problems == 1 else f'{problems:,} pictures were'} not read: see above"


def _complain(problem: str) -> None:
    sys.stdout.flush()
    print(f"chainrule: {' '.join(problem.split())}", file=sys.stderr, flush=True)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ChainruleError(f"cannot write to {folder}: {error.strerror}") from None


def _unused(stem: str, drawn: set[str]) -> str:
    """Return a name for a picture of steps that no other has: files of two folders may be called alike."""
    names = (f"{stem}{f'-{number}' if number > 1 else ''}-steps.png" for number in itertools.count(1))
    name = next(name for name in names if name.lower() not in drawn)
    drawn.add(name.lower())
    return name


def _called(reading: "Reading", number: int) -> str:
    return f"{reading.name} ({number})" if len(reading.answers) > 1 else reading.name


def _shown(answer: "Answer") -> tuple[str, str, bool]:
    """Return the answer, the second one, and whether there is a doubt."""
    second, less = answer.ranked[1]
    doubtful = bool(answer.warnings)
    return (
        f"{answer.digit}  {_percent(answer.probability)}{' ?' if doubtful else ''}",
        f"then {second}  {_percent(less)}",
        doubtful,
    )


def _percent(probability: float) -> str:
    return "> 99.9 %" if probability > 0.9995 else f"{100 * probability:.1f} %"


def _in_words(reading: "Reading") -> str:
    text = io.StringIO()
    several = len(reading.answers) > 1
    if several:
        print(f"{reading.name}: {' '.join(answer.digit for answer in reading.answers)}", file=text)
    for number, answer in enumerate(reading.answers, 1):
        head = f"  {number}." if several else f"{reading.name}:"
        print(f"{head} {answer.digit}, {_percent(answer.probability)}", file=text)
        for name, chance in answer.ranked[:5]:
            print(f"    {name:>3} {100 * chance:5.1f} %  {'█' * round(30 * chance)}".rstrip(), file=text)
        for warning in answer.warnings:
            print(f"    {warning}", file=text)
    return text.getvalue().rstrip("\n")


def _as_json(reading: "Reading") -> dict[str, Any]:
    return {
        "file": reading.name,
        "digits": [
            {
                "digit": answer.digit,
                "probability": answer.probability,
                "probabilities": dict(answer.ranked),
                "distance": answer.distance,
                "warnings": answer.warnings,
                **(
                    {}
                    if prepared.box is None
                    else {"box": dict(zip(("top", "bottom", "left", "right"), prepared.box, strict=True))}
                ),
            }
            for prepared, answer in zip(reading.prepared, reading.answers, strict=True)
        ],
    }


def _as_rows(reading: "Reading") -> list[list[Any]]:
    return [
        [
            reading.name,
            number,
            answer.digit,
            f"{answer.probability:.6f}",
            answer.ranked[1][0],
            f"{answer.ranked[1][1]:.6f}",
            "" if answer.distance is None else f"{answer.distance:.3f}",
            "; ".join(answer.warnings),
        ]
        for number, answer in enumerate(reading.answers, 1)
    ]
