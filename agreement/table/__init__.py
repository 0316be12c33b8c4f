"""One table of operations: what each takes, where it is smooth, how exact it must be, and its mutants.

From a row follow, without further code, all checks of `agreement.checks` and its line in the docs. It needs
no torch until a counterpart is asked for.
"""

from agreement.table.draw import Draw
from agreement.table.layers import LAYERS
from agreement.table.losses import LOSSES
from agreement.table.row import PRODUCTS, Accuracy, Example, Kinks, Row

OPERATIONS = (*LAYERS, *LOSSES)
ROWS = {row.name: row for row in OPERATIONS}

__all__ = [
    "LAYERS",
    "LOSSES",
    "OPERATIONS",
    "PRODUCTS",
    "ROWS",
    "Accuracy",
    "Draw",
    "Example",
    "Kinks",
    "Row",
]
