"""The process that runs a learner's file. It is started by `apart`, knows nothing of right
gradients, and imports nothing of this project: what it finds, it sends back as JSON.

It reads a job from standard input: the file, the names that people give to arguments, and probes. For each
probe it calls the learner's code, notes what came back and what was changed on the way, and writes one line.
"""

import base64
import contextlib
import copy
import importlib.util
import inspect
import itertools
import json
import os
import re
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

BACKWARD = re.compile(r"back|bprop|bwd|grad|deriv|vjp|prime", re.IGNORECASE)
FORWARD = re.compile(r"forward|fwd|fprop", re.IGNORECASE)
STEP = re.compile(r"step|update|sgd|adam|momentum|optimi|descent", re.IGNORECASE)
TRAIN = re.compile(r"train|step|fit|learn", re.IGNORECASE)
MANY = 6  # no more orders of unknown arguments or results than those of three are tried


class TooLong(BaseException):
    """The time that the code has is over."""


# -- values on the way ----------------------------------------------------------------------------------


def encode(value: Any, depth: int = 0) -> Any:
    """Return arrays, numbers, lists, tuples and dicts as JSON; of anything else the name of its type."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, np.ndarray | np.generic | int | float | complex) or hasattr(value, "__array__"):
        return encode_array(value)
    if isinstance(value, tuple | list) and depth < 4:
        if isinstance(value, list) and only_numbers(value):
            try:
                return encode_array(np.array(value)) | {"list": True}
            except ValueError:
                pass
        return [encode(item, depth + 1) for item in value]
    if isinstance(value, dict) and depth < 4:
        return {"dict": {str(key): encode(item, depth + 1) for key, item in value.items()}}
    return {"object": type(value).__name__}


def encode_array(value: Any) -> dict[str, Any]:
    """Return an array, or what can be one, as text with its dtype and shape."""
    with contextlib.suppress(Exception):
        value = value.detach() if hasattr(value, "detach") else value  # PyTorch's, which want a gradient
        array = np.asarray(value)
        if array.dtype.kind in "fiubc":
            kind = array.dtype if array.dtype.itemsize <= 8 or array.dtype.kind == "c" else np.dtype("f8")
            data = np.ascontiguousarray(array, kind)
            text = base64.b64encode(data.tobytes()).decode()
            return {"array": text, "dtype": kind.str, "shape": list(array.shape)}
        if array.dtype == object:
            return encode_array(array.astype(float))
    return {"object": type(value).__name__}


def only_numbers(value: Any) -> bool:
    """Tell whether a list holds numbers alone, however deep."""
    if isinstance(value, list):
        return bool(value) and all(only_numbers(item) for item in value)
    return isinstance(value, int | float | np.number) or (isinstance(value, np.ndarray) and value.ndim == 0)


def decode(value: dict[str, Any]) -> Any:
    """Return the array of a message, in its order in memory; a number where it has no axes."""
    array = np.frombuffer(base64.b64decode(value["array"]), value["dtype"]).reshape(value["shape"])
    if not array.ndim:
        return array[()]  # a number: `total += ...` must not change it in place
    return np.array(array, order=value.get("order", "C"))


def plain(value: Any) -> Any:
    """Return an option as it is handed over: an array, a tuple, or what it is."""
    if isinstance(value, dict) and "array" in value:
        return decode(value)
    return tuple(value) if isinstance(value, list) else value


def differs(value: Any, default: Any) -> bool:
    """Tell whether an option has another value than the usual one."""
    default = tuple(default) if isinstance(default, list) else default
    return isinstance(value, np.ndarray) or value != default


def as_lists(value: Any) -> Any:
    """Return an array as nested lists."""
    return value.tolist() if isinstance(value, np.ndarray) and value.ndim else value


def arrays_in(value: Any, depth: int = 0) -> Iterator[Any]:
    """Give each array in a cache."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, tuple | list) and depth < 4:
        for item in value:
            yield from arrays_in(item, depth + 1)
    elif isinstance(value, dict) and depth < 4:
        for item in value.values():
            yield from arrays_in(item, depth + 1)


