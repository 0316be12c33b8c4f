"""How a family's file enters its mutants into the catalogue."""

from collections.abc import Callable
from typing import Any, TypeVar

from agreement.mutants.mutant import Kind, Mutant

Function = TypeVar("Function", bound=Callable[..., Any])

CATALOGUE: list[Mutant] = []


def mistake(
    operations: str | tuple[str, ...],
    where: Any,
    *,
    right: str,
    wrong: str,
    kind: Kind = Kind.OPERATION,
    attribute: str = "backward",
    forward: Callable[..., Any] | None = None,
    shows_in: tuple[str, ...] = ("float32", "float64"),
) -> Callable[[Function], Function]:
    """Enter the function below as a mutant of each operation: its name and docstring name the mistake."""

    def register(function: Function) -> Function:
        words = function.__name__.replace("_", " ")
        for operation in (operations,) if isinstance(operations, str) else operations:
            CATALOGUE.append(
                Mutant(
                    name=f"{operation}: {words}",
                    operation=operation,
                    kind=kind,
                    mistake=" ".join((function.__doc__ or "").split()),
                    right=right,
                    wrong=wrong,
                    where=where,
                    attribute=attribute,
                    function=function,
                    forward=forward,
                    shows_in=shows_in,
                )
            )
        return function

    return register
