"""What a comparison found: a table for the eye, words for what is wrong, and data for programs."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from agreement.measures import TensorAgreement

_LARGER_LIMITS = (
    "a limit is larger where rounding is: by autograd's own, or by several times what one ulp in inputs and "
    "weights changes"
)


@dataclass
class Report:
    """The rows of a comparison, and whatever is wrong besides numbers.

    ``remarks`` holds a few words for some rows, by name: the likely cause of a wrong one, or why another
    limit holds. ``problems`` are faults that no row shows (an exception, a wrong dtype, an array changed in
    place); ``notes`` say what was done and what could not be. ``repeat`` says how to see it again.
    """

    title: str
    rows: list[TensorAgreement] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    remarks: dict[str, str] = field(default_factory=dict)
    repeat: str = ""
    names: tuple[str, str] = ("yours", "autograd")
    reference: Any = None

    @property
    def agrees(self) -> bool:
        """Whether every row is within its limit, and there are any, and nothing else is wrong."""
        return bool(self.rows) and not self.problems and all(row.agrees for row in self.rows)

    @property
    def wrong(self) -> list[TensorAgreement]:
        """The rows that are too far apart, the worst first."""
        return sorted((row for row in self.rows if not row.agrees), key=_severity, reverse=True)

    def __bool__(self) -> bool:
        return self.agrees

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> Iterator[str]:
        """Give the lines of the report as text."""
        yield self.title
        yield ""
        if self.rows:
            yield from self._table()
            yield ""
        for row in self.wrong:
            yield from self._explain(row)
        for problem in self.problems:
            yield f"WRONG  {problem}"
        if self.problems or self.wrong:
            yield ""
        for row in self.rows:
            if row.agrees and row.name in self.remarks:
                yield f"Note   {row.name}: {self.remarks[row.name]}"
        if self.rows and max(row.limit for row in self.rows) > 1.01 * min(row.limit for row in self.rows):
            yield f"Note   {_LARGER_LIMITS}"
        for note in self.notes:
            yield f"Note   {note}"
        if self.repeat and not self.agrees:
            yield f"Repeat {self.repeat}"
        yield self.verdict()

    def verdict(self) -> str:
        """Return the last line: whether they agree, and by how much."""
        if not self.agrees:
            count = len(self.wrong)
            of = f"{count} of {len(self.rows)} tensors too far apart" if count else ""
            more = (
                f"{len(self.problems)} other fault{'s' * (len(self.problems) > 1)}" if self.problems else ""
            )
            return f"They DISAGREE: {', '.join(filter(None, (of, more))) or 'nothing was compared'}."
        share = max(row.error / row.limit for row in self.rows)
        each = f"each of {len(self.rows)} tensors is within its limit"
        return f"They agree: {each}, the worst at {share:.2g} of it."

    def _table(self) -> Iterator[str]:
        truth = any(row.reference_error is not None for row in self.rows)
        width = max(6, *(len(row.name) for row in self.rows))
        head = f"{'tensor':{width}} {'shape':>12}"
        head += "".join(f" {word:>8}" for word in ("largest", "error", "limit", "ulps")) + f" {'cosine':>9}"
        own = " error against truth" if truth else ""
        if truth:
            yield f"{'':{len(head)}} {own.strip()}"
        yield head + (f" {self.names[0]:>9} {self.names[1]:>9}" if truth else "") + "  worst at"
        for row in self.rows:
            shape = "x".join(map(str, row.shape)) or "scalar"
            line = (
                f"{row.name:{width}} {shape:>12} {row.largest_value:8.1e} {row.error:8.1e} {row.limit:8.1e}"
                f" {row.ulps:8.3g} {row.cosine:9.6f}"
            )
            if truth:
                line += f" {_number(row.reference_error):>9} {_number(row.autograd_error):>9}"
            worst = "" if row.worst is None else str(list(row.worst))
            yield f"{line}  {worst}" + ("" if row.agrees else "  <- too far apart")

    def _explain(self, row: TensorAgreement) -> Iterator[str]:
        """Say of a wrong row which element, both values, and what probably happened."""
        first, second = self.names
        at = "" if row.worst is None else f" at {list(row.worst)}"
        yield (
            f"WRONG  {row.name}{at}: {first} {_value(row.reference_value)}, "
            f"{second} {_value(row.autograd_value)}"
            f" (error {row.error:.2g} of the largest value, limit {row.limit:.1g})"
        )
        if row.name in self.remarks:
            yield f"       likely cause: {self.remarks[row.name]}"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as numbers, text, lists and dicts; None for NaN and infinity, as in JSON."""
        return {
            "title": self.title,
            "agrees": self.agrees,
            "verdict": self.verdict(),
            "problems": self.problems,
            "notes": self.notes,
            "repeat": self.repeat,
            "tensors": [
                {
                    **{key: _finite(value) for key, value in asdict(row).items()},
                    "error": _finite(row.error),
                    "agrees": row.agrees,
                    "remark": self.remarks.get(row.name, ""),
                }
                for row in self.rows
            ],
        }


def _severity(row: TensorAgreement) -> float:
    """How many times the limit; infinite for NaN."""
    return math.inf if math.isnan(row.error) or not row.limit else row.error / row.limit


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"


def _value(value: float | None) -> str:
    return "?" if value is None else f"{value:.10g}"
