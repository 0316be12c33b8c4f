"""Points for a learner's file: one part at a time, each with the reason for it.

Nothing is judged here: `agreement.diagnosis` finds what is right and which mistake was made, and an exercise
says what each part is worth.
"""

import ast
import re
import textwrap
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chainrule.errors import ChainruleError, WrongUsage
from chainrule.exercises.catalogue import Exercise, find

if TYPE_CHECKING:
    from agreement.diagnosis import Diagnosis, Problem

# The part that is about nothing returned, but about arrays changed in place.
UNCHANGED = "changes nothing it was given"
SECONDS = 5.0  # of computing, for one file
_WIDTH = 100


@dataclass(frozen=True)
class PartGrade:
    """One part: ``points`` of ``out_of``, and why."""

    name: str
    points: int
    out_of: int
    reason: str


@dataclass(frozen=True)
class Mistake:
    """What went wrong, by the name of the known mistake (or of the problem, "never ends"), in a sentence."""

    name: str
    words: str


@dataclass(frozen=True)
class Grade:
    """The points of one file.

    ``text`` is the whole diagnosis, in a learner's words; ``notes`` are for the teacher, and cost no points.
    """

    exercise: str
    file: str
    parts: tuple[PartGrade, ...]
    mistakes: tuple[Mistake, ...] = ()
    text: str = ""
    notes: tuple[str, ...] = ()

    @property
    def points(self) -> int:
        """The points reached."""
        return sum(part.points for part in self.parts)

    @property
    def out_of(self) -> int:
        """The points there are."""
        return sum(part.out_of for part in self.parts)

    @property
    def full(self) -> bool:
        """Whether no point is missing."""
        return self.points == self.out_of

    def to_dict(self) -> dict[str, Any]:
        """Return all of it for JSON."""
        head = {"exercise": self.exercise, "file": self.file, "points": self.points, "out_of": self.out_of}
        return head | asdict(self)

    def __str__(self) -> str:
        """Return the points and reasons, and below them the diagnosis where points are missing."""
        width = max(len(part.name) for part in self.parts)
        lines = [f"{self.exercise}: {self.points} of {self.out_of} points for {self.file}", ""]
        before = ""
        for part in self.parts:
            head = f"{part.points} of {part.out_of}  {part.name:{width}}  "
            reason = "the same" if part.reason == before and not part.points else part.reason
            lines.append(textwrap.fill(head + reason, _WIDTH, subsequent_indent=" " * len(head)))
            before = part.reason
        if not self.full:
            lines += ["", self.text] if self.text else []
            lines += [""]
        lines += [f"Note: {note}" for note in self.notes]
        if not self.full:
            lines += [f"Hints: chainrule exercises {self.exercise} --hint 1"]
        return "\n".join(lines)


def grade(
    exercise: Exercise | str,
    file: str | Path,
    *,
    seconds: float | None = None,
    dataset: str = "auto",
    root: Path | None = None,
) -> Grade:
    """Grade a file. Its code runs in a process of its own, for ``seconds`` of computing at most.

    ``dataset`` and ``root`` say what the training exercise trains on (see `chainrule.datasets.load`).

    Raises:
        ChainruleError: there is no such file.
    """
    exercise = find(exercise) if isinstance(exercise, str) else exercise
    path = Path(file)
    if not path.is_file():
        found = (
            "a folder, expected a file (--all grades a folder)" if path.is_dir() else "there is no such file"
        )
        raise ChainruleError(f"{file}: {found}")
    if exercise.goals:
        from chainrule.exercises.training import grade_training

        graded = grade_training(exercise, path, seconds=seconds, dataset=dataset, root=root)
    else:
        from agreement.diagnosis import Limits, diagnose

        limits = Limits(seconds or SECONDS)
        graded = from_diagnosis(exercise, diagnose(path, exercise.subject, limits=limits))
    return replace(graded, file=str(path), notes=(*graded.notes, *_borrowed(path)))


def grade_functions(exercise: Exercise | str, *functions: Callable[..., Any]) -> Grade:
    """Grade functions of this process, such as a notebook's: forward and backward, or an optimizer's step.

    They are run here, without a limit on time or memory; `grade` runs a file apart.

    Raises:
        WrongUsage: the number of functions is not the exercise's.
    """
    from agreement.diagnosis import diagnose

    exercise = find(exercise) if isinstance(exercise, str) else exercise
    names = [node.name for node in ast.parse(exercise.stub).body if isinstance(node, ast.FunctionDef)]
    if exercise.goals or len(functions) != len(names):
        raise WrongUsage(
            f"{exercise.name} is graded by {' and '.join(names)}, found {len(functions)} functions"
        )
    code = dict(zip(names, functions, strict=True))
    return from_diagnosis(exercise, diagnose(None, exercise.subject, code=code))