def same(a: Any, b: Any) -> bool:
    """Tell whether two arrays are equal, NaN being equal to NaN."""
    try:
        a, b = np.asarray(a), np.asarray(b)
        return a.shape == b.shape and bool(np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"))
    except Exception:
        return True


# -- the file -------------------------------------------------------------------------------------------


def load(path: str) -> types.ModuleType:
    """Run the file as a module."""
    spec = importlib.util.spec_from_file_location("learner", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["learner"] = module
    spec.loader.exec_module(module)
    return module


def failure(error: BaseException, where: str, path: str) -> dict[str, Any]:
    """Return what is known of an exception: its type, its message, and the line in the learner's file."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == path:
            line = trace.tb_lineno
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and error.filename == path:
        line = error.lineno
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    message = message.replace(os.path.join(os.path.dirname(path), ""), "")  # noqa: PTH118, PTH120
    return {"type": type(error).__name__, "message": message[:300], "where": where, "line": line}


def own_functions(module: types.ModuleType) -> dict[str, Any]:
    """Return the functions and classes of the file; those that it imported from libraries come last."""
    found = {
        name: value
        for name, value in vars(module).items()
        if callable(value) and not isinstance(value, types.ModuleType) and not name.startswith("__")
    }
    own = {name: value for name, value in found.items() if getattr(value, "__module__", "") == "learner"}
    return own | {name: value for name, value in found.items() if name not in own}


def is_class(value: Any, method: str) -> bool:
    """Tell whether ``value`` is a class with that method."""
    return inspect.isclass(value) and callable(getattr(value, method, None))


def best(names: list[str], subject: list[str], exact: str) -> str | None:
    """Return the name that is most likely meant: exactly so called, with the subject in it, the shortest."""
    if not names:
        return None
    return min(
        names,
        key=lambda n: (n.lower() != exact, not any(s in n.lower() for s in subject), n[0] == "_", len(n)),
    )


def find_pair(module: types.ModuleType, subject: list[str]) -> tuple[Any, Any, Any]:
    """Return (class or object, forward, backward), each None where there is none."""
    found = own_functions(module)
    functions = {n: f for n, f in found.items() if not inspect.isclass(f) and not hasattr(f, "backward")}
    objects = {n: c for n, c in found.items() if is_class(c, "backward")}
    objects |= {
        n: c
        for n, c in vars(module).items()
        if not inspect.isclass(c) and callable(getattr(c, "backward", 0))
    }
    objects = {
        n: c for n, c in objects.items() if getattr(c, "__module__", "learner") == "learner"
    } or objects
    backwards = [name for name in functions if BACKWARD.search(name)]
    own_backwards = [n for n in backwards if getattr(functions[n], "__module__", "") == "learner"]
    if "backward" not in functions and objects and not any("backward" in n.lower() for n in own_backwards):
        return objects[best(list(objects), subject, subject[0]) or ""], None, None
    if not backwards:
        backwards = own_backwards = [
            n for n in functions if re.match(r"d_?[a-zA-Z]|.*_(d|der|prime)$", n) and len(functions) > 1
        ]
    backward = best(own_backwards or backwards, subject, "backward")
    if backward is None:
        return None, None, None
    near = [re.sub(r"backward|back", "forward", backward), re.sub(r"bwd", "fwd", backward)]
    near += [re.sub(r"_?(backward|back|bwd|grad(ient)?|deriv(ative)?|prime)_?|^d_?|_(d|der)$", "", backward)]
    for name in near:
        if name != backward and name in functions:
            return None, functions[name], functions[backward]
    others = [name for name in functions if name != backward and not BACKWARD.search(name)]
    named = [n for n in others if FORWARD.search(n)] or [n for n in others if n.lower() in subject]
    own = [n for n in others if getattr(functions[n], "__module__", "") == "learner"]
    forward = best(named, subject, "forward") or (own[0] if len(own) == 1 else None)
    return None, functions.get(forward or ""), functions[backward]


# -- arguments ------------------------------------------------------------------------------------------


def parameters_of(function: Callable[..., Any]) -> list[inspect.Parameter] | None:
    """Return the arguments of a function, or None where Python does not know them."""
    try:
        return [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
    except (TypeError, ValueError):
        return None


class Names:
    """What people call the things that are handed to a function: role by alias."""

    def __init__(self, roles: dict[str, list[str]]):
        self.roles = roles

    def role(self, name: str, allowed: Any) -> str | None:
        """Return the first of the allowed roles that a name may stand for."""
        if name in allowed:
            return name
        for fold in (str, str.lower):
            for role in allowed:
                if any(fold(name) == fold(alias) for alias in [role, *self.roles.get(role, ())]):
                    return role
        return None


def assign(
    function: Callable[..., Any],
    values: dict[str, Any],
    order: list[str],
    names: Names,
    options: dict[str, Any],
    optional: tuple[str, ...] = (),
) -> list[tuple[list[Any], dict[str, Any], dict[str, str]]]:
    """Return the ways to call ``function``: positional and keyword arguments, and which role went where.

    ``values`` are what there is, by role; ``order`` the roles that an argument of unknown name may be.
    """
    parameters = parameters_of(function)
    if parameters is None:
        return [([values[role] for role in order if role in values], {}, {})]
    roles: dict[str, str] = {}
    for p in parameters:
        role = names.role(p.name, [r for r in [*values, *options] if r not in roles.values()])
        if role is not None and not (
            isinstance(p.default, bool) and isinstance(values.get(role), np.ndarray)
        ):
            roles[p.name] = role
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    unknown = [p.name for p in parameters if p.name not in roles and p.kind in plain and p.default is p.empty]
    left = [role for role in order if role not in roles.values() and role in values]
    ways = []
    for chosen in itertools.islice(itertools.permutations(left, min(len(left), len(unknown))), MANY):
        mapping = roles | dict(zip(unknown, chosen, strict=False))
        pool = {**options, **values}
        positional: list[Any] = []
        keywords: dict[str, Any] = {}
        for p in parameters:
            if p.kind is p.VAR_POSITIONAL:
                rest = [
                    role for role in order if role in values and role not in (*optional, *mapping.values())
                ]
                positional += [values[role] for role in rest]
            elif p.kind is p.VAR_KEYWORD:
                continue
            elif p.name in mapping:
                if p.kind is p.KEYWORD_ONLY or (keywords and p.kind is not p.POSITIONAL_ONLY):
                    keywords[p.name] = pool[mapping[p.name]]
                else:
                    positional.append(pool[mapping[p.name]])
            elif p.default is not p.empty and p.kind in plain:
                keywords.setdefault("", None)  # from here on by keyword
        keywords.pop("", None)
        ways.append((positional, keywords, mapping))
    return ways or [([], {}, roles)]


def accepts(function: Any, option: str, names: Names) -> bool:
    """Tell whether a function has an argument for an option."""
    parameters = parameters_of(function) if function is not None else []
    return parameters is None or any(names.role(p.name, [option]) for p in parameters)


class Failed(Exception):
    """The learner's code raised."""

    def __init__(self, where: str, error: BaseException):
        self.where, self.error = where, error


def call(where: str, function: Callable[..., Any], ways: list[Any]) -> tuple[Any, dict[str, str], bool]:
    """Call in the first way that works, with arrays, then with lists; else raise what the first raised."""
    first: BaseException | None = None
    for convert in (None, as_lists):
        for positional, keywords, mapping in ways:
            if convert is not None:
                positional = [convert(value) for value in positional]
                keywords = {key: convert(value) for key, value in keywords.items()}
            try:
                with np.errstate(all="ignore"):
                    return function(*positional, **keywords), mapping, convert is not None
            except TooLong:
                raise
            except MemoryError as error:
                raise Failed(where, error) from error
            except (Exception, SystemExit) as error:
                if first is None:
                    first = error
                if isinstance(error, SystemExit):
                    raise Failed(where, error) from error
    assert first is not None
    raise Failed(where, first) from first


# -- one operation --------------------------------------------------------------------------------------


def split_output(result: Any, shape: list[int]) -> tuple[Any, Any, bool]:
    """Return (y, cache, whether there is a cache) of what forward returned."""

    def fits(value: Any) -> bool:
        try:
            return list(np.shape(value)) == shape
        except Exception:
            return False

    if isinstance(result, dict):
        keys = [key for key in result if str(key).lower() in ("y", "out", "output", "loss", "result", "z")]
        key = keys[0] if keys else next((k for k, v in result.items() if fits(v)), None)
        return (result if key is None else result[key]), result.get("cache", result), True
    if isinstance(result, tuple | list) and len(result) > 1:
        if isinstance(result, list) and fits(result):
            return result, None, False
        if isinstance(result, tuple) or fits(result[0]) or not only_numbers(result):
            rest = result[1:]
            if not fits(result[0]) and len(rest) == 1 and fits(rest[0]):
                return rest[0], result[0], True
            return result[0], rest[0] if len(rest) == 1 else tuple(rest), True
    return result, None, False


class Operation:
    """One probe of a forward and a backward, whether they are functions or methods of an object."""

    def __init__(self, job: dict[str, Any], module: types.ModuleType):
        self.job, self.names = job, Names(job["roles"])
        self.kind, self.forward, self.backward = find_pair(module, job["names"])

    def what(self) -> dict[str, Any]:
        """Return the names of what was found in the file."""
        name: Callable[[Any], Any] = lambda f: getattr(f, "__name__", None)  # noqa: E731
        return {
            "class": None if self.kind is None else getattr(self.kind, "__name__", type(self.kind).__name__),
            "forward": name(self.forward),
            "backward": name(self.backward),
        }

    def run(self, probe: dict[str, Any]) -> dict[str, Any]:
        """Do one probe."""
        report: dict[str, Any] = {"changed": []}
        values = {name: decode(value) for name, value in probe["args"].items()}
        values |= {"rng": np.random.default_rng(probe["seed"])} if probe.get("random") else {}
        options, defaults = probe["options"], probe["defaults"]
        options = {k: plain(v) for k, v in {**defaults, **options}.items()}
        forward, backward, owner = self.forward, self.backward, None
        if self.kind is not None:
            owner = self.make(values, options, probe)
            forward = getattr(owner, "forward", None) or owner
            backward = owner.backward
        places = [forward, backward, *([type(owner)] if owner is not None else [])]
        skipped = [
            key
            for key, value in options.items()
            if differs(value, defaults.get(key))
            and not any(accepts(f, key, self.names) for f in places)
            and not hasattr(owner, key)
        ]
        if skipped:
            return {"skipped": skipped}
        inputs = [name for name in values if name not in probe["parameters"] or owner is None]
        self.values, self.options, self.probe = values, options, probe
        report |= self.once(owner, forward, backward, values, inputs, report)
        if owner is not None and not report.get("loss"):
            first = report["attributes"]
            with contextlib.suppress(Failed):
                report["second"] = self.once(owner, forward, backward, values, inputs, {"changed": []})[
                    "attributes"
                ]
            report["like_parameter"] = [n for n in first if self.holds_grad(owner, n)]
        return report

    def once(self, owner: Any, forward: Any, backward: Any, values: Any, inputs: Any, report: Any) -> Any:
        """Go forward and back once."""
        probe, names, options = self.probe, self.names, self.options
        given = {key: copy.deepcopy(values[key]) for key in inputs if key != "rng"}
        if "rng" in inputs:
            given["rng"] = values["rng"]
        found: dict[str, Any] = {}
        mapping: dict[str, str] = {}
        optional = (*probe["mutable"], "mask")
        cache: Any = None
        y: Any = None
        has_cache = False
        parameters = self.parameters(owner, values) if owner is not None else {}
        if forward is not None:
            order = [key for key in inputs if key != "rng"]
            result, mapping, lists = call(
                "forward", forward, assign(forward, given, order, names, options, optional)
            )
            y, cache, has_cache = split_output(result, probe["output_shape"])
            found |= {"forward": encode(y), "forward_roles": sorted(set(mapping.values())), "lists": lists}
            found["forward_is_tuple"] = isinstance(result, tuple | list) and has_cache
            if isinstance(result, tuple | list) and has_cache:
                found["extras"] = [encode(item) for item in list(result)[1:]]
            self.note_changes("forward", given, values, report, probe["mutable"])
        elif owner is None and accepts(backward, "cache", names):
            has_cache, cache = True, tuple(given.values())
        if not has_cache and backward is not None and accepts(backward, "cache", names):
            has_cache, cache = True, tuple(given[key] for key in inputs if key != "rng")
        upstream = decode(probe["upstream"])
        pool = dict(given)
        before_args = {key: value for key, value in given.items() if isinstance(value, np.ndarray)}
        before_args = {key: value.copy() for key, value in before_args.items()}
        handed = upstream.copy(order="K") if isinstance(upstream, np.ndarray) else upstream
        pool["upstream"] = handed
        if has_cache:
            pool["cache"] = cache
        if y is not None:
            pool["output"] = y if isinstance(y, np.ndarray) else np.asarray(y) if not has_cache else y
        order = ["cache", "upstream"] if has_cache else ["upstream", *[k for k in inputs if k != "rng"]]
        needed = [p for p in parameters_of(backward) or [] if p.default is p.empty and p.kind not in (2, 4)]
        kept = [(array, array.copy()) for array in arrays_in(cache)]
        keys = sorted(map(str, cache)) if isinstance(cache, dict) else None
        count = len(cache) if isinstance(cache, list | dict) else None
        y_kept = copy.deepcopy(y) if isinstance(y, np.ndarray) else None
        known = Names(
            {**names.roles, **{role: [*names.roles.get(role, ()), p] for p, role in mapping.items()}}
        )
        if has_cache and forward is not None:
            self.name_cache(backward, cache, mapping, known, pool)
        ways = assign(
            backward,
            pool,
            order,
            known,
            options,
            tuple(inputs) if has_cache or owner is not None else optional,
        )
        result, used, lists = call("backward", backward, ways)
        found |= {"backward": encode(result), "backward_roles": sorted(set(used.values()))}
        found["lists"] = found.get("lists", False) or lists
        found["no_upstream"] = (
            "upstream" not in used.values() and not lists and parameters_of(backward) is not None
        )
        if len(needed) and found["no_upstream"] and any(p.kind == 2 for p in parameters_of(backward) or []):
            found["no_upstream"] = False
        changed = report["changed"]
        if not same(handed, upstream):
            changed.append(["backward", "upstream"])
        if y_kept is not None and not same(y, y_kept):
            changed.append(["backward", "output"])
        if any(not same(a, b) for a, b in kept):
            changed.append(["backward", "cache"])
        if keys is not None and (len(cache) != count or sorted(map(str, cache)) != keys):
            gone = [key for key in keys if key not in list(map(str, cache))]
            changed.append(["backward", "cache keys", gone])
        elif count is not None and len(cache) != count:
            changed.append(["backward", "cache keys", []])
        for key, value in before_args.items():
            if not same(given[key], value) and key not in probe["mutable"]:
                changed.append(["backward", key])
        found["attributes"] = {}
        if owner is not None:
            for key, value in self.parameters(owner, values).items():
                if key in parameters and not same(value, parameters[key]):
                    changed.append(["backward", key])
            found["attributes"] = {k: encode(v) for k, v in self.gradients(owner).items() if v is not None}
            found["buffers"] = self.buffers(owner)
        else:
            found["buffers"] = {k: encode(given[k]) for k in probe["mutable"] if k in given}
        return found

    def name_cache(self, backward: Any, cache: Any, mapping: Any, known: Names, pool: dict[str, Any]) -> None:
        """Find the argument that is the cache, whatever it is called: it is no argument of forward.

        Where forward returned several values besides y, and backward has as many arguments left, each
        gets one.
        """
        needed = [
            p.name for p in parameters_of(backward) or [] if p.default is p.empty and p.kind not in (2, 4)
        ]
        rest = [n for n in needed if n not in mapping and known.role(n, ["cache", "upstream"]) is None]
        rest = [n for n in rest if n.lower() not in ("y", "out", "output", "rng")]
        if not any(known.role(n, ["upstream"]) for n in needed):
            grads = [n for n in rest if self.means_gradient(n, rest, known)]
            if len(grads) == 1:
                known.roles["upstream"] = [*known.roles.get("upstream", ()), grads[0]]
                rest.remove(grads[0])
        if any(known.role(n, ["cache"]) for n in needed):
            return
        if len(rest) == 1 and not self.job["loss"] and not any(known.role(n, ["upstream"]) for n in needed):
            known.roles["upstream"] = [*known.roles.get("upstream", ()), rest[0]]
            return
        if len(rest) == 1:
            known.roles["cache"] = [*known.roles.get("cache", ()), rest[0]]
        elif len(rest) == 2 and not self.job["loss"] and not any(known.role(n, ["upstream"]) for n in needed):
            pass  # cache and gradient under names that say nothing: by their order
        elif isinstance(cache, tuple) and len(cache) == len(rest) > 1:
            for name, value in zip(rest, cache, strict=True):
                known.roles[f"cached {name}"] = [name]
                pool[f"cached {name}"] = value
        else:
            return
        for role, aliases in known.roles.items():  # p is then the cache, not the probabilities
            if role not in ("cache", *(f"cached {n}" for n in rest)):
                known.roles[role] = [a for a in aliases if a not in rest]

    def means_gradient(self, name: str, others: list[str], known: Names) -> bool:
        """Tell whether a name is that of a gradient: dp beside p, or grad_ and the like before anything."""
        if re.match(r"(grad|delta|g)_?[A-Z]|(grad|delta|g)_|(grad|delta)\w", name):
            return True
        of = re.fullmatch(r"dL?_?d?_?(\w+)", name)
        return of is not None and (of[1] in others or known.role(of[1], ["output", "x"]) is not None)

    def note_changes(self, where: str, given: Any, values: Any, report: Any, mutable: list[str]) -> None:
        """Note which arguments were changed in place."""
        for key, value in given.items():
            if key not in mutable and isinstance(value, np.ndarray) and not same(value, values[key]):
                report["changed"].append([where, key])

    # An object's parameters and gradients, wherever it keeps them.

    def make(self, values: dict[str, Any], options: dict[str, Any], probe: dict[str, Any]) -> Any:
        """Return a fresh object with the probe's parameters in it."""
        if not inspect.isclass(self.kind):
            owner = copy.deepcopy(self.kind)
        else:
            parameters = {name: values[name].copy() for name in probe["parameters"]}
            sizes = {name: plain(size) for name, size in probe["sizes"].items()}
            extra = {"rng": np.random.default_rng(probe["seed"])}
            ways = assign(self.kind, parameters | sizes | extra, list(sizes), self.names, options)
            ways += (
                [([], {}, {})]
                if all(p.default is not p.empty for p in parameters_of(self.kind) or [])
                else []
            )
            ways += [(list(sizes.values()), {}, {})]
            owner, _, _ = call("the constructor", self.kind, ways)
        state = {name: values[name].copy() for name in probe["parameters"]}
        state |= {name: values[name].copy() for name in probe["mutable"] if name in values}
        if callable(getattr(owner, "double", None)) and hasattr(owner, "load_state_dict"):
            owner = owner.double() if probe["dtype"] == "float64" else owner
        for name, value in state.items():
            place = self.place(owner, name, value)
            if place is None:
                continue
            old = getattr(owner, place)
            if hasattr(old, "data") and hasattr(old, "grad") and not isinstance(old, np.ndarray):
                old.data = value
            else:
                setattr(owner, place, as_lists(value) if isinstance(old, list) else value)
        if "training" in options:
            switch = getattr(owner, "train" if options["training"] else "eval", None)
            if callable(switch):
                switch()
            elif hasattr(owner, "training"):
                owner.training = options["training"]
        for name in ("rng", "generator"):
            if hasattr(owner, name):
                setattr(owner, name, np.random.default_rng(probe["seed"]))
        return owner

    def place(self, owner: Any, role: str, value: Any) -> str | None:
        """Return the attribute that holds a parameter: by its name, or as the only one of its shape."""
        attributes = [n for n in vars(owner) if not n.startswith("__")]
        for name in attributes:
            if self.names.role(name, [role]) or self.names.role(name.lstrip("_"), [role]):
                return name

        def shape_of(name: str) -> Any:
            held = getattr(owner, name)
            held = getattr(held, "data", held) if hasattr(held, "grad") else held
            return held.shape if isinstance(held, np.ndarray) and held.dtype.kind == "f" else None

        fitting = [n for n in attributes if shape_of(n) == value.shape and not BACKWARD.search(n)]
        return fitting[0] if len(fitting) == 1 else None

    def parameters(self, owner: Any, values: dict[str, Any]) -> dict[str, Any]:
        """Return copies of an object's parameters."""
        found = {}
        for name in self.probe["parameters"]:
            place = self.place(owner, name, values[name])
            if place is not None:
                held = getattr(owner, place)
                held = held.data if hasattr(held, "grad") and hasattr(held, "data") else held
                found[name] = np.array(held)
        return found

    def holds_grad(self, owner: Any, name: str) -> bool:
        """Tell whether a parameter is an object with ``data`` and ``grad``, as torch's."""
        place = self.place(owner, name, self.values[name])
        held = getattr(owner, place) if place else None
        return not isinstance(held, np.ndarray) and hasattr(held, "grad") and hasattr(held, "data")

    def gradients(self, owner: Any) -> dict[str, Any]:
        """Return the gradients that an object keeps, by parameter."""
        found: dict[str, Any] = {}
        for role in [*self.probe["parameters"], *self.probe["inputs"]]:
            if role in self.probe["parameters"] and self.holds_grad(owner, role):
                found[role] = getattr(owner, self.place(owner, role, self.values[role]) or "").grad
                continue
            aliases = [role, *self.names.roles.get(role, ())]
            wanted = [t.format(a).lower() for a in aliases for t in self.job["gradient_names"]]
            for name, value in vars(owner).items():
                if name.lower().lstrip("_") in wanted and value is not None:
                    found.setdefault(role, copy.deepcopy(value))
                elif name.lower() in ("grads", "gradients", "grad") and isinstance(value, dict):
                    for key, item in value.items():
                        if str(key).lower() in wanted or self.names.role(str(key), [role]):
                            found.setdefault(role, copy.deepcopy(item))
        return found

    def buffers(self, owner: Any) -> dict[str, Any]:
        """Return running statistics."""
        return {name: encode(getattr(owner, name)) for name in self.probe["mutable"] if hasattr(owner, name)}


# -- an optimizer ---------------------------------------------------------------------------------------


class Optimizer:
    """Some steps of an update, as a function of arrays or as an object with ``step`` or ``update``."""

    def __init__(self, job: dict[str, Any], module: types.ModuleType):
        self.job, self.names = job, Names(job["roles"])
        found = own_functions(module)
        subject = job["names"]
        classes = {n: c for n, c in found.items() if is_class(c, "step") or is_class(c, "update")}
        own = {n: c for n, c in classes.items() if getattr(c, "__module__", "") == "learner"}
        functions = {
            n: f
            for n, f in found.items()
            if not inspect.isclass(f) and (STEP.search(n) or any(s in n.lower() for s in subject))
        }
        own_functions_ = {n: f for n, f in functions.items() if getattr(f, "__module__", "") == "learner"}
        functions = own_functions_ or (functions if not own else {})
        self.kind: Any = None
        self.function: Any = None
        if (own or not functions) and classes:
            self.kind = (own or classes)[best(list(own or classes), subject, subject[0]) or ""]
        elif functions:
            self.function = functions[best(list(functions), subject, "step") or ""]
        else:
            alone = [f for f in found.values() if getattr(f, "__module__", "") == "learner"]
            self.function = alone[0] if len(alone) == 1 else None

    def what(self) -> dict[str, Any]:
        """Return the names of what was found in the file."""
        return {
            "class": getattr(self.kind, "__name__", None),
            "forward": None,
            "backward": getattr(self.function, "__name__", None)
            or (None if self.kind is None else ("step" if hasattr(self.kind, "step") else "update")),
        }

    def run(self, probe: dict[str, Any]) -> dict[str, Any]:
        """Do one probe."""
        defaults = probe["defaults"]
        options = {k: plain(v) for k, v in {**defaults, **probe["options"]}.items()}
        places = [self.function or self.kind]
        if self.kind is not None:
            places.append(getattr(self.kind, "step", None) or getattr(self.kind, "update", None))
        skipped = [
            key
            for key, value in options.items()
            if differs(value, defaults.get(key)) and not any(accepts(f, key, self.names) for f in places)
        ]
        if {"betas", "beta1", "beta2"} & set(options) and (
            "betas" not in skipped or not {"beta1", "beta2"} & set(skipped)
        ):
            skipped = [key for key in skipped if not key.startswith("beta")]  # in one form or the other
        if skipped:
            return {"skipped": skipped}
        start = decode(probe["args"]["w"])
        grads = [decode(g) for g in probe["grads"]]
        if self.kind is not None:
            return self.object(start, grads, options, probe["lrs"])
        variants: dict[str, Any] = {}
        for order in itertools.islice(itertools.permutations(probe["state"]), MANY):
            try:
                steps, count = self.function_steps(start, grads, options, list(order), probe)
            except Failed:
                if variants:
                    continue
                raise
            variants[" ".join(order)] = [encode(w) for w in steps]
            if count < 2:
                break
        return {"variants": variants, "changed": self.changed}

    def function_steps(self, start: Any, grads: Any, options: Any, order: list[str], probe: Any) -> Any:
        """Take all steps with a function that returns its arrays in ``order``."""
        state = {name: np.zeros_like(start) for name in probe["state"] if name != "w"}
        memory: dict[str, Any] = {}
        w, seen, count = start.copy(), [], 0
        self.changed: list[Any] = []
        for t, grad in enumerate(grads, 1):
            values = {"w": w, "grad": grad.copy(), **state, "state": memory, "t": t}
            options = {**options, "lr": probe["lrs"][t - 1]}
            result, _, lists = call(
                "the step",
                self.function,
                assign(self.function, values, ["w", "grad", *state], self.names, options),
            )
            if not lists and not same(values["grad"], grad):
                self.changed.append(["the step", "grad"])
            items = result
            if isinstance(result, dict):
                for key, value in result.items():
                    role = self.names.role(str(key), ["w", *state])
                    if role == "w":
                        w = np.asarray(value)
                    elif role:
                        state[role] = np.asarray(value)
            elif isinstance(result, tuple) or (isinstance(result, list) and not only_numbers(result)):
                arrays = [
                    np.asarray(v) for v in items if not isinstance(v, dict) and np.shape(v) == start.shape
                ]
                memory = next((v for v in items if isinstance(v, dict)), memory)
                count = max(count, len(arrays))
                for role, value in zip(
                    list(order)[: max(len(arrays), 0)] if len(arrays) > 1 else ["w"],
                    arrays,
                    strict=False,
                ):
                    if role == "w":
                        w = value
                    else:
                        state[role] = value
            elif result is not None:
                w = np.asarray(result)
            seen.append(np.array(w))
            w = np.array(w)
        return seen, count

    def set_rate(self, owner: Any, lr: float) -> None:
        """Change the learning rate of an object, wherever it keeps it."""
        for group in getattr(owner, "param_groups", ()):
            group["lr"] = lr
        for name in vars(owner):
            if self.names.role(name, ["lr"]) and isinstance(getattr(owner, name), int | float):
                setattr(owner, name, lr)

    def object(self, start: Any, grads: Any, options: Any, lrs: list[float]) -> dict[str, Any]:
        """Take all steps with an object, in one of the ways that people write them."""
        holder = types.SimpleNamespace
        parameter = getattr(sys.modules.get("nn_reference"), "Parameter", None)
        first: Failed | None = None

        def make(*args: Any) -> Any:
            values = {"params": args[0]} if args else {}
            owner, _, _ = call(
                "the constructor", self.kind, assign(self.kind, values, list(values), self.names, options)
            )
            return owner

        def torch_like() -> list[Any]:
            p = parameter(start.copy()) if parameter else holder(data=start.copy(), grad=None)
            owner, seen = make([p]), []
            for grad, lr in zip(grads, lrs, strict=True):
                self.set_rate(owner, lr)
                p.grad = grad.copy()
                call("the step", owner.step, [([], {}, {})])
                seen.append(np.array(p.data))
            return seen

        def pair(argument: bool, dicts: bool) -> list[Any]:
            held = {"w": start.copy()} if dicts else start.copy()
            owner, seen = (make(held) if argument else make()), []
            method = getattr(owner, "step", None) or owner.update
            for grad, lr in zip(grads, lrs, strict=True):
                self.set_rate(owner, lr)
                g = {"w": grad.copy()} if dicts else grad.copy()
                needed = [p for p in parameters_of(method) or [] if p.default is p.empty]
                ways: list[Any] = [([held, g], {}, {})] if len(needed) == 2 else [([g], {}, {})]
                if len(needed) > 2:
                    raise Failed("the step", TypeError("step takes more than parameters and gradients"))
                if len(needed) == 2 and self.names.role(needed[0].name, ["w", "grad"]) == "grad":
                    ways = [([g, held], {}, {})]
                result, _, _ = call("the step", method, ways)
                result = result[0] if isinstance(result, tuple) else result
                if result is not None:
                    held = result
                seen.append(np.array(held["w"] if isinstance(held, dict) else held))
                if not isinstance(held, dict):
                    held = np.array(held) if not argument else held
            return seen

        wants = any(self.names.role(p.name, ["params"]) for p in parameters_of(self.kind) or [])
        needed = [
            p
            for p in parameters_of(getattr(self.kind, "step", None) or self.kind.update) or []
            if p.default is p.empty
        ]
        attempts: list[Callable[[], list[Any]]] = []
        attempts += [lambda: pair(False, False), lambda: pair(False, True)] if not wants else []
        attempts += [torch_like] if not needed or wants else []
        attempts += [lambda: pair(True, True), lambda: pair(True, False)]
        for way in attempts:
            try:
                return {"variants": {"": [encode(w) for w in way()]}, "changed": []}
            except Failed as error:
                first = first or error
            except (TypeError, KeyError, IndexError, AttributeError, ValueError) as error:
                first = first or Failed("the step", error)
        assert first is not None
        raise first


# -- training -------------------------------------------------------------------------------------------


class Training:
    """Some steps of training: a function of parameters, a batch and a learning rate."""

    def __init__(self, job: dict[str, Any], module: types.ModuleType):
        self.job, self.names = job, Names(job["roles"])
        found = {n: f for n, f in own_functions(module).items() if not inspect.isclass(f)}
        own = {n: f for n, f in found.items() if getattr(f, "__module__", "") == "learner"}
        fitting = [n for n in own if TRAIN.search(n)]
        name = best(fitting, job["names"], "train_step") or (next(iter(own)) if len(own) == 1 else None)
        self.function: Any = own.get(name or "")

    def what(self) -> dict[str, Any]:
        """Return the names of what was found in the file."""
        return {"class": None, "forward": None, "backward": getattr(self.function, "__name__", None)}

    def run(self, probe: dict[str, Any]) -> dict[str, Any]:
        """Do one probe."""
        parameters = {name: decode(value) for name, value in probe["parameters_of_start"].items()}
        wide = any(accepts(self.function, name, self.names) for name in parameters)
        states, losses, changed = [], [], []
        if probe.get("whole"):
            batches = [(decode(x), decode(t)) for x, t in probe["batches"]]
            values = {"parameters": parameters, "batches": batches, "settings": probe["settings"]}
            result, _, _ = call(
                "train", self.function, assign(self.function, values, list(values), self.names, {})
            )
            return {"states": [encode(state) for state in result], "losses": [], "changed": []}
        for x, labels in probe["batches"]:
            given = {"x": decode(x), "labels": decode(labels)}
            kept = {key: value.copy() for key, value in given.items()}
            values = (dict(parameters) if wide else {"parameters": parameters}) | given
            order = list(values)
            result, _, _ = call(
                "the step", self.function, assign(self.function, values, order, self.names, probe["options"])
            )
            items = list(result) if isinstance(result, tuple | list) else [result]
            for item in items:
                if isinstance(item, dict) and set(map(str, item)) & set(parameters):
                    parameters = item
                elif item is not None and not isinstance(item, dict) and np.ndim(item) == 0:
                    losses.append(encode(float(item)))
            arrays = [np.asarray(item) for item in items if np.ndim(item) > 0 and not isinstance(item, dict)]
            if len(arrays) == len(parameters):
                parameters = dict(zip(parameters, arrays, strict=True))
            changed += [["the step", key] for key, value in kept.items() if not same(value, given[key])]
            states.append({"dict": {str(k): encode(np.array(v)) for k, v in parameters.items()}})
        return {"states": states, "losses": losses, "changed": changed}


# -- recognition ----------------------------------------------------------------------------------------


class Recognition:
    """A whole training, ``train(images, labels, rng)``, and what it learnt, ``predict(learnt, images)``."""

    def __init__(self, job: dict[str, Any], module: types.ModuleType):
        self.functions = {name: getattr(module, name, None) for name in ("train", "predict")}

    def what(self) -> dict[str, Any]:
        """Return nothing: the functions have their names."""
        return {"class": None, "forward": None, "backward": None}

    def run(self, probe: dict[str, Any]) -> dict[str, Any]:
        """Train, predict, and return the predicted labels and the seconds of computing."""
        for name, function in self.functions.items():
            if not callable(function):
                raise Failed("the file", NameError(f"there is no function {name}"))
        images, labels, unseen = (decode(probe[key]) for key in ("images", "labels", "unseen"))
        generator = np.random.default_rng(probe["seed"])
        start = time.process_time()
        learnt = self.call("train", images, labels, generator)
        found = self.call("predict", learnt, unseen)
        return {"labels": encode(np.asarray(found)), "seconds": time.process_time() - start}

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function once: a set of 60,000 images does not fit into lists, should arrays not do."""
        try:
            return self.functions[name](*arguments)  # type: ignore[misc]
        except (Exception, SystemExit) as error:
            raise Failed(name, error) from error


# -- the process ----------------------------------------------------------------------------------------

KINDS: dict[str, Any] = {
    "operation": Operation,
    "optimizer": Optimizer,
    "training": Training,
    "recognition": Recognition,
}


def limit(job: dict[str, Any]) -> None:
    """Set limits that the code cannot lift: memory, size of files, no dumps; and a clock of CPU time."""
    import resource

    for what, value in (
        (resource.RLIMIT_AS, job["memory"]),
        (resource.RLIMIT_FSIZE, job["file_size"]),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(what, (value, value))

    def look(signum: int, frame: Any) -> None:
        if time.process_time() > job["seconds"]:
            raise TooLong

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
    os.register_at_fork(after_in_child=lambda: os._exit(0))  # children would do the work again


def main() -> None:
    """Do one job."""
    job = json.loads(sys.stdin.buffer.read())
    sys.stdin = open(os.devnull)  # noqa: SIM115, PTH123  (input() meets its end)
    channel = os.fdopen(job["channel"], "w")
    path = job["file"]

    def send(message: dict[str, Any]) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    limit(job)
    sys.path[:0] = [os.path.dirname(path), job["folder"]]  # noqa: PTH120
    where = "the file"
    try:
        module = load(path)
        work = KINDS[job["kind"]](job, module)
        send({"found": work.what()})
        where = "the code"
        for number, probe in enumerate(job["probes"]):
            try:
                send({"probe": number, **work.run(probe)})
            except Failed as failed:
                send({"probe": number, "error": failure(failed.error, failed.where, path)})
                if isinstance(failed.error, MemoryError | SystemExit):
                    break
        signal.setitimer(signal.ITIMER_REAL, 0)
    except (Exception, SystemExit, KeyboardInterrupt, TooLong) as error:
        signal.setitimer(signal.ITIMER_REAL, 0)
        send({"error": failure(error, where, path)})
    send({"done": True, "gone": not os.path.exists(path)})  # noqa: PTH110
    channel.close()
    sys.stdout.flush()
    os._exit(0)  # no atexit of the learner's, no waiting for threads


if __name__ == "__main__":
    main()
