"""The exercises as they are written down: one Markdown file each, with five sections.

``Task``, ``On paper``, ``Stub`` (one block of Python), ``Hints`` (a numbered list) and ``Grading`` (one block
of TOML). A new exercise is a new file; nothing else needs to change. They lie in ``lessons/exercises/`` of a
checkout, and in the installed package beside this module.
"""

import re
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from chainrule.errors import ChainruleError, WrongUsage, nearest

SECTIONS = ("Task", "On paper", "Stub", "Hints", "Grading")


@dataclass(frozen=True)
class Goal:
    """What a training must reach on a data set: ``shares`` of the test images right, for each part.

    ``seconds`` is the time of computing that it may take.
    """

    seconds: float
    shares: dict[str, float]


@dataclass(frozen=True)
class Exercise:
    """One exercise. ``points`` has those of each part, by the part's name.

    ``subject`` is what `agreement.diagnosis` knows the operation as; it is empty where not gradients are
    graded but a training (``goals``, by data set).
    """

    name: str
    number: int
    title: str
    task: str
    on_paper: str
    stub: str
    hints: tuple[str, ...]
    points: dict[str, int]
    subject: str = ""
    goals: dict[str, Goal] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        """The name of the learner's file."""
        return f"{self.name.replace('-', '_')}.py"

    @property
    def total(self) -> int:
        """The points of all parts."""
        return sum(self.points.values())

    def text(self) -> str:
        """Return task and questions, as they are shown on a screen."""
        return (
            f"{self.title}\n{'=' * len(self.title)}\n\n{self.task}\n\nOn paper\n--------\n\n{self.on_paper}"
        )

    def file_text(self) -> str:
        """Return the learner's file: the text as its docstring, and the stub."""
        subject = f'\n\n# What `chainrule diagnose` compares it with.\nSUBJECT = "{self.subject}"'
        imports, functions = self.stub.split("\n\n\n", 1)
        return f'"""{self.text()}\n"""\n\n{imports}{subject if self.subject else ""}\n\n\n{functions}\n'


def folder() -> Path:
    """Return where the texts lie: in the installed package, or in ``lessons/exercises`` of a checkout."""
    package = Path(__file__).parent
    installed = package / "texts"
    return installed if installed.is_dir() else package.parents[1] / "lessons" / "exercises"


@cache
def exercises() -> dict[str, Exercise]:
    """Return all exercises by name, in their order.

    Raises:
        ChainruleError: a text is missing or not as it should be.
    """
    found = [read(path) for path in sorted(folder().glob("[0-9]*.md"))]
    if not found:
        raise ChainruleError(f"{folder()}: there are no exercises here, expected 01-neuron.md and others")
    return {exercise.name: exercise for exercise in found}


def find(name: str) -> Exercise:
    """Return the exercise of this name (``linear-one``, ``linear_one``), or raise WrongUsage."""
    wanted = name.strip().lower().replace("_", "-")
    if wanted not in exercises():
        raise WrongUsage(
            f"there is no exercise '{name}': `chainrule exercises` lists them.{nearest(wanted, exercises())}"
        )
    return exercises()[wanted]


def read(path: Path) -> Exercise:
    """Read one text; raises ChainruleError, naming the file, where a section is missing or empty."""
    number, _, name = path.stem.partition("-")
    title, *rest = re.split(r"^## (.+)$", path.read_text("utf-8"), flags=re.MULTILINE)
    sections = {head.strip(): body.strip("\n") for head, body in zip(rest[::2], rest[1::2], strict=True)}
    if tuple(sections) != SECTIONS or not all(sections.values()):
        raise ChainruleError(f"{path}: found the sections {list(sections)}, expected {list(SECTIONS)}")
    try:
        grading = tomllib.loads(_block(sections["Grading"]))
        goals = {data: Goal(goal.pop("seconds"), goal) for data, goal in grading.get("goals", {}).items()}
        points = grading["points"]
        if not points or not all(isinstance(value, int) and value > 0 for value in points.values()):
            raise ValueError(f"points {points}, expected positive integers")
        if bool(goals) == ("subject" in grading):
            raise ValueError("expected either a subject or goals")
        return Exercise(
            name=name,
            number=int(number),
            title=title.strip().removeprefix("# "),
            task=sections["Task"],
            on_paper=sections["On paper"],
            stub=_block(sections["Stub"]),
            hints=_list(sections["Hints"]),
            points=points,
            subject=grading.get("subject", ""),
            goals=goals,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ChainruleError(f"{path}: {error}") from error


def _block(section: str) -> str:
    """Return what stands between the fences of a section's only block."""
    found = re.fullmatch(r"```\w+\n(.+?)\n```", section.strip(), re.DOTALL)
    if found is None:
        raise ValueError(f"expected one block of code, found {section[:40]!r}")
    return found[1]


def _list(section: str) -> tuple[str, ...]:
    """Return the items of a numbered list, each as one paragraph."""
    items = re.split(r"^\d+\. ", section, flags=re.MULTILINE)
    return tuple(" ".join(item.split()) for item in items if item.strip())
