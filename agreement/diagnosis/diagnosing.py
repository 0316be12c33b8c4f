"""From a learner's file to a diagnosis: run it apart, name what came back, search for the mistake."""

import ast
import base64
import json
import re
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from agreement.causes import Context, likely_cause
from agreement.diagnosis import worker
from agreement.diagnosis.apart import Answer, Limits, run_apart
from agreement.diagnosis.places import function_named, lines_of
from agreement.diagnosis.result import Candidate, Diagnosis, Part, Problem
from agreement.diagnosis.returned import TEMPLATES, array_of, distance, gradients, leaves, role_of
from agreement.diagnosis.rules import sizes_of
from agreement.diagnosis.search import TOLERANCE, Evidence, Explanation, Search, agrees, scale_of
from agreement.diagnosis.subject import CACHE, OUTPUT, UPSTREAM, Layout, Probe, Subject, Tensors
from agreement.diagnosis.subjects import SUBJECTS
from agreement.measures import Array
from agreement.mutants import Kind

Report = dict[str, Any]


class UnknownSubject(ValueError):
    """Neither the file nor its name says what it is."""


def diagnose(
    file: str | Path | None,
    subject: str | None = None,
    *,
    code: Mapping[str, Any] | None = None,
    limits: Limits | None = None,
    seed: int = 0,
) -> Diagnosis:
    """Run a learner's code on probes, and say which mistake it looks like.

    ``file`` is a Python file; it is run in a process of its own, within ``limits``. ``subject`` is a name of
    `SUBJECTS`; if None, the file says it (``SUBJECT = "linear"``) or is called so. ``code`` takes the place
    of the file with functions and classes by name, run in this process and without limits: for code that is
    trusted. Raises OSError when the file cannot be read and UnknownSubject for an unknown subject.
    """
    if file is None:
        source, path = b"", Path("code")
    else:
        path = Path(file)
        source = path.read_bytes()
    tree = _parsed(source)
    chosen = SUBJECTS.get(subject or "") or subject_of(path, tree, subject)
    runner = _Runner(path, source, code, limits or Limits(), chosen)
    first = _look(runner, chosen, tree, seed, None)
    for layout in chosen.layouts if not first.ok else ():
        if not _may_be_laid_out_otherwise(first, chosen):
            break
        other = _look(runner, chosen, tree, seed, layout)
        if any(part.name in ("output", "w1") and part.ok for part in other.parts) and not _failed(other):
            note = () if layout.words in other.notes else (layout.words,)
            return replace(other, notes=(*note, *other.notes))
    if first.confidence == "one of several":  # other numbers may tell them apart
        again = _look(runner, chosen, tree, seed + 1, None)
        kept = {c.name for c in first.candidates} & {c.name for c in again.candidates}
        if kept:
            candidates = tuple(c for c in first.candidates if c.name in kept)
            return replace(
                first, candidates=candidates, confidence="sure" if len(kept) == 1 else first.confidence
            )
    return first


