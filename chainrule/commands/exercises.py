"""``chainrule exercises``: what there is to write, a stub to write it in, and hints in steps."""

import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chainrule.errors import ChainruleError, WrongUsage

if TYPE_CHECKING:
    from chainrule.exercises.catalogue import Exercise

_WIDTH = 100


def exercises(
    name: Annotated[str | None, typer.Argument(help="One exercise; without it all are listed.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Put a file to fill in there (without NAME: all).")
    ] = None,
    hint: Annotated[
        int | None, typer.Option(metavar="N", help="Show hints 1 to N, from a nudge to nearly the formula.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the same as JSON.")] = False,
) -> None:
    """List the exercises; show one, put its stub into a folder, or give a hint.

    Example: chainrule exercises linear --out my-work

    Then: chainrule exercises linear --hint 1, and chainrule grade linear my-work/linear.py
    """
    from chainrule.exercises import catalogue

    if hint is not None and name is None:
        raise WrongUsage("--hint is for one exercise: chainrule exercises NAME --hint 1")
    chosen = list(catalogue.exercises().values()) if name is None else [catalogue.find(name)]
    if hint is not None and not 1 <= hint <= (last := len(chosen[0].hints)):
        raise WrongUsage(f"--hint must be from 1 to {last} for '{chosen[0].name}', found {hint}")
    written = _put(chosen, out.expanduser()) if out is not None else []
    if as_json:
        data = [{**_as_json(exercise, hint or 0)} for exercise in chosen]
        print(json.dumps(data if name is None else data[0], indent=2, ensure_ascii=False))
        return
    for path in written:
        print(path)
    if hint is not None:
        for number, text in enumerate(chosen[0].hints[:hint], start=1):
            print(textwrap.fill(f"{number}. {text}", _WIDTH, subsequent_indent="   "))
        if hint < last:
            print(f"\nThere are {last - hint} more: --hint {hint + 1}")
    elif out is None and name is None:
        _list(chosen)
    elif out is None:
        _show(chosen[0])


def _put(chosen: "list[Exercise]", folder: Path) -> list[Path]:
    """Write the learner's files, and none of them where one is there already."""
    paths = [folder / exercise.file_name for exercise in chosen]
    for path in paths:
        if path.exists():
            raise ChainruleError(
                f"{path} is there already, and is left as it is: move it away, or choose another --out"
            )
    folder.mkdir(parents=True, exist_ok=True)
    for path, exercise in zip(paths, chosen, strict=True):
        path.write_text(exercise.file_text(), "utf-8")
    return paths


def _list(chosen: "list[Exercise]") -> None:
    width = max(len(exercise.name) for exercise in chosen)
    for exercise in chosen:
        points = f"{exercise.total:2} points, {len(exercise.hints)} hints"
        print(f"{exercise.number:2}  {exercise.name:{width}}  {points}  {exercise.title}")
    print("\nBegin with: chainrule exercises neuron --out my-work")


def _show(exercise: "Exercise") -> None:
    print(exercise.text())
    print("\nWhat to write\n-------------\n")
    print(textwrap.indent(exercise.stub, "    "))
    parts = ", ".join(f"{part} {points}" for part, points in exercise.points.items())
    print(f"\n{textwrap.fill(f'{exercise.total} points: {parts}', _WIDTH)}")
    print(f"Hints: chainrule exercises {exercise.name} --hint 1 (of {len(exercise.hints)})")


def _as_json(exercise: "Exercise", hints: int) -> dict[str, object]:
    return {
        "number": exercise.number,
        "name": exercise.name,
        "title": exercise.title,
        "file": exercise.file_name,
        "points": exercise.points,
        "total": exercise.total,
        "task": exercise.task,
        "on_paper": exercise.on_paper,
        "stub": exercise.stub,
        "hints": list(exercise.hints[:hints]),
        "hints_there_are": len(exercise.hints),
    }
