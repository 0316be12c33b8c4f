"""Layers one after the other, run with a mistake planted in one of them, or in several."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import nn_reference as nn
from agreement.diagnosis.subject import Probe, Suspect, Tensors
from agreement.measures import Array
from agreement.mutants import Kind, Mutant
from agreement.mutants.operations import mutants_of
from agreement.running import arrays_in

Plan = Mapping[int, Sequence[Mutant]]


@dataclass(frozen=True)
class Link:
    """One layer: ``make(probe)`` constructs it, ``roles`` says which argument each of its parameters is.

    ``row`` is its row in the table of operations, whose mutants are suspected, ``label`` what a
    learner calls it.
    """

    make: Callable[[Probe], nn.Module]
    row: str
    roles: Mapping[str, str]
    label: str = ""


@dataclass(frozen=True)
class Chain:
    """Links in the order of forward; the last one, if it is a loss, takes "target" besides."""

    links: tuple[Link, ...]
    input: str = "x"

    def evaluate(self, probe: Probe, plan: Plan | None = None) -> Tensors:
        """Return output and gradients, and what was changed that should not be, with mutants planted."""
        plan = plan or {}
        modules = self._modules(probe)
        x = probe.args[self.input].copy(order="K")
        given = {"upstream": probe.upstream.copy(order="K"), self.input: x}
        others = [probe.args["target"].copy()] if "target" in probe.args else []
        last = len(self.links) - 1
        wanted = bool(probe.options.get("need_grad_x", True))
        before = {role: p.copy() for role, p in self._data(modules).items()}
        with np.errstate(all="ignore"), nn.Tape(nn.Sequential(*modules)) as tape:
            y = x if x.dtype.kind == "f" else x.astype(float)
            inner = [y]
            for i, module in enumerate(modules):
                with _planted(plan.get(i, ())):
                    y = module(y, *(others if i == last else ()))
                inner.append(y)
            caches = [array for call in tape.calls for array in arrays_in(call.cache)]
            kept = [array.copy() for array in caches]
            grad: Any = given["upstream"].reshape(np.shape(y))
            for i in range(last, -1, -1):
                with _planted(plan.get(i, ())):
                    grad = modules[i].backward(grad, **({} if wanted or i else {"input_grad": False}))
        tensors: Tensors = {"output": np.asarray(y).reshape(probe.upstream.shape)}
        if grad is not None and wanted:
            tensors[f"grad of {self.input}"] = np.asarray(grad)
        grads = self._grads(modules)
        tensors |= {f"grad of {role}": _reshaped(grad, probe.args[role]) for role, grad in grads.items()}
        for module in modules:
            tensors |= {name: np.array(b) for name, b in module.named_buffers() if name in probe.mutable}
        changed = {"upstream": not np.array_equal(given["upstream"], probe.upstream)}
        changed[self.input] = not np.array_equal(x, probe.args[self.input])
        changed["cache"] = not changed["upstream"] and any(
            not np.array_equal(a, b) for a, b in zip(caches, kept, strict=True)
        )
        after = self._data(modules)
        changed |= {role: not np.array_equal(after[role], value) for role, value in before.items()}
        tensors |= {f"changed: {name}": np.array(float(flag)) for name, flag in changed.items()}
        return tensors

    def twice(self, probe: Probe, plan: Plan | None = None) -> Tensors:
        """Return the parameters' gradients after two backwards without zero_grad between them."""
        modules = self._modules(probe)
        wanted = bool(probe.options.get("need_grad_x", True))
        for _ in range(2):
            y: Any = probe.args[self.input].copy(order="K")
            for i, module in enumerate(modules):
                with _planted((plan or {}).get(i, ())):
                    y = module(y)
            grad: Any = probe.upstream.copy(order="K").reshape(np.shape(y))
            for i in range(len(modules) - 1, -1, -1):
                with _planted((plan or {}).get(i, ())):
                    grad = modules[i].backward(grad, **({} if wanted or i else {"input_grad": False}))
        return {f"added: {role}": np.asarray(g) for role, g in self._grads(modules).items()}

    def everything(self, probe: Probe, plan: Plan | None = None) -> Tensors:
        """Return both."""
        found = self.evaluate(probe, plan)
        has_target = "target" in probe.args
        return found if has_target or probe.digits else {**found, **self.twice(probe, plan)}

    def suspects(self) -> list[Suspect]:
        """Return each mutant of each link: in all links of a row at once, then in each of them."""
        rows: dict[str, list[int]] = {}
        for i, link in enumerate(self.links):
            rows.setdefault(link.row, []).append(i)
        found = []
        for row, places in rows.items():
            for mutant in mutants_of(row):
                found.append(self._suspect(mutant, places, "" if len(places) == 1 else ", in every layer"))
                if len(places) > 1:
                    found += [self._suspect(mutant, [i], f", in {self.links[i].label}") for i in places]
        return found

    def _suspect(self, mutant: Mutant, places: list[int], where: str) -> Suspect:
        plan = dict.fromkeys(places, (mutant,))
        return Suspect(
            mutant.name + where,
            mutant.mistake,
            mutant.wrong,
            lambda probe: self.everything(probe, plan),
            mutant.kind,
            rank=int(len(places) == 1 and where != ""),
            plan=plan,
        )

    def _modules(self, probe: Probe) -> list[nn.Module]:
        modules: list[nn.Module] = []
        for link in self.links:
            module = link.make(probe).to(probe.dtype)
            named = dict(module.named_parameters())
            for name, role in link.roles.items():
                named[name].data = probe.args[role].copy().reshape(named[name].data.shape)
            for name, _ in list(module.named_buffers()):
                if name in probe.args:
                    state = module.state_dict()
                    state[name] = probe.args[name].copy()
                    module.load_state_dict(state)
            module.train(bool(probe.options.get("training", True)))
            modules.append(module)
        return modules

    def _data(self, modules: list[nn.Module]) -> dict[str, Array]:
        return {
            role: dict(module.named_parameters())[name].data
            for link, module in zip(self.links, modules, strict=True)
            for name, role in link.roles.items()
        }

    def _grads(self, modules: list[nn.Module]) -> dict[str, Array]:
        found: dict[str, Array] = {}
        for link, module in zip(self.links, modules, strict=True):
            named = dict(module.named_parameters())
            for name, role in link.roles.items():
                grad = named[name].grad
                if grad is not None:
                    found[role] = found[role] + grad if role in found else grad
        return found