def subject_of(path: Path, tree: ast.Module | None, name: str | None = None) -> Subject:
    """Return the subject that a file is about, by its ``SUBJECT``, its name, or its functions' names."""
    known = ", ".join(SUBJECTS)
    if name is not None:
        raise UnknownSubject(f"'{name}' is no subject; there are {known}")
    body = tree.body if tree is not None else []
    for node in body:
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Constant):
            continue
        if any(isinstance(t, ast.Name) and t.id == "SUBJECT" for t in node.targets):
            if node.value.value in SUBJECTS:
                return SUBJECTS[str(node.value.value)]
            raise UnknownSubject(f"{path.name}: SUBJECT is {node.value.value!r}; there are {known}")
    names = [n.name for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    for text in (path.stem, *names):
        text = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", text).lower())
        fitting = [
            (len(alias), alias == subject.name, -i, subject)
            for i, subject in enumerate(SUBJECTS.values())
            for alias in subject.names
            if re.search(rf"(^|_){alias}(_|\d|$)", text) or alias == text.replace("_", "")
        ]
        if fitting:
            return max(fitting, key=lambda found: found[:3])[3]
    raise UnknownSubject(
        f"{path.name}: nothing says what this is; name it with --as, or write "
        f'SUBJECT = "..." into the file: {known}'
    )


# -- running --------------------------------------------------------------------------------------------


@dataclass
class _Runner:
    path: Path
    source: bytes
    code: Mapping[str, Any] | None
    limits: Limits
    subject: Subject

    def run(self, probes: Sequence[Probe]) -> Answer:
        job = {
            "kind": self.subject.kind,
            "loss": self.subject.loss,
            "names": [self.subject.name, *self.subject.names],
            "roles": _roles(self.subject),
            "gradient_names": list(TEMPLATES),
            "probes": [_message(self.subject, probe) for probe in probes],
        }
        if self.code is None:
            return run_apart(self.source, self.path.name, self.path.resolve().parent, job, self.limits)
        module = types.ModuleType("learner")
        vars(module).update(self.code)
        job = json.loads(json.dumps(job))
        answer = Answer()
        work = worker.KINDS[job["kind"]](job, module)
        answer.messages.append({"found": work.what()})
        for number, probe in enumerate(job["probes"]):
            try:
                found = work.run(probe)
            except worker.Failed as failed:
                found = {"error": worker.failure(failed.error, failed.where, "")}
            answer.messages.append(json.loads(json.dumps({"probe": number, **found})))
        return answer


def _roles(subject: Subject) -> dict[str, list[str]]:
    roles = {role: list(aliases) for role, aliases in subject.aliases.items()}
    if subject.kind == "operation":
        known = {alias for aliases in roles.values() for alias in aliases}
        # What is an argument's name here is no other thing's: y is the target of a loss.
        roles |= {"upstream": [a for a in UPSTREAM if a not in known], "cache": ["cache", *CACHE]}
        roles["output"] = [
            a for a in OUTPUT if a not in roles.get("target", []) and a not in roles.get("mask", [])
        ]
    return roles


def _encoded(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        data = {"array": base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()}
        fortran = value.ndim > 1 and value.flags.f_contiguous and not value.flags.c_contiguous
        return data | {"dtype": value.dtype.str, "shape": list(value.shape), "order": "F" if fortran else "C"}
    return value


def _message(subject: Subject, probe: Probe) -> dict[str, Any]:
    common = {
        "args": {name: _encoded(value) for name, value in probe.args.items()},
        "options": {name: _encoded(value) for name, value in probe.options.items()},
        "defaults": {k: v for k, v in subject.options.items() if not isinstance(v, np.ndarray)},
        "seed": probe.seed,
        "dtype": probe.dtype,
    }
    if subject.kind == "optimizer":
        grads = [_encoded(grad) for grad in probe.extra["grads"]]
        return common | {"grads": grads, "lrs": probe.extra["lrs"], "state": subject.aliases["state_order"]}
    if subject.kind == "training":
        batches = [[_encoded(x), _encoded(t)] for x, t in probe.extra["batches"]]
        return common | {
            "parameters_of_start": common["args"],
            "batches": batches,
            "whole": probe.extra.get("whole", False),
            "settings": probe.extra.get("settings"),
        }
    return common | {
        "upstream": _encoded(probe.upstream),
        "output_shape": list(probe.upstream.shape),
        "parameters": list(probe.parameters),
        "inputs": [name for name in probe.args if name not in probe.parameters],
        "mutable": list(probe.mutable),
        "sizes": dict(probe.sizes),
        "random": probe.random,
    }


def problems_of(answer: Answer, limits: Limits) -> list[Problem]:
    """Return what went wrong while a worker ran, as lines for a learner."""
    return _ends(answer, limits) + _raised([m for m in answer.messages if "probe" in m], limits)


# -- looking at what came back --------------------------------------------------------------------------


def _look(
    runner: _Runner, subject: Subject, tree: ast.Module | None, seed: int, layout: Layout | None
) -> Diagnosis:
    """Diagnose with the probes of one seed, in one layout of the arguments."""
    probes = subject.probes(seed)
    shown = [replace(p, args=layout.change(p.args)) for p in probes] if layout else probes
    answer = runner.run(shown)
    found: dict[str, Any] = next((m["found"] for m in answer.messages if "found" in m), {})
    problems, notes = _ends(answer, runner.limits), _remarks(answer)
    base = Diagnosis(
        runner.path.name, subject.name, False, "problem", problems=tuple(problems), notes=tuple(notes)
    )
    if not found:
        return base
    missing = _missing(subject, found)
    if missing:
        return replace(base, problems=(*problems, missing))
    reports = {m["probe"]: m for m in answer.messages if "probe" in m}
    ran = {i: r for i, r in reports.items() if "skipped" not in r and "error" not in r}
    problems += _raised(reports.values(), runner.limits)
    if not ran:
        if not problems:
            skipped = sorted({name for r in reports.values() for name in r.get("skipped", ())})
            problems.append(
                Problem("missing", f"your code has no argument for {', '.join(skipped) or 'the inputs'}")
            )
        return replace(base, problems=tuple(problems))
    evidence, more_notes, order = _evidence(subject, probes, ran, layout)
    search = Search(subject, evidence)
    notes += more_notes
    problems += _changes(ran.values(), tree, found) + _no_arrays(subject, ran.values(), tree, found)
    parts = _parts(search)
    notes += _skipped(reports.values()) + _digits(search, bool(search.wrong))
    wrong = search.wrong
    ok = not wrong and not problems
    if ok:
        return replace(base, ok=True, confidence="", parts=parts, notes=tuple(notes), probes=len(evidence))
    explanations = search.explain() if wrong else []
    where = _Places(tree, found, order, subject)
    candidates = tuple(_candidate(e, subject, where) for e in explanations)
    candidates = tuple(sorted(candidates, key=lambda c: c.name.count(" and ")))
    numbers = any(not name.startswith("changed") for name in wrong)
    if any(problem.kind == "returned" for problem in problems):
        candidates, numbers = (), False
    confidence = (
        "sure"
        if len(candidates) == 1
        else "one of several"
        if candidates
        else "none"
        if numbers
        else "problem"
    )
    narrowing = () if candidates or not numbers else tuple(_narrow(search, where))
    return replace(
        base,
        confidence=confidence,
        parts=parts,
        candidates=candidates,
        problems=tuple(problems),
        narrowing=narrowing,
        notes=tuple(notes),
        probes=len(evidence),
    )


def _missing(subject: Subject, found: Mapping[str, Any]) -> Problem | None:
    if found.get("class") or found.get("backward"):
        return None
    what = {
        "operation": "no function named backward, and no class with such a method",
        "optimizer": "no function named step or update, and no class with such a method",
        "training": "no function named train_step (or train)",
    }[subject.kind]
    return Problem("missing", f"there is {what}")


def _ends(answer: Answer, limits: Limits) -> list[Problem]:
    """Return how the process ended, if not as it should."""
    problems = []
    line = f", in line {answer.line}" if answer.line else ""
    if answer.ended == "slow":
        seconds = f"{3 * limits.seconds:g} seconds"
        words = f"it was stopped after {seconds}: it waits for something, or never ends{line}"
        problems.append(Problem("time", words, answer.line))
    elif answer.ended == "flood":
        problems.append(Problem("output", f"it was stopped after printing {answer.printed / 2**20:.0f} MB"))
    elif answer.ended == "large":
        problems.append(
            Problem("output", "it returned more than 64 MB: gradients have the shapes of what they belong to")
        )
    elif answer.ended == "died":
        status = answer.status
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        hint = ": os._exit, or a crash in compiled code" if status <= 0 or status > 128 else ""
        if status == 0:
            hint = ": it calls os._exit, perhaps"
        problems.append(
            Problem("crash", f"the process ended before it was done ({how}){hint}{line}", answer.line)
        )
    for message in answer.messages:
        if "error" in message and "probe" not in message:
            problems.append(_problem(message["error"], limits))
    return problems


def _problem(error: Mapping[str, Any], limits: Limits | None = None) -> Problem:
    kind, line, where = error["type"], error["line"], error["where"]
    at = f", in line {line}" if line else ""
    message = " ".join(str(error["message"]).split())
    if kind == "TooLong":
        seconds = f" {limits.seconds:g} seconds of computing" if limits else " its time"
        return Problem("time", f"it was stopped after{seconds}{at}: a loop that never ends?", line)
    if kind == "MemoryError":
        size = f" of {limits.memory / 2**30:g} GB" if limits else ""
        return Problem("memory", f"{where} needs more memory than its limit{size}{at}", line)
    if kind == "SystemExit":
        return Problem("exit", f"{where} ends Python by sys.exit (or exit, quit){at}", line)
    if kind in ("SyntaxError", "IndentationError", "TabError"):
        return Problem("exception", f"Python cannot read the file: {message}{at}", line)
    return Problem("exception", f"{where} raises {kind}{at}: {message}".rstrip(": "), line)


def _raised(reports: Any, limits: Limits) -> list[Problem]:
    problems = [_problem(r["error"], limits) for r in reports if "error" in r]
    unique: dict[tuple[str, int | None, str], Problem] = {}
    for problem in problems:
        unique.setdefault((problem.kind, problem.line, problem.words.split(":")[0]), problem)
    return list(unique.values())


def _remarks(answer: Answer) -> list[str]:
    notes = []
    if answer.printed > 10_000 and answer.ended != "flood":
        notes.append(f"it prints {answer.printed:,} bytes, which are not shown")
    if any(m.get("gone") for m in answer.messages):
        notes.append("it deletes its own file; what was run, and deleted, is a copy")
    return notes


def _skipped(reports: Any) -> list[str]:
    names = sorted({name for r in reports for name in r.get("skipped", ())} - {"need_grad_x"})
    return [f"not tried, for your code has no argument for it: {', '.join(names)}"] if names else []


def _changes(reports: Any, tree: Any, found: Any) -> list[Problem]:
    problems = {}
    for report in reports:
        for where, what, *rest in report.get("changed", ()):
            if what == "cache keys":
                continue
            name = {"upstream": "the gradient from above", "output": "the output", "cache": "the cache"}.get(
                what, what
            )
            needed = {
                "the cache": "a second backward would be wrong",
                "the output": "others still need it",
            }.get(name, "others still need it")
            line = getattr(function_named(tree, found.get(where), found.get("class")), "lineno", None)
            problems[where, what] = Problem("in-place", f"{where} changes {name} in place: {needed}", line)
            del rest
    # A cache that holds the input, or the output, is changed with it: one line is enough.
    held = [key for key in problems if key[1] not in ("cache", "output")]
    if held:
        problems = {key: p for key, p in problems.items() if key[1] not in ("cache", "output")}
    elif any(key[1] == "cache" for key in problems):
        problems = {key: p for key, p in problems.items() if key[1] != "output"}
    return list(problems.values())


def _no_arrays(subject: Subject, reports: Any, tree: Any, found: Any) -> list[Problem]:
    """Return what is to be said when no gradient at all came back."""
    if subject.kind != "operation":
        return []
    report = next(iter(reports))
    result = report.get("backward")
    if report.get("attributes") or leaves(result, []):
        return []
    line = getattr(
        function_named(tree, found.get("backward") or "backward", found.get("class")), "lineno", None
    )
    at = f" (line {line})" if line else ""
    if result is None:
        return [Problem("returned", f"backward{at} returns nothing: is its return missing?", line)]
    what = (
        "a string"
        if isinstance(result, str)
        else f"a {result['object']}"
        if "object" in result
        else "nothing in it"
    )
    return [Problem("returned", f"backward{at} returns {what}, expected arrays or lists of numbers", line)]


def _evidence(
    subject: Subject, probes: Sequence[Probe], ran: Mapping[int, Report], layout: Layout | None
) -> tuple[list[Evidence], list[str], dict[str, int]]:
    chosen = [(probes[i], report) for i, report in ran.items()]
    if subject.kind == "optimizer":
        return _of_optimizer(subject, chosen)
    if subject.kind == "training":
        return _of_training(subject, chosen, layout)
    notes: list[str] = []
    used = []
    for probe, report in chosen:
        output = array_of(report.get("forward"))
        if (
            subject.observe is not None
            and output is not None
            and "mask" not in report.get("forward_roles", ())
        ):
            probe = subject.observe(probe, output)
        if subject.loss and report.get("no_upstream"):
            probe = replace(probe, upstream=np.ones_like(probe.upstream))
        used.append(probe)
    rights = [dict(subject.evaluate(probe)) for probe in used]
    if not subject.loss and any(report.get("no_upstream") for _, report in chosen):
        notes.append("backward has no argument for the gradient from above")
    founds, note = gradients(subject, [report for _, report in chosen], rights, used)
    notes += [note] if note else []
    evidence = []
    for (_, report), probe, right, found in zip(chosen, used, rights, founds, strict=True):
        if layout is not None:
            found = {k: None if v is None else layout.gradient(k, v) for k, v in found.items()}
        for name in right:
            if name.startswith("grad of "):
                found.setdefault(name, None)
        if "forward" in report:
            found["output"] = _plain(array_of(report["forward"]), right["output"])
        changed = [entry[1] for entry in report["changed"] if entry[1] != "cache keys"]
        others = [c for c in changed if c not in ("cache", "output")]
        changed = others or [c for c in changed if c == "cache"] or changed
        for name in changed:
            right.setdefault(f"changed: {name}", np.array(0.0))
        for name in right:
            if name.startswith("changed: "):
                found[name] = np.array(float(name.removeprefix("changed: ") in changed))
        for role in report.get("like_parameter", ()):
            tree = report.get("second", {}).get(role)
            if f"added: {role}" in right and tree is not None:
                found[f"added: {role}"] = array_of(tree)
        for role in probe.mutable:
            tree = report.get("buffers", {}).get(role)
            used_roles = (
                *report.get("forward_roles", ()),
                *(() if "second" not in report else probe.mutable),
            )
            if role in right and tree is not None and role in used_roles:
                found[role] = array_of(tree)
        if not probe.options.get("need_grad_x", True):
            found.pop("grad of x", None)
        evidence.append(Evidence(probe, right, found))
        gone = [entry[2] for entry in report["changed"] if entry[1] == "cache keys"]
        if gone:
            what = ", ".join(map(repr, gone[0])) or "values"
            notes.append(f"backward deletes {what} from its cache: a second backward with it would fail")
    if not any(e.found.get("running_mean") is not None for e in evidence):
        for e in evidence:
            for role in e.probe.mutable:
                e.found.pop(role, None)
    order = {} if layout is not None else _order(evidence[0], rights[0], chosen[0][1])
    return evidence, list(dict.fromkeys(notes)), order


def _order(evidence: Evidence, right: Tensors, report: Report) -> dict[str, int]:
    """Return the place that each gradient had among those returned."""
    shapes = [a.shape for name, a in right.items() if name.startswith("grad of ")]
    order: dict[str, int] = {}
    for position, (_, array) in enumerate(leaves(report.get("backward"), shapes)):
        for name, value in evidence.found.items():
            fits = (
                name.startswith("grad of ") and name not in order and value is not None and array is not None
            )
            if fits and np.array_equal(value, array, equal_nan=True):  # type: ignore[arg-type]
                order[name] = position
                break
    return order


def _plain(array: Array | None, right: Array) -> Array | None:
    """Give a loss of shape (1,) the shape (), which is a matter of taste."""
    return array.reshape(()) if array is not None and right.shape == () and array.size == 1 else array


def _of_optimizer(subject: Subject, chosen: Any) -> tuple[list[Evidence], list[str], dict[str, int]]:
    """Take the order of the returned arrays that comes nearest to the truth."""
    rights = [subject.evaluate(probe) for probe, _ in chosen]
    orders = dict.fromkeys(order for _, report in chosen for order in report["variants"])
    best, least = "", np.inf
    for order in orders:
        total = 0.0
        for (_, report), right in zip(chosen, rights, strict=True):
            steps = [array_of(step) for step in report["variants"].get(order, ())]
            fits = steps and all(s is not None and s.shape == right["w"][0].shape for s in steps)
            stacked = np.stack(steps) if fits else None  # type: ignore[arg-type]
            total += distance(stacked, right["w"])
        if total < least - 1e-9:
            best, least = order, total
    evidence = []
    for (probe, report), right in zip(chosen, rights, strict=True):
        steps = [
            array_of(step) for step in report["variants"].get(best, next(iter(report["variants"].values())))
        ]
        fits = steps and all(s is not None and s.shape == right["w"][0].shape for s in steps)
        first = steps[0] if steps else None
        found: Array | None = np.stack(steps) if fits else first  # type: ignore[arg-type]
        tensors: dict[str, Array | None] = {"w": found}
        for entry in report["changed"]:
            right["changed: " + entry[1]] = np.array(0.0)
            tensors["changed: " + entry[1]] = np.array(1.0)
        evidence.append(Evidence(probe, right, tensors))
    return evidence, [], {}


def _of_training(
    subject: Subject, chosen: Any, layout: Layout | None
) -> tuple[list[Evidence], list[str], dict[str, int]]:
    evidence = []
    for probe, report in chosen:
        right = subject.evaluate(probe)
        roles = [name for name in right if name != "output"]
        found: dict[str, Array | None] = dict.fromkeys(roles)
        for name in roles:
            steps = []
            for state in report["states"]:
                trees = state.get("dict", {})
                key = next(
                    (k for k in trees if k == name or role_of(k, [name], subject.aliases) == name), None
                )
                steps.append(array_of(trees[key]) if key is not None else None)
            shapes = {None if s is None else s.shape for s in steps}
            if len(shapes) == 1 and None not in shapes and len(steps) == len(right[name]):
                stacked = np.stack(steps)  # type: ignore[arg-type]
                found[name] = layout.gradient(name, stacked) if layout else stacked
            else:
                found[name] = next((s for s in steps if s is not None), None)
        losses = [array_of(loss) for loss in report["losses"]]
        if len(losses) == len(right.get("output", ())) and losses:
            found["output"] = np.array([float(a) for a in losses if a is not None])
        evidence.append(Evidence(probe, right, found))
    return evidence, [], {}


def _parts(search: Search) -> tuple[Part, ...]:
    parts = []
    for name in search.names:
        if name.startswith("changed: "):
            continue
        worst, shape, expected = 0.0, None, ()
        words = ""
        for e in search.evidence:
            if name not in e.found or name not in e.right:
                continue
            found, right = e.found[name], e.right[name]
            if not words:
                shape, expected = None if found is None else found.shape, right.shape
            good = agrees(found, right, scale_of(e.right))
            error = _error(found, right, scale_of(e.right))
            worst = (
                max(worst, error)
                if np.isfinite(error) and np.isfinite(worst)
                else (error if not good else worst)
            )
            if not good and not words:
                words = _how(found, right)
        parts.append(Part(name, not words, float(worst), shape, expected, words))
    return tuple(parts)


def _error(found: Array | None, right: Array, scale: float) -> float:
    if found is None or found.shape != right.shape:
        return float("inf")
    with np.errstate(all="ignore"):
        largest = max(float(np.abs(right).max(initial=0)), scale) or 1.0
        return float(np.abs(found - right).max(initial=0) / largest)


def _how(found: Array | None, right: Array) -> str:
    if found is None:
        return "is not returned"
    if found.shape != right.shape:
        return f"has shape {found.shape}, expected {right.shape}"
    bad = ~np.isfinite(found)
    if bad.any():
        kind = "NaN" if np.isnan(found).any() else "infinite"
        return f"has {np.count_nonzero(bad)} of {found.size} elements that are {kind}, shape {found.shape}"
    error = _error(found, right, 0.0)
    share = f"{100 * error:.3g} %" if error < 10 else f"{error:.3g} times"
    return f"is off by {share} of its largest value, shape {found.shape}"


# -- words of a candidate -------------------------------------------------------------------------------


@dataclass
class _Places:
    tree: ast.Module | None
    found: Mapping[str, Any]
    order: Mapping[str, int]
    subject: Subject

    def of(self, name: str) -> tuple[int, ...]:
        """Return the lines where a tensor is made."""
        inside = self.found.get("class")
        if name == "output":
            forward = function_named(
                self.tree, self.found.get("forward") or ("forward" if inside else None), inside
            )
            return lines_of(forward, 0, ("y", "out", "output", "loss"))
        function = function_named(
            self.tree, self.found.get("backward") or ("backward" if inside else None), inside
        )
        role = name.split(": ")[-1].removeprefix("grad of ")
        aliases = (role, *self.subject.aliases.get(role, ()))
        keys = [*aliases, *(t.format(alias) for alias in aliases for t in TEMPLATES)]
        return lines_of(function, self.order.get(name), keys)


def _candidate(explanation: Explanation, subject: Subject, where: _Places) -> Candidate:
    parts = [name for name in explanation.parts if not name.startswith("changed")]
    named = [name for name in parts if name.replace("added: ", "grad of ") in subject.explain]
    lines = sorted({line for name in parts[:3] for line in where.of(name)})
    reason, formula = "", ""
    if named:
        reason, formula = subject.explain[named[0].replace("added: ", "grad of ")]
    elif parts == ["output"]:
        reason = f"The gradient is that of the function which forward computes: {subject.title}."
    elif parts:
        reason = f"What is kept for later ({', '.join(parts)}) is part of what the layer computes."
    else:
        reason = "What a function is handed belongs to its caller, who may still need it as it was."
    return Candidate(
        " and ".join(explanation.names),
        " ".join(dict.fromkeys(explanation.mistakes)),
        ";  ".join(dict.fromkeys(explanation.wrongs)),
        explanation.parts,
        reason,
        formula,
        tuple(lines[:6]),
    )


def _narrow(search: Search, where: _Places) -> list[str]:
    """Return what is known of numbers that no known mistake gives."""
    lines = []
    rights = [name for name in search.names if name not in search.wrong and not name.startswith("changed")]
    wrong = [name for name in search.wrong if not name.startswith("changed")]
    if rights and wrong:
        lines.append(f"right: {', '.join(rights)}; wrong: {', '.join(wrong)}")
    departing = [name for name in reversed(search.subject.gradients) if f"grad of {name}" in wrong]
    if len(departing) > 1 and not any(n == "output" for n in wrong):
        lines.append(
            f"on the way back from the output, the gradient of {departing[0]} is the first that departs"
        )
    for name in wrong[:4]:
        i = search.order(name)[0]
        e = search.evidence[i]
        found = e.found[name]
        if found is None:
            lines.append(f"{name} is not returned")
            continue
        relatives = {role: a for role, a in e.probe.args.items() if a.dtype.kind == "f"}
        relatives |= {
            "the upstream gradient": e.probe.upstream,
            "the output": e.right.get("output", np.zeros(1)),
        }
        cause = likely_cause(found, e.right[name], Context(sizes_of(e.probe), relatives))
        made = where.of(name)
        at = f" (line {', '.join(map(str, made[:3]))})" if made else ""
        lines.append(f"{name}{at}: {cause or _share(found, e.right[name])}")
    return lines


def _share(found: Array, right: Array) -> str:
    if found.shape != right.shape:
        return f"has shape {found.shape}, expected {right.shape}"
    with np.errstate(all="ignore"):
        bad = ~(np.abs(found - right) <= TOLERANCE * np.abs(right).max(initial=0))
        ratio = found[right != 0] / right[right != 0]
    words = f"{np.count_nonzero(bad)} of {found.size} elements are wrong"
    if ratio.size and np.isfinite(ratio).all():
        words += f"; found over right is from {ratio.min():.3g} to {ratio.max():.3g}"
    return words


def _digits(search: Search, wrong: bool) -> list[str]:
    """Return a remark on lost digits, with the name of the mutant that loses as many."""
    if wrong:
        return []
    notes = []
    for name in search.names:
        for i, e in enumerate(search.evidence):
            found, right = e.found.get(name), e.right.get(name)
            if found is None or right is None or found.dtype != np.float64 or name.startswith("changed"):
                continue
            error = _error(found, right, scale_of(e.right))
            if error < 1e-10:
                continue
            same = [
                s.name
                for s in search.suspects
                if s.kind == Kind.PRECISION
                and _error(found, search.tensors(s, i).get(name, right[..., None]), 0.0) < 1e-3 * error
            ]
            named = f": it looks like {same[0]}" if same else ""
            digits = -np.log10(error)
            notes.append(
                f"{name} is right to {digits:.0f} of 16 digits, as float32 or a difference quotient "
                f"gives{named}"
            )
            break
    return notes[:2]


# -- layouts --------------------------------------------------------------------------------------------


def _failed(diagnosis: Diagnosis) -> bool:
    return any(
        problem.kind in ("exception", "time", "memory", "exit", "crash") for problem in diagnosis.problems
    )


def _may_be_laid_out_otherwise(diagnosis: Diagnosis, subject: Subject) -> bool:
    """Tell whether the arguments themselves may be what the code does not expect."""
    raised = any(
        p.kind == "exception" and not p.words.startswith(("the file", "Python")) for p in diagnosis.problems
    )
    shape = any(p.name == "output" and not p.ok for p in diagnosis.parts) and not diagnosis.candidates
    return raised or shape


def _parsed(source: bytes) -> ast.Module | None:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError):
        return None


Evaluate = Callable[[Probe], Tensors]
