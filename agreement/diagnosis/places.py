"""Where in a learner's file something is made: the lines of functions, and of what they return."""

import ast
from collections.abc import Sequence
from typing import Any

Function = ast.FunctionDef | ast.AsyncFunctionDef


def function_named(tree: ast.Module | None, name: str | None, inside: str | None = None) -> Function | None:
    """Return the function of that name, of the class ``inside`` if given."""
    if tree is None or name is None:
        return None
    scope: ast.AST = tree
    if inside is not None:
        scope = next((n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == inside), tree)
    return next((n for n in ast.walk(scope) if isinstance(n, Function) and n.name == name), None)


def lines_of(function: Function | None, place: int | None, keys: Sequence[str]) -> tuple[int, ...]:
    """Return the lines that make one of the values that a function returns.

    ``place`` is its number among those returned, ``keys`` what it may be called in a dict or an attribute.
    """
    if function is None:
        return ()
    returned: list[ast.expr] = [
        n.value for n in ast.walk(function) if isinstance(n, ast.Return) and n.value is not None
    ]
    found: list[int] = []
    for value in returned:
        part: ast.expr | None = value
        if isinstance(value, ast.Tuple | ast.List):
            part = value.elts[place] if place is not None and place < len(value.elts) else None
        elif isinstance(value, ast.Dict):
            pairs = zip(value.keys, value.values, strict=True)
            part = next((v for k, v in pairs if isinstance(k, ast.Constant) and str(k.value) in keys), None)
        if isinstance(part, ast.Name):
            found += _assigned(function, part.id) or [part.lineno]
        elif part is not None:
            inner = [n.id for n in ast.walk(part) if isinstance(n, ast.Name)]
            found += (
                [part.lineno] if not isinstance(part, ast.Call) else [part.lineno, *_made(function, inner)]
            )
    node: Any
    for node in ast.walk(function):  # self.dW = ..., self.weight.grad = ..., grads["w"] = ...
        targets = (
            node.targets
            if isinstance(node, ast.Assign)
            else [node.target]
            if isinstance(node, ast.AugAssign)
            else []
        )
        for target in targets:
            if isinstance(target, ast.Attribute) and (
                target.attr in keys or ast.unparse(target).split("self.")[-1] in keys
            ):
                found.append(node.lineno)
            if (
                isinstance(target, ast.Subscript)
                and isinstance(target.slice, ast.Constant)
                and str(target.slice.value) in keys
            ):
                found.append(node.lineno)
    return tuple(sorted(set(found))) or (function.lineno,)


def _made(function: Function, names: list[str]) -> list[int]:
    return [line for name in names for line in _assigned(function, name)[-1:]]


def _assigned(function: Function, name: str) -> list[int]:
    """Return the lines where a variable, or a part of it, is assigned or added to."""
    lines = []
    node: Any
    for node in ast.walk(function):
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        for target in targets:
            for part in ast.walk(target):
                if isinstance(part, ast.Name) and part.id == name and not _is_index(target, part):
                    lines.append(node.lineno)
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("append", "extend", "insert")
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == name
        ):
            lines.append(node.lineno)
    return sorted(set(lines))


def _is_index(target: ast.AST, part: ast.Name) -> bool:
    """Tell whether a name in the target of an assignment only says where: the i of a[i] = ..."""
    for node in ast.walk(target):
        if isinstance(node, ast.Subscript) and any(inner is part for inner in ast.walk(node.slice)):
            return True
    return False
