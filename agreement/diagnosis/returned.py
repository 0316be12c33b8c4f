"""What a learner's code returned, named: by what they call it, by its shape, then by its values."""

import base64
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from agreement.diagnosis.subject import Probe, Subject, Tensors
from agreement.measures import Array

Found = dict[str, Array | None]
TEMPLATES = (
    "d{}",
    "grad_{}",
    "{}_grad",
    "g{}",
    "d_{}",
    "dL_d{}",
    "dLd{}",
    "dl_d{}",
    "grad{}",
    "{}_gradient",
    "g_{}",
    "delta_{}",
    "gradient_{}",
    "d{}_",
    "grad of {}",
    "grad_of_{}",
    "{}.grad",
    "nabla_{}",
    "dE_d{}",
    "dJ_d{}",
    "d_loss_d{}",
)
_MOST = 5040  # orders of returned values that are tried


def array_of(tree: Any) -> Array | None:
    """Return the array that a message holds, or None."""
    if isinstance(tree, dict) and "array" in tree:
        data = base64.b64decode(tree["array"])
        array = np.frombuffer(data, tree["dtype"]).reshape(tree["shape"])
        return array.astype(float) if array.dtype.kind in "bui" else array
    return None


def leaves(tree: Any, expected: Sequence[tuple[int, ...]]) -> list[tuple[str, Array | None]]:
    """Return each array of what was returned, with the key that it had in a dict (else "").

    One array made of equal lists is split where only its rows have expected shapes.
    """
    array = array_of(tree)
    if array is not None:
        rows = array.shape[1:]
        if (
            tree.get("list")
            and array.ndim
            and array.shape not in expected
            and expected.count(rows) == len(array) > 1
        ):
            return [("", row) for row in array]
        return [("", array)]
    if isinstance(tree, dict) and "dict" in tree:
        found: list[tuple[str, Array | None]] = []
        for key, item in tree["dict"].items():
            array = array_of(item)
            if array is not None:
                found.append((key, array))
            elif item is not None and not isinstance(item, str):
                found += [(inner or key, value) for inner, value in leaves(item, expected)]
        return found
    if isinstance(tree, list):
        return [
            leaf for item in tree for leaf in (leaves(item, expected) if item is not None else [("", None)])
        ]
    return []


def role_of(key: str, roles: Sequence[str], aliases: Mapping[str, Sequence[str]]) -> str | None:
    """Return the argument whose gradient a dict has under ``key``: x for dx, grad_x, x.grad or x."""
    for fold in (str, str.lower):
        for role in roles:
            for alias in (role, *aliases.get(role, ())):
                if fold(key) in {fold(alias), *(fold(t.format(alias)) for t in TEMPLATES)}:
                    return role
    return None


def distance(found: Array | None, right: Array) -> float:
    """Return how unlike two tensors are: 0 for equal ones, up to 1 for one shape, more for another."""
    if found is None:
        return 2.5
    if found.shape != right.shape:
        return 1.5 if sorted(found.shape) == sorted(right.shape) else 1.7 if found.size == right.size else 2.0
    with np.errstate(all="ignore"):
        scale = np.abs(right).max(initial=0)
        error = np.abs(found - right).max(initial=0) / scale if scale else np.abs(found).max(initial=0)
    return float(min(error, 1.0)) if np.isfinite(error) else 1.0


def gradients(
    subject: Subject, reports: Sequence[Mapping[str, Any]], rights: Sequence[Tensors], probes: Sequence[Probe]
) -> tuple[list[Found], str]:
    """Name the gradients of all probes in one way; returns them, and a note if their order was not ours."""
    roles = [role for role in subject.gradients if any(f"grad of {role}" in right for right in rights)]
    names = [f"grad of {role}" for role in roles]
    results: list[Found] = []
    rows = []
    for report, right in zip(reports, rights, strict=True):
        shapes = [right[name].shape for name in names if name in right]
        found: Found = {}
        unnamed = []
        for key, array in leaves(report.get("backward"), shapes):
            role = role_of(key, roles, subject.aliases) if key else None
            if role is None:
                unnamed.append(array)
            else:
                found[f"grad of {role}"] = array
        for role, tree in report.get("attributes", {}).items():
            array = array_of(tree)
            if role in roles and array is not None:
                found.setdefault(f"grad of {role}", array)
        results.append(found)
        rows.append(unnamed)
    count = max((len(row) for row in rows), default=0)
    taken = {name for found in results for name in found}
    free = [name for name in names if name not in taken]
    if count and len(free):
        order = _best_order(rows, rights, free, count)
        for found, row in zip(results, rows, strict=True):
            found.update({name: row[i] for i, name in order.items() if i < len(row)})
        listed = [name.removeprefix("grad of ") for _, name in sorted(order.items())]
        ours = [name.removeprefix("grad of ") for name in free]
        if listed != [name for name in ours if name in listed]:
            return (
                results,
                f"what backward returns was taken as the gradients of {', '.join(listed)}, in this order",
            )
    return results, ""


def _best_order(rows: Any, rights: Sequence[Tensors], free: list[str], count: int) -> dict[int, str]:
    places: Iterator[tuple[int | None, ...]]
    padded: list[int | None] = list(range(count))
    padded += [None] * max(0, len(free) - count)
    places = itertools.islice(itertools.permutations(padded, len(free)), _MOST)
    best, least = {}, np.inf
    memory: dict[tuple[int, str], float] = {}

    def cost(place: int, name: str) -> float:
        if (place, name) not in memory:
            found = [
                distance(row[place] if place < len(row) else None, right[name])
                for row, right in zip(rows, rights, strict=True)
                if name in right
            ]
            memory[place, name] = float(np.mean(found)) if found else 0.0
        return memory[place, name]

    for order in places:
        pairs = [(place, name) for place, name in zip(order, free, strict=True) if place is not None]
        inversions = sum(a[0] > b[0] for a, b in itertools.combinations(pairs, 2))
        skipped = sum(3.0 for place in order if place is None)
        total = sum(cost(place, name) for place, name in pairs) + 0.01 * inversions + skipped
        if total < least - 1e-12:
            best, least = dict(pairs), total
    return best