def _reshaped(grad: Array, like: Array) -> Array:
    """Give a gradient the shape of its argument where only the rank is another (a neuron's weight)."""
    flat = grad.size == like.size and grad.ndim != like.ndim and like.ndim < 2
    return grad.reshape(like.shape) if flat else grad


@contextlib.contextmanager
def _planted(mutants: Sequence[Mutant]) -> Any:
    with contextlib.ExitStack() as stack:
        for mutant in mutants:
            stack.enter_context(mutant.planted())
        yield


def own(
    name: str,
    mistake: str,
    wrong: str,
    evaluate: Callable[[Probe], Tensors],
    change: Callable[[Probe, Tensors], Tensors],
    rank: int = 1,
) -> Suspect:
    """Return a suspect that is no mutant: the right tensors with some of them changed."""

    def changed(probe: Probe) -> Tensors:
        right = evaluate(probe)
        with np.errstate(all="ignore"):
            return {**right, **{k: np.asarray(v) for k, v in change(probe, right).items()}}

    return Suspect(name, mistake, wrong, changed, Kind.OPERATION, rank)


def with_upstream(probe: Probe, upstream: Array) -> Probe:
    """Return the probe with another gradient from above."""
    return replace(probe, upstream=np.asarray(upstream, probe.upstream.dtype).reshape(probe.upstream.shape))
