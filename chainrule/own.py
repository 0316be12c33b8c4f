"""Code from a person's own file: found, loaded, and set beside what it should equal."""

import ast
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import agreement
from chainrule.errors import ChainruleError, WrongUsage, nearest

# Arguments and inputs for layers that need some; sizes are all different, the batch is more than one.
_DEFAULTS: dict[str, tuple[str, list[tuple[int, ...]]]] = {
    "Linear": ("7,5", [(4, 7)]),
    "Conv2d": ("2,3,3", [(4, 2, 6, 5)]),
    "BatchNorm1d": ("5", [(6, 5)]),
    "BatchNorm2d": ("3", [(4, 3, 5, 6)]),
    "LayerNorm": ("5", [(4, 5)]),
    "MaxPool2d": ("2", [(4, 3, 6, 8)]),
    "AvgPool2d": ("2", [(4, 3, 6, 8)]),
    "Softmax": ("1", [(4, 7)]),
    "LogSoftmax": ("1", [(4, 7)]),
    "MSELoss": ("", [(4, 7), (4, 7)]),
    "L1Loss": ("", [(4, 7), (4, 7)]),
    "linear": ("", [(4, 7), (5, 7), (5,)]),
    "conv2d": ("", [(4, 2, 6, 5), (3, 2, 3, 3), (3,)]),
    "softmax": ("1", [(4, 7)]),
    "log_softmax": ("1", [(4, 7)]),
}
_OF_LABELS = ("CrossEntropyLoss", "NLLLoss", "cross_entropy", "nll_loss")


def compare(
    place: str, like: str, args: str | None, inputs: list[str], dtype: str, seed: int
) -> tuple[agreement.Report, dict[str, str]]:
    """Compare the code at ``place`` (FILE.py:NAME) with ``like`` (torch.nn.Linear).

    ``args`` are the arguments of both constructors and ``inputs`` the shapes of the inputs; what is not given
    is the usual for the layer. Raises ChainruleError or WrongUsage with one line.
    """
    kind = like.rpartition(".")[2]
    default_args, default_inputs = _DEFAULTS.get(kind, ("", [(4, 7)]))
    arguments, keywords = _arguments(default_args if args is None else args)
    shapes: list[Any] = [_shape(text) for text in inputs] or list(default_inputs)
    if kind in _OF_LABELS and not inputs:
        shapes = [(4, 7), np.array([2, 0, 6, 2])]
    target = _like(like)
    autograd = _construct(like, target, arguments, keywords) if isinstance(target, type) else target
    if not isinstance(target, type) and (arguments or keywords):
        function: Callable[..., Any] = target
        autograd = lambda *tensors: function(*tensors, *arguments, **keywords)  # noqa: E731
    code = _own(place, arguments, keywords)
    try:
        report = agreement.compare(code, autograd, shapes, dtype=dtype, seed=seed)
    except (TypeError, ValueError) as error:
        raise ChainruleError(f"{place}: {error}") from None
    report.title = f"{place} against {like} in {dtype}"
    report.repeat = f"chainrule compare --own {place} --like {like} --dtype {dtype} --seed {seed}" + (
        f" --args {args}" if args else ""
    )
    report.repeat += "".join(f" --input {text}" for text in inputs)
    shown = ", ".join(
        f"labels {s.shape}" if isinstance(s, np.ndarray) else "x".join(map(str, s)) or "scalar"
        for s in shapes
    )
    given = [*map(repr, arguments), *(f"{key}={value!r}" for key, value in keywords.items())]
    return report, {"Yours": place, "Like": f"{like}({', '.join(given)})", "Inputs": shown}


def _own(place: str, arguments: list[Any], keywords: dict[str, Any]) -> Any:
    file, _, name = place.rpartition(":")
    if not file or not name:
        raise WrongUsage(f"--own is FILE.py:NAME, such as my_layer.py:backward; found '{place}'")
    module = _load(Path(file).expanduser())
    found = _attribute(module, file, name)
    if isinstance(found, type):
        try:
            return found(*arguments, **keywords)
        except TypeError as error:
            try:
                return found()
            except TypeError:
                raise ChainruleError(f"{place}: it cannot be made with these --args: {error}") from None
        except Exception as error:
            raise ChainruleError(f"{place}: its constructor raises {type(error).__name__}: {error}") from None
    if callable(getattr(found, "backward", None)):
        return found
    if not callable(found):
        raise ChainruleError(
            f"{place} is a {type(found).__name__}, expected a function, a class or an object"
        )
    if "backward" not in name:
        raise WrongUsage(
            f"--own names the backward (its forward is found beside it) or a class; found '{name}'"
        )
    candidates = [name.replace("backward", "forward"), name.replace("_backward", "").replace("backward_", "")]
    for other in candidates:
        if other != name and callable(getattr(module, other, None)):
            return getattr(module, other), found
    raise ChainruleError(f"{file}: there is no {' or '.join(dict.fromkeys(candidates))} beside {name}")


def _load(path: Path) -> ModuleType:
    """Run a person's file as a module; its mistakes become one line with the file's name and the line."""
    if path.suffix != ".py":
        raise WrongUsage(f"--own is FILE.py:NAME, such as my_layer.py:backward; found the file '{path}'")
    if not path.is_file():
        raise ChainruleError(f"{path}: there is no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ChainruleError(f"{path}: Python cannot load it")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))  # for what it imports from beside it
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ChainruleError(f"{path}, line {error.lineno}: {error.msg}") from None
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == path.resolve()]
        line = f", line {lines[-1]}" if lines else ""
        raise ChainruleError(f"{path}{line}: {type(error).__name__}: {error}") from None
    finally:
        sys.path.pop(0)
    return module


def _attribute(owner: Any, where: str, name: str) -> Any:
    if not hasattr(owner, name):
        known = [key for key, value in vars(owner).items() if callable(value) and not key.startswith("_")]
        listed = f" It has {', '.join(known[:8])}." if known and len(known) < 40 else ""
        raise ChainruleError(f"{where} has no {name}.{listed}{nearest(name, known)}")
    return getattr(owner, name)


def _like(like: str) -> Any:
    """Return what a dotted name such as torch.nn.functional.relu stands for."""
    parts = like.split(".")
    if len(parts) < 2 or parts[0] != "torch":
        raise WrongUsage(f"--like is a name of PyTorch's, such as torch.nn.Linear; found '{like}'")
    found: Any = importlib.import_module("torch")
    for i, part in enumerate(parts[1:], 1):
        found = _attribute(found, ".".join(parts[:i]), part)
    if not callable(found):
        raise WrongUsage(f"--like {like} is a {type(found).__name__}, expected a layer or a function")
    return found


def _construct(name: str, kind: Any, arguments: list[Any], keywords: dict[str, Any]) -> Any:
    try:
        return kind(*arguments, **keywords)
    except Exception as error:
        message = str(error).replace(f"{kind.__name__}.__init__()", kind.__name__)
        raise ChainruleError(f"--like {name} with these --args: {message}") from None


def _arguments(text: str) -> tuple[list[Any], dict[str, Any]]:
    """Return "7, 5, bias=False" as [7, 5] and {"bias": False}."""
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        assert isinstance(call, ast.Call)
        values = [ast.literal_eval(value) for value in call.args]
        return values, {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError, AssertionError):
        raise WrongUsage(f"--args takes arguments such as 7,5 or 2,3,3,padding=1; found '{text}'") from None


def _shape(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise WrongUsage(f"--input takes a shape such as 4,7; found '{text}'")
    return sizes