# Libraries that have the answer.
_SOLVED = {
    "nn_reference",
    "torch_impl",
    "agreement",
    "chainrule",
    "torch",
    "tensorflow",
    "keras",
    "jax",
    "sklearn",
}


def _borrowed(path: Path) -> tuple[str, ...]:
    """Say which libraries a file imports that have the answer: a teacher decides what that means."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    modules = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    modules += [
        node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level
    ]
    borrowed = sorted({module.split(".")[0] for module in modules} & _SOLVED)
    return (f"the file imports {', '.join(borrowed)}, which has the answer",) if borrowed else ()


def from_diagnosis(exercise: Exercise, diagnosis: "Diagnosis") -> Grade:
    """Turn what was found into points."""
    # The stub has the arguments that are asked for; what else the operation could do is no matter here.
    notes = tuple(printable(note) for note in diagnosis.notes if not note.startswith("not tried"))
    diagnosis = replace(diagnosis, notes=notes)
    parts = tuple(_part(name, points, diagnosis) for name, points in exercise.points.items())
    graded = Grade(
        exercise.name, str(diagnosis.file), parts, _mistakes(diagnosis), printable(str(diagnosis), None)
    )
    return replace(graded, notes=notes) if graded.full else graded


def printable(text: str, most: int | None = 200) -> str:
    """Return what came from a learner's file without characters that move a terminal, and not too long."""
    text = "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
    return text if most is None or len(text) <= most else f"{text[:most]} ..."


def _part(name: str, points: int, diagnosis: "Diagnosis") -> PartGrade:
    if name == UNCHANGED:
        return _unchanged(points, diagnosis)
    found = {part.name: part for part in diagnosis.parts}.get(name)
    if found is None:
        words = _first_problem(diagnosis) or f"the {name} was not found among what your code returns"
        return PartGrade(name, 0, points, words)
    if found.ok:
        return PartGrade(name, points, points, f"right in {_count(diagnosis.probes)}")
    cause = next((c for c in diagnosis.candidates if name in c.parts), None)
    return PartGrade(
        name, 0, points, found.words + (f"; it looks like '{cause.name}'" if cause is not None else "")
    )


def _unchanged(points: int, diagnosis: "Diagnosis") -> PartGrade:
    touched = next((problem for problem in diagnosis.problems if problem.kind == "in-place"), None)
    if touched is not None:
        return PartGrade(UNCHANGED, 0, points, touched.words)
    if not any(part.ok for part in diagnosis.parts):  # a stub changes nothing either
        return PartGrade(UNCHANGED, 0, points, "counts once a part is right")
    return PartGrade(UNCHANGED, points, points, "all arguments are as they were")


def _mistakes(diagnosis: "Diagnosis") -> tuple[Mistake, ...]:
    """Return what to count in a class: the likeliest mistake and every problem; or that it is not known."""
    found = []
    for candidate in diagnosis.candidates[:1]:
        parts = ", ".join(part for part in candidate.parts if not part.startswith("changed"))
        found.append(
            Mistake(candidate.name, f"In {parts}: {candidate.mistake}" if parts else candidate.mistake)
        )
    found += [
        mistake_of(problem) for problem in diagnosis.problems if not (found and problem.kind == "in-place")
    ]
    if not found and not diagnosis.ok:
        words = diagnosis.narrowing[0] if diagnosis.narrowing else "wrong, but as no known mistake is"
        found = [Mistake("no known mistake", words)]
    return tuple(found)


def mistake_of(problem: "Problem") -> Mistake:
    """Return a problem under the name that it has in a class's table."""
    name, words = _NAMES.get(problem.kind, problem.kind), printable(problem.words)
    if problem.kind == "exception":
        raised = re.search(r"raises (\w+)", words)
        name = f"raises {raised[1]}" if raised else "cannot be read"
    return Mistake("not begun" if name == "raises NotImplementedError" else name, words)


_NAMES = {
    "time": "never ends",
    "memory": "takes too much memory",
    "exit": "exits",
    "output": "prints too much",
    "in-place": "changes its arguments",
    "shape": "wrong shape",
    "nan": "not a number",
    "crash": "crashes Python",
    "missing": "function missing",
}


def _first_problem(diagnosis: "Diagnosis") -> str:
    return printable(diagnosis.problems[0].words) if diagnosis.problems else ""


def _count(probes: int) -> str:
    return f"all {probes} probes" if probes > 1 else "the probe"
