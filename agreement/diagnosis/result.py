"""What a diagnosis says: which parts are right, which mistake it looks like, how sure that is."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Part:
    """One result of the learner's code, over all probes: "output", "grad of weight", "w" of an optimizer.

    ``error`` is the largest difference over the largest value (infinite for a wrong shape, NaN for NaN);
    ``shape`` what was found in the first probe that went wrong (None: not returned), ``words`` how it is
    wrong, "" if it is right.
    """

    name: str
    ok: bool
    error: float
    shape: tuple[int, ...] | None
    expected_shape: tuple[int, ...]
    words: str = ""


@dataclass(frozen=True)
class Candidate:
    """A known mistake that gives the numbers that were found.

    ``name`` is that of a mutant (or of two, joined by " and "), ``mistake`` says in a sentence what a learner
    did, ``wrong`` is its formula; ``reason`` why the chain rule gives something else and ``formula`` what it
    says there, with shapes. ``parts`` are the results that it explains, ``lines`` where they are made in the
    learner's file.
    """

    name: str
    mistake: str
    wrong: str
    parts: tuple[str, ...]
    reason: str = ""
    formula: str = ""
    lines: tuple[int, ...] = ()


@dataclass(frozen=True)
class Problem:
    """Something that is no wrong number: an exception, an endless loop, a changed input. One line each."""

    kind: str
    words: str
    line: int | None = None


@dataclass(frozen=True)
class Diagnosis:
    """The whole result. ``ok`` means that every part is right and nothing else is wrong.

    ``confidence`` is "sure" (one known mistake gives these very numbers), "one of several" (the candidates
    cannot be told apart by any probe), "none" (no known mistake gives them; ``narrowing`` then says what is
    known), "problem" (the code did not run to its end) or "" where nothing is wrong.
    """

    file: str
    subject: str
    ok: bool
    confidence: str = ""
    parts: tuple[Part, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    problems: tuple[Problem, ...] = ()
    narrowing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    probes: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as lists, numbers, strings and None, for JSON."""
        return _plain(asdict(self))

    def __str__(self) -> str:
        from agreement.diagnosis.words import text_of

        return text_of(self)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)  # JSON has no such numbers
    return value
