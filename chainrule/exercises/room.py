"""A class: every learner's file of every exercise, and what the room has not understood."""

import os
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from chainrule.errors import ChainruleError, WrongUsage
from chainrule.exercises.catalogue import Exercise
from chainrule.exercises.grading import Grade, Mistake, PartGrade, grade, printable


@dataclass(frozen=True)
class Submission:
    """One file that one learner handed in for one exercise."""

    learner: str
    exercise: Exercise
    path: Path


@dataclass(frozen=True)
class Misunderstanding:
    """One mistake in one exercise, and who made it."""

    exercise: str
    mistake: str
    words: str
    learners: tuple[str, ...]


@dataclass(frozen=True)
class Room:
    """The grades of a class, by learner and exercise; and the files that belong to nothing."""

    grades: tuple[tuple[str, Grade], ...]
    left_out: tuple[Path, ...] = ()

    @property
    def learners(self) -> list[str]:
        """Everyone who handed something in."""
        return sorted({learner for learner, _ in self.grades})

    def misunderstandings(self) -> list[Misunderstanding]:
        """Return each mistake with those who made it, the most frequent first."""
        made: dict[tuple[str, str], list[str]] = {}
        words: dict[tuple[str, str], Counter[str]] = {}
        for learner, graded in self.grades:
            for mistake in graded.mistakes:
                key = (graded.exercise, mistake.name)
                if learner not in made.setdefault(key, []):
                    made[key].append(learner)
                words.setdefault(key, Counter())[mistake.words] += 1
        found = [
            Misunderstanding(exercise, name, _example(words[exercise, name]), tuple(learners))
            for (exercise, name), learners in made.items()
        ]
        return sorted(found, key=lambda m: (-len(m.learners), m.exercise, m.mistake))

    def to_dict(self) -> dict[str, Any]:
        """Return all of it for JSON."""
        return {
            "learners": {
                learner: [graded.to_dict() for who, graded in self.grades if who == learner]
                for learner in self.learners
            },
            "mistakes": [vars(m) | {"learners": list(m.learners)} for m in self.misunderstandings()],
            "left_out": [str(path) for path in self.left_out],
        }


def _example(words: Counter[str]) -> str:
    """Return the sentence where all have the same, else the most frequent one."""
    most = words.most_common(1)[0][0]
    return most if len(words) == 1 else f"for example: {most}"


def submissions(folder: Path, exercises: Sequence[Exercise]) -> tuple[list[Submission], list[Path]]:
    """Find what was handed in, and the Python files that belong to none of ``exercises``.

    In a folder for each learner, at any depth (``ana/linear.py``, ``ana/week 3/linear.py``), a file belongs
    to the exercise whose name it has. With one exercise alone, files that lie in ``folder`` itself are one
    learner's each (``ana.py``), and a learner's only file may have any name.

    Raises:
        ChainruleError: there is no such folder, or nothing in it was handed in for these exercises.
    """
    if not folder.is_dir():
        what = "this is a file, expected a folder" if folder.exists() else "there is no such folder"
        raise ChainruleError(f"{folder}: {what}")
    by_name = {exercise.file_name: exercise for exercise in exercises}
    found: dict[tuple[str, str], Submission] = {}
    left_out = []
    for path in sorted(folder.rglob("*.py")):
        inside = path.relative_to(folder)
        if any(part.startswith((".", "__")) for part in inside.parts):
            continue
        if not path.is_file():  # a link to nowhere
            left_out.append(path)
            continue
        exercise = by_name.get(path.name.lower().replace("-", "_"))
        learner = inside.parts[0]
        if len(inside.parts) == 1:
            learner, exercise = path.stem, exercises[0] if len(exercises) == 1 else None
        elif exercise is None and len(exercises) == 1 and len(list((folder / learner).rglob("*.py"))) == 1:
            exercise = exercises[0]
        if exercise is None:
            left_out.append(path)
            continue
        new, key = Submission(learner, exercise, path), (learner, exercise.name)
        if key in found:  # handed in twice: the newer one counts
            older, newer = sorted((found[key], new), key=lambda s: s.path.stat().st_mtime)
            left_out.append(older.path)
            new = newer
        found[key] = new
    if not found:
        expected = ", ".join(list(by_name)[:3]) + (", ..." if len(by_name) > 3 else "")
        raise ChainruleError(
            f"{folder}: nothing was handed in here, expected a folder for each learner with {expected}"
        )
    return sorted(found.values(), key=lambda s: (s.learner, s.exercise.number)), left_out


def grade_room(
    folder: Path,
    exercises: Sequence[Exercise],
    *,
    jobs: int | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
    **options: Any,
) -> Room:
    """Grade a class, ``jobs`` files at a time (None: as many as processors); ``options`` are `grade`'s."""
    found, left_out = submissions(folder, exercises)
    jobs = min(jobs or _processors(), len(found))
    grades: dict[int, Grade] = {}
    if jobs == 1:
        for number, one in enumerate(found):
            grades[number] = _one(one, options)
            report(len(grades), len(found))
    else:
        # Ctrl-C is for this process, which then waits for the files that are being graded, and no others.
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_ignore_ctrl_c) as pool:
            waiting = {pool.submit(_one, one, options): number for number, one in enumerate(found)}
            try:
                for future in as_completed(waiting):
                    grades[waiting[future]] = future.result()
                    report(len(grades), len(found))
            except BrokenProcessPool:
                what = "a grading process was killed, perhaps for want of memory: try --jobs 1"
                raise ChainruleError(what) from None
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return Room(tuple((one.learner, grades[number]) for number, one in enumerate(found)), tuple(left_out))


def _ignore_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _one(submission: Submission, options: dict[str, Any]) -> Grade:
    """Grade one file. One that cannot be graded, if by a defect of ours, must not cost the others theirs."""
    exercise, path = submission.exercise, submission.path
    try:
        return grade(exercise, path, **options)
    except WrongUsage:
        raise
    except Exception as error:
        known = isinstance(error, ChainruleError | OSError)
        words = printable(str(error) if known else f"the grader failed: {type(error).__name__}: {error}")
        parts = tuple(PartGrade(name, 0, points, words) for name, points in exercise.points.items())
        return Grade(exercise.name, str(path), parts, (Mistake("cannot be graded", words),), words)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
