"""The search for the known mistakes, one or several, that give what was found."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from agreement.diagnosis.returned import Found
from agreement.diagnosis.rules import FACTORS, RULES, Case, shapes, swapped
from agreement.diagnosis.subject import Probe, Subject, Suspect, Tensors
from agreement.measures import Array
from agreement.mutants import Mutant

# Of the largest value of a tensor: rounding in float32, and difference quotients, stay below it.
TOLERANCE = 3e-5
_MOST = 8  # explanations of one tensor that are combined with those of the others
_MOST_PAIRS = 4000


@dataclass
class Evidence:
    """What one probe brought to light: what is right, and what was found under the same names."""

    probe: Probe
    right: Tensors
    found: Found


@dataclass(frozen=True)
class Explanation:
    """One or more mistakes that together give all that was found."""

    names: tuple[str, ...]
    mistakes: tuple[str, ...]
    wrongs: tuple[str, ...]
    parts: tuple[str, ...]
    cost: tuple[float, ...] = field(compare=False, default=())


def agrees(found: Array | None, expected: Array | None, scale: float = 0.0) -> bool:
    """Tell whether two tensors are equal but for rounding, relative to the largest value or ``scale``."""
    if found is None or expected is None:
        return found is expected
    if found.shape != expected.shape:
        return False
    with np.errstate(all="ignore"):
        largest = max(float(np.abs(expected).max(initial=0)), scale)
        difference = np.abs(found - expected)
        fits = difference <= TOLERANCE * largest
        both = (np.isnan(found) & np.isnan(expected)) | ((found == expected) & np.isinf(found))
    return bool((fits | both).all())


def _is_multiple(array: Array | None, right: Array) -> bool:
    """Tell whether an array is the right one times a number."""
    if array is None or array.shape != right.shape or not right.size:
        return False
    largest = np.unravel_index(np.abs(right).argmax(), right.shape)
    with np.errstate(all="ignore"):
        return bool(right[largest]) and agrees(array, right * (array[largest] / right[largest]))


def scale_of(right: Tensors) -> float:
    """Return what a tensor of zeros is judged by: a thousandth of the largest gradient."""
    return 1e-3 * max(
        (float(np.abs(a).max(initial=0)) for n, a in right.items() if n.startswith("grad")), default=0.0
    )


class Search:
    """All suspects of a subject, run once for each probe when they are asked for."""

    def __init__(self, subject: Subject, evidence: Sequence[Evidence]):
        self.subject, self.evidence = subject, list(evidence)
        self.suspects = subject.suspects()
        self._known: dict[tuple[int, int], Tensors] = {}
        names = dict.fromkeys(name for e in evidence for name in e.found if name in e.right)
        self.names = list(names)
        self.wrong = [name for name in self.names if not self.is_right(name)]

    def is_right(self, name: str) -> bool:
        """Tell whether a tensor is right in all probes."""
        return all(
            agrees(e.found[name], e.right[name], scale_of(e.right))
            for e in self.evidence
            if name in e.found and name in e.right
        )

    def tensors(self, suspect: Suspect, i: int) -> Tensors:
        """Return what the suspect gives for one probe; {} where it cannot run."""
        key = (id(suspect), i)
        if key not in self._known:
            try:
                with np.errstate(all="ignore"):
                    self._known[key] = suspect.evaluate(self.evidence[i].probe)
            except Exception:  # a mistake may well make an engine stumble
                self._known[key] = {}
        return self._known[key]

    def order(self, name: str) -> list[int]:
        """Return the probes, those first in which this tensor is wrong."""

        def right(i: int) -> bool:
            e = self.evidence[i]
            return name not in e.found or agrees(e.found[name], e.right.get(name), scale_of(e.right))

        return sorted(range(len(self.evidence)), key=right)

    def gives(self, suspect: Suspect, name: str) -> bool:
        """Tell whether the suspect gives, in all probes, the tensor that was found."""
        return all(
            agrees(
                self.evidence[i].found[name],
                self.tensors(suspect, i).get(name),
                scale_of(self.evidence[i].right),
            )
            for i in self.order(name)
            if name in self.evidence[i].found and name in self.evidence[i].right
        )

    def touches(self, suspect: Suspect, name: str) -> bool:
        """Tell whether the suspect changes a tensor in any probe."""
        return not all(
            agrees(self.tensors(suspect, i).get(name), e.right[name], scale_of(e.right))
            for i, e in enumerate(self.evidence)
            if name in e.found and name in e.right
        )

    def explain(self) -> list[Explanation]:
        """Return the best explanations of all that is wrong, those that cannot be told apart together."""
        if not self.wrong:
            return []
        whole = [s for s in self.suspects if self._whole(s)]
        if whole:
            rank = min(s.rank for s in whole)
            best = [s for s in whole if s.rank == rank]
            return [Explanation((s.name,), (s.mistake,), (s.wrong,), tuple(self.wrong)) for s in best]
        rated = [s for s in self.suspects if s.any_rate and self._at_another_rate(s)]
        if rated:
            return [Explanation((s.name,), (s.mistake,), (s.wrong,), tuple(self.wrong)) for s in rated]
        if self.subject.recognise is not None and (seen := self.subject.recognise(self.evidence)):
            return [Explanation((seen[0],), (seen[1],), (seen[2],), tuple(self.wrong))]
        if "output" in self.wrong and (forward := self._forward_alone()):
            return forward
        atoms = {name: self._atoms(name) for name in self.wrong}
        if all(atoms.values()) and (found := self._together(atoms)):
            if len(found[0].names) < 2 or self.subject.planned is None:
                return found
            return self._pairs() or found
        return self._pairs()

    def _whole(self, suspect: Suspect) -> bool:
        """Tell whether one suspect gives everything, wrong and right."""
        return all(self.gives(suspect, name) for name in [*self.wrong, *self.names])

    def _at_another_rate(self, suspect: Suspect) -> bool:
        """Tell whether a suspect gives everything when what it changes is multiplied by one number."""
        rate = None
        for name in [*self.wrong, *self.names]:
            for i in self.order(name):
                e = self.evidence[i]
                found, right, made = e.found.get(name), e.right.get(name), self.tensors(suspect, i).get(name)
                if (
                    found is None
                    or right is None
                    or made is None
                    or not found.shape == right.shape == made.shape
                ):
                    return False
                change = made - right
                if rate is None:
                    size = float((change * change).sum())
                    rate = float(((found - right) * change).sum()) / size if size else 0.0
                if not rate > 0 or not agrees(found, right + rate * change, scale_of(e.right)):
                    return False
        return rate is not None

    # -- a forward that is wrong, and the backward that belongs to it --------------------------------------

    def _forward_alone(self) -> list[Explanation]:
        """Return the mistakes in forward whose very derivative the gradients are: backward is then right."""
        found: dict[str, Explanation] = {}
        for s in self.suspects:
            if self.gives(s, "output") and self.touches(s, "output") and self._is_derivative(s):
                # What stands behind the semicolon is said of the engine's backward, not of the learner's.
                words = f"{s.mistake.split(';')[0].rstrip('.')}. The gradients are right for this forward."
                found.setdefault(s.name, Explanation((s.name,), (words,), (s.wrong,), ("output",)))
        return list(found.values())[:4]

    def _is_derivative(self, suspect: Suspect) -> bool:
        """Tell whether all gradients that were found are difference quotients of the suspect's output."""
        for i, e in enumerate(self.evidence):
            for name in self.names:
                if name not in e.found or name not in e.right or name.startswith("added"):
                    continue
                role = name.removeprefix("grad of ")
                if not name.startswith("grad of ") or role not in e.probe.args:
                    made = self.tensors(suspect, i).get(name)
                elif e.probe.args[role].dtype == np.float64:
                    made = _quotients(suspect, e.probe, role)
                else:
                    return False
                if not agrees(e.found[name], made, scale_of(e.right)):
                    return False
        return True

    # -- several mistakes -----------------------------------------------------------------------------------

    def _atoms(self, name: str) -> list[tuple[str, str, str, float, Suspect | None]]:
        """Return what explains one tensor: (name, mistake, wrong, cost, suspect)."""
        atoms: list[tuple[str, str, str, float, Suspect | None]] = []
        for s in self.suspects:
            if self.touches_first(s, name) and self.gives(s, name):
                atoms.append((s.name, s.mistake, s.wrong, 0.1 * s.rank, s))
        atoms += [(*rule, 0.5, None) for rule in self._rules(name)]
        if not atoms:
            atoms += [(*row[:3], 1.5, row[3]) for row in self._two_factors(name)]
        return atoms[: 3 * _MOST]

    def touches_first(self, suspect: Suspect, name: str) -> bool:
        """Tell, from the first probe in which a tensor is wrong, whether a suspect gives it there."""
        i = self.order(name)[0]
        e = self.evidence[i]
        return agrees(e.found[name], self.tensors(suspect, i).get(name), scale_of(e.right))

    def _cases(self, name: str) -> list[tuple[Case, Array | None]]:
        cases = []
        for i in self.order(name):
            e = self.evidence[i]
            if name not in e.found or name not in e.right:
                continue
            shapes_of = {k: v.shape for k, v in e.probe.args.items()}
            before = [
                b for b in self.evidence[:i] if {k: v.shape for k, v in b.probe.args.items()} == shapes_of
            ]
            pair = (before[-1].probe, before[-1].right) if before else None
            cases.append(
                (Case(self.subject, e.probe, name, e.right, pair, self.subject.evaluate), e.found[name])
            )
        return cases

    def _rules(self, name: str) -> list[tuple[str, str, str]]:
        cases = self._cases(name)
        if name.startswith("changed") or not cases:
            return []
        if all(found is None for _, found in cases):
            what = name.removeprefix("grad of ")
            return [
                ("not returned", f"The gradient of {what} is not among what backward returns.", "nothing")
            ]
        if any(found is None for _, found in cases):
            return []
        tensors = [(case, found) for case, found in cases if found is not None]
        held = []
        for rule_name, mistake, wrong, factor in FACTORS:
            values = [factor(case.probe, case.tensor) for case, _ in tensors]
            if any(v != 1 for v in values) and all(
                agrees(f, v * c.tensor, scale_of(c.right)) for v, (c, f) in zip(values, tensors, strict=True)
            ):
                held.append((rule_name, mistake, wrong))
        for rule in RULES:
            if self._holds(rule.make, tensors):
                held.append((rule.name, rule.mistake, rule.wrong))
        if any(row[0] == "stale-cache" for row in held):
            held = [row for row in held if row[0] != "stale-cache, of the input"]
        by_shape = [list(shapes(case, found)) for case, found in tensors]
        held += [row for row in by_shape[0] if all(any(row[0] == r[0] for r in rows) for rows in by_shape)]
        others = [{row[0]: row for row in swapped(case)} for case, _ in tensors]
        for other, row in others[0].items():
            if all(other in o and agrees(f, o[other][3]) for o, (_, f) in zip(others, tensors, strict=True)):
                held.append(row[:3])
        return held

    def _holds(self, make: Callable[[Case], Array | None], tensors: Sequence[tuple[Case, Array]]) -> bool:
        """Tell whether a rule gives what was found in all probes, and in one something else than right."""
        other = False
        for case, found in tensors:
            try:
                with np.errstate(all="ignore"):
                    made = make(case)
            except Exception:
                return False
            if made is None:
                made = case.tensor
            if not agrees(found, made, scale_of(case.right)):
                return False
            other = other or not agrees(made, case.tensor, scale_of(case.right))
        return other

    def _two_factors(self, name: str) -> list[tuple[str, str, str, Suspect | None]]:
        """Return a factor after another one, or after a suspect or a rule."""
        tensors = [(c, f) for c, f in self._cases(name) if f is not None]
        if not tensors or name.startswith("changed") or len(tensors) < len(self._cases(name)):
            return []
        held: list[tuple[str, str, str, Suspect | None]] = []
        factors_alone = False  # two factors can be had in several ways; one is enough

        def try_with(
            other: tuple[str, str, str], arrays: Sequence[Array | None], suspect: Suspect | None = None
        ) -> None:
            nonlocal factors_alone
            for rule_name, mistake, wrong, factor in FACTORS:
                if rule_name == other[0]:
                    continue
                fits = all(
                    a is not None and agrees(f, factor(c.probe, c.tensor) * a, scale_of(c.right))
                    for a, (c, f) in zip(arrays, tensors, strict=True)
                )
                if not fits or not any(factor(c.probe, c.tensor) != 1 for c, _ in tensors):
                    continue
                alone = all(_is_multiple(a, c.tensor) for a, (c, _) in zip(arrays, tensors, strict=True))
                if alone and factors_alone:
                    continue
                factors_alone = factors_alone or alone
                words = f"{other[0]} and {rule_name}", f"{other[1]} {mistake}", f"{other[2]}; {wrong}"
                held.append((*words, suspect))

        places = [
            i for i in self.order(name) if name in self.evidence[i].found and name in self.evidence[i].right
        ]
        for s in self.suspects:
            arrays = [self.tensors(s, i).get(name) for i in places]
            if any(not agrees(a, c.tensor) for a, (c, _) in zip(arrays, tensors, strict=True)):
                try_with((s.name, s.mistake, s.wrong), arrays, s)
        if held:
            return held
        for rule in RULES:
            try:
                with np.errstate(all="ignore"):
                    arrays = [rule.make(case) for case, _ in tensors]
            except Exception:
                continue
            try_with((rule.name, rule.mistake, rule.wrong), arrays)
        if held:
            return held
        for (n1, m1, w1, f1), (n2, m2, w2, f2) in itertools.combinations(FACTORS, 2):
            if all(
                agrees(f, f1(c.probe, c.tensor) * f2(c.probe, c.tensor) * c.tensor, scale_of(c.right))
                for c, f in tensors
            ):
                held.append((f"{n1} and {n2}", f"{m1} {m2}", f"{w1}; {w2}", None))
        return held

    def _together(
        self, atoms: Mapping[str, list[tuple[str, str, str, float, Suspect | None]]]
    ) -> list[Explanation]:
        """Return the smallest sets of mistakes that explain all tensors, one atom for each."""
        short = [
            sorted(atoms[name], key=lambda a: a[3])[: _MOST if len(atoms) < 5 else 4] for name in self.wrong
        ]
        found: dict[tuple[str, ...], Explanation] = {}
        for combination in itertools.islice(itertools.product(*short), 20000):
            names = tuple(dict.fromkeys(a[0] for a in combination))
            # A suspect that should have changed a tensor that is right, or that another atom explains.
            astray = 0
            for suspect in {id(a[4]): a[4] for a in combination if a[4] is not None}.values():
                mine = {name for name, a in zip(self.wrong, combination, strict=True) if a[4] is suspect}
                astray += sum(self.touches(suspect, name) for name in self.names if name not in mine)
            cost = (len(names), astray, sum({a[0]: a[3] for a in combination}.values()))
            if names not in found or cost < found[names].cost:
                first = {a[0]: a for a in combination}
                found[names] = Explanation(
                    names,
                    tuple(first[n][1] for n in names),
                    tuple(first[n][2] for n in names),
                    tuple(self.wrong),
                    cost,
                )
        if not found:
            return []
        least = min(e.cost for e in found.values())
        return [e for e in found.values() if e.cost == least][:4]

    def _pairs(self) -> list[Explanation]:
        """Return two mutants planted at once, where one changes what the other one is given."""
        planned = self.subject.planned
        if planned is None:
            return []
        single = [s for s in self.suspects if s.plan is not None and len(s.plan) == 1 and s.rank < 2]
        touching = [s for s in single if any(self.touches(s, name) for name in self.wrong)]
        order = self.order(self.wrong[0])
        found = []
        for a, b in itertools.islice(itertools.combinations(touching, 2), _MOST_PAIRS):
            assert a.plan is not None
            assert b.plan is not None
            if set(a.plan) == set(b.plan):
                (one,), (two,) = next(iter(a.plan.values())), next(iter(b.plan.values()))
                if one.attribute == two.attribute:
                    continue
                plan: dict[int, tuple[Mutant, ...]] = {next(iter(a.plan)): (one, two)}
            else:
                plan = {
                    **{k: tuple(v) for k, v in a.plan.items()},
                    **{k: tuple(v) for k, v in b.plan.items()},
                }
            if self._fits(lambda probe, plan=plan: planned(probe, plan), order):  # type: ignore[misc]
                found.append(
                    Explanation(
                        (a.name, b.name), (a.mistake, b.mistake), (a.wrong, b.wrong), tuple(self.wrong)
                    )
                )
        return found[:4]

    def _fits(self, evaluate: Callable[[Probe], Tensors], order: Sequence[int]) -> bool:
        for i in order:
            e = self.evidence[i]
            try:
                with np.errstate(all="ignore"):
                    tensors = evaluate(e.probe)
            except Exception:
                return False
            if not all(
                agrees(e.found[n], tensors.get(n), scale_of(e.right))
                for n in self.names
                if n in e.found and n in e.right
            ):
                return False
        return True


def _quotients(suspect: Suspect, probe: Probe, role: str, h: float = 1e-5) -> Array | None:
    """Return the gradient of sum(upstream output) by central differences."""
    value = probe.args[role]
    grad = np.zeros(value.shape)
    for place in np.ndindex(*value.shape):
        sides = []
        for sign in (1, -1):
            moved = value.copy()
            moved[place] += sign * h
            try:
                with np.errstate(all="ignore"):
                    output = suspect.evaluate(replace(probe, args={**probe.args, role: moved}))["output"]
            except Exception:
                return None
            sides.append(float((output * probe.upstream).sum()))
        grad[place] = (sides[0] - sides[1]) / (2 * h)
    return grad
