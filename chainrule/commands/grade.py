"""``chainrule grade``: points for an exercise, each with its reason; and a whole class at once."""

import json
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chainrule.commands.options import check_least
from chainrule.errors import ChainruleError, WrongUsage

if TYPE_CHECKING:
    from chainrule.exercises.grading import Grade
    from chainrule.exercises.room import Room

_WIDTH = 100


def grade(
    exercise: Annotated[
        str | None, typer.Argument(help="The exercise (--all: every one that was handed in).")
    ] = None,
    file: Annotated[Path | None, typer.Argument(help="The learner's file.")] = None,
    every: Annotated[
        Path | None,
        typer.Option("--all", metavar="FOLDER", help="Grade a class: LEARNER/EXERCISE.py in FOLDER."),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="Time limit for one file.", show_default="5, or the exercise's own")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Files at a time with --all.", show_default="as many as processors")
    ] = None,
    dataset: Annotated[
        str, typer.Option(help="What the exercise mnist trains on: auto, a name, a folder.")
    ] = "auto",
    root: Annotated[
        Path | None, typer.Option(help="Folder of the data sets.", show_default="$CHAINRULE_DATA or data")
    ] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write JUnit XML there too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the grade as JSON.")] = False,
) -> None:
    """Grade a file: points for each part with the reason. Exit status 1 when points are missing.

    Example: chainrule grade linear my-work/linear.py

    A class: chainrule grade --all submitted --junit grades.xml
    """
    check_least(("--jobs", jobs, 1))
    if seconds is not None and not 0 < seconds <= 86_400:
        raise WrongUsage(f"--seconds must be above 0 and at most 86400, found {seconds:g}")
    if every is None and (exercise is None or file is None):
        raise WrongUsage("expected an exercise and a file, as in: chainrule grade linear my-work/linear.py")
    if every is not None and file is not None:
        raise WrongUsage(f"--all grades a folder: leave out the file '{file}'")
    if junit is not None and not junit.expanduser().absolute().parent.is_dir():
        raise ChainruleError(f"--junit {junit}: there is no such folder")

    from chainrule.exercises import catalogue, grading, room
    from chainrule.exercises import junit as xml

    chosen = list(catalogue.exercises().values()) if exercise is None else [catalogue.find(exercise)]
    options: dict[str, Any] = {"seconds": seconds, "dataset": dataset, "root": root and root.expanduser()}
    if every is not None:
        report = _progress if sys.stderr.isatty() else lambda done, total: None
        graded = room.grade_room(every.expanduser(), chosen, jobs=jobs, report=report, **options)
        grades = list(graded.grades)
        shown = graded.to_dict() if as_json else None
    else:
        one = grading.grade(chosen[0], (file or Path()).expanduser(), **options)
        grades, shown = [("", one)], one.to_dict() if as_json else None
    if junit is not None:
        junit.expanduser().write_text(xml.to_junit(grades), "utf-8")
    if shown is not None:
        print(json.dumps(shown, indent=2, ensure_ascii=False))
    elif every is not None:
        _print_room(graded)
    else:
        print(one)
    if every is None and not one.full:
        raise typer.Exit(1)


def _progress(done: int, total: int) -> None:
    print(f"\r{done} of {total} files graded", end="" if done < total else "\n", file=sys.stderr, flush=True)


def _print_room(room: "Room") -> None:
    from chainrule.exercises import catalogue

    named: dict[str, dict[str, Grade]] = {learner: {} for learner in room.learners}
    for learner, grade in room.grades:
        named[learner][grade.exercise] = grade
    handed_in = {grade.exercise for _, grade in room.grades}
    exercises = [name for name in catalogue.exercises() if name in handed_in]
    first = max(len("learner"), *map(len, named))
    heads = {exercise: exercise for exercise in exercises}
    if sum(len(head) + 2 for head in heads.values()) > _WIDTH:
        heads = {exercise: str(catalogue.find(exercise).number) for exercise in exercises}
        legend = "Exercises: " + ", ".join(f"{head} {exercise}" for exercise, head in heads.items())
        print(textwrap.fill(legend, _WIDTH) + "\n")
    widths = {exercise: max(len(head), 5) for exercise, head in heads.items()}
    columns = [f"{head:>{widths[exercise]}}" for exercise, head in heads.items()]
    print("  ".join([f"{'learner':{first}}", *columns, "  sum", "mistakes"]))
    for learner, grades in named.items():
        cells = [
            f"{f'{grades[e].points}/{grades[e].out_of}' if e in grades else '-':>{widths[e]}}"
            for e in exercises
        ]
        made = "; ".join(dict.fromkeys(m.name for grade in grades.values() for m in grade.mistakes))
        total = sum(grade.points for grade in grades.values())
        print("  ".join([f"{learner:{first}}", *cells, f"{total:5}", made]).rstrip())
    mistakes = room.misunderstandings()
    if mistakes:
        print("\nWhat the room has not understood:")
    for mistake in mistakes:
        who = ", ".join(mistake.learners)
        print(f"\n{len(mistake.learners):3} x {mistake.mistake} ({mistake.exercise}): {who}")
        print(textwrap.fill(mistake.words, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6))
    for learner, grade in room.grades:
        for note in grade.notes:
            print(f"\nNote on {learner}, {grade.exercise}: {note}")
    if room.left_out:
        files = ", ".join(map(str, room.left_out))
        print(f"\nNot graded, as they belong to no exercise or a newer one is there: {files}")
