"""Print the documentation's page of operations: ``python -m agreement.table > docs/operations.md``."""

from agreement.checks import CHECKERS
from agreement.table import OPERATIONS
from agreement.table.row import Row

COLUMNS = ("operation", "arguments covered", "domain", "smooth, or kinks", "float32", "checkers", "mutants")
RELATIVE_TO = {
    "products": "u \\|A\\|\\|B\\|, each element",
    "element": "u, each element",
    "tensor": "u of the largest, also of what came in",
}


def kinks_of(row: Row) -> str:
    """Return where the row has kinks, and what is taken there."""
    return "smooth" if row.kinks is None else f"{row.kinks.where}: {row.kinks.taken}"


def line_of(row: Row) -> str:
    """Return the row as a line of a Markdown table; checkers by their number."""
    numbers = [str(i) for i, checker in enumerate(CHECKERS, 1) if checker.applies(row)]
    cells = (
        f"`{row.name}`",
        row.arguments,
        row.domain,
        kinks_of(row),
        f"{row.float32.units:g} {RELATIVE_TO[row.float32.measure]}",
        " ".join(numbers),
        str(len(row.mutants)),
    )
    return f"| {' | '.join(cells)} |"


def page() -> str:
    """Return the whole page."""
    mutants = sum(len(row.mutants) for row in OPERATIONS)
    about = [(checker.run.__doc__ or "").splitlines()[0] for checker in CHECKERS]
    checkers = [f"{i}. `{c.name}`: {a}" for i, (c, a) in enumerate(zip(CHECKERS, about, strict=True), 1)]
    reasons = [f"- `{row.name}`, {row.float32.units:g} u: {row.float32.reason}." for row in OPERATIONS]
    return "\n".join(
        [
            "# Operations",
            "",
            "Made from the layer table: `python -m agreement.table > docs/operations.md`.",
            "",
            f"{len(OPERATIONS)} operations, {len(CHECKERS)} checkers, {mutants} mutants. A mutant is the "
            "operation with one mistake in it; every checker that claims a mutant must report it.",
            "",
            f"| {' | '.join(COLUMNS)} |",
            f"|{' --- |' * len(COLUMNS)}",
            *map(line_of, OPERATIONS),
            "",
            "u is the unit roundoff of float32, 2^-24: half of the distance from 1 to the next number.",
            "",
            "## Checkers",
            "",
            *checkers,
            "",
            "## Why so many u in float32",
            "",
            *reasons,
            "",
        ]
    )


if __name__ == "__main__":
    print(page(), end="")
