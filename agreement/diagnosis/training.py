"""The subjects that are some steps of training: an MLP by plain SGD, and a whole engine."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import nn_reference as nn
from agreement.diagnosis.chain import Plan
from agreement.diagnosis.stacks import MLP_NAMES
from agreement.diagnosis.subject import TARGET, Layout, Probe, Subject, Suspect, Tensors, X
from agreement.measures import Array
from agreement.mutants import NETWORKS, OPTIMIZERS, Kind, Mutant
from agreement.mutants.networks import WIDTH, example
from agreement.mutants.operations import mutants_of
from agreement.mutants.optimizers import SHOWN_BY, Setup
from agreement.tracing import ReferenceEngine

STEPS = 4
ROLES = ("w1", "b1", "w2", "b2")


def _draw(seed: int) -> list[Probe]:
    probes = []
    for i, (n, inputs, hidden, outputs) in enumerate(((5, 6, 7, 4), (6, 4, 5, 3))):
        rng = np.random.default_rng([seed, i])
        start = {
            "w1": rng.normal(size=(hidden, inputs)) / 2,
            "b1": rng.normal(size=hidden) / 2,
            "w2": rng.normal(size=(outputs, hidden)) / 2,
            "b2": rng.normal(size=outputs) / 2,
        }
        batches = []
        for _ in range(STEPS):
            labels = rng.integers(0, outputs, n)
            batches.append((rng.normal(size=(n, inputs)), labels))
        extra = {"batches": batches}
        probes.append(Probe(start, np.zeros(STEPS), {"lr": (0.1, 0.3)[i]}, ROLES, (), {}, i, n, extra=extra))
    return probes


def _links(state: dict[str, Array]) -> list[nn.Module]:
    modules: list[nn.Module] = []
    for weight, bias in (("w1", "b1"), ("w2", "b2")):
        linear = nn.Linear(state[weight].shape[1], state[weight].shape[0]).double()
        linear.weight.data, linear.bias.data = state[weight].copy(), state[bias].copy()  # type: ignore[union-attr]
        modules += [linear, nn.ReLU()]
    return [*modules[:3], nn.CrossEntropyLoss()]


@contextlib.contextmanager
def _planted(mutants: Sequence[Mutant]) -> Any:
    with contextlib.ExitStack() as stack:
        for mutant in mutants:
            stack.enter_context(mutant.planted())
        yield


Gradients = dict[str, Array]


def _gradients(state: dict[str, Array], x: Array, labels: Array, plan: Plan) -> tuple[float, Gradients]:
    """Return loss and gradients of one batch, with mutants planted in links 0 to 3."""
    modules = _links(state)
    y: Any = x
    for i, module in enumerate(modules):
        with _planted(plan.get(i, ())):
            y = module(y, labels) if i == 3 else module(y)
    loss, grad = float(y), None
    for i in range(3, -1, -1):
        with _planted(plan.get(i, ())):
            grad = modules[i].backward() if i == 3 else modules[i].backward(grad)  # type: ignore[call-arg,arg-type]
    first: Any = modules[0]
    second: Any = modules[2]
    pairs = zip(ROLES, (first.weight, first.bias, second.weight, second.bias), strict=True)
    return loss, {role: np.asarray(p.grad) for role, p in pairs}


Rule = Callable[[dict[str, Any], dict[str, Array], Array, Array, float], tuple[float, dict[str, Array]]]


def _steps(probe: Probe, rule: Rule) -> Tensors:
    """Run ``rule(memory, state, x, labels, lr) -> loss, new state`` for each batch."""
    state = {role: probe.args[role].copy() for role in ROLES}
    memory: dict[str, Any] = {}
    losses, seen = [], []
    with np.errstate(all="ignore"):
        for x, labels in probe.extra["batches"]:
            loss, state = rule(memory, state, x, labels, float(probe.options["lr"]))
            losses.append(loss)
            seen.append({role: value.copy() for role, value in state.items()})
    return {"output": np.array(losses), **{role: np.stack([s[role] for s in seen]) for role in ROLES}}


def _usual(plan: Plan) -> Rule:
    def rule(memory: Any, state: Any, x: Array, labels: Array, lr: float) -> Any:
        loss, grads = _gradients(state, x, labels, plan)
        return loss, {
            role: state[role] - lr * grads[role].reshape(-1, *state[role].shape)[0]
            if grads[role].size == state[role].size
            else state[role] - lr * grads[role].sum(0) * np.nan
            for role in ROLES
        }

    return rule


def _evaluate(probe: Probe) -> Tensors:
    return _steps(probe, _usual({}))


LABELS = {0: "the first layer", 1: "the activation", 2: "the second layer", 3: "the loss"}


def _suspects() -> list[Suspect]:
    found = []
    for row, places in (("Linear", [0, 2]), ("ReLU", [1]), ("CrossEntropyLoss", [3])):
        for mutant in mutants_of(row):
            groups = [(places, ", in every layer" if len(places) > 1 else "")]
            groups += [([i], f", in {LABELS[i]}") for i in places] if len(places) > 1 else []
            for some, where in groups:
                rule = _usual(dict.fromkeys(some, (mutant,)))
                found.append(
                    Suspect(
                        mutant.name + where,
                        mutant.mistake,
                        mutant.wrong,
                        _run(rule),
                        mutant.kind,
                        int(len(some) < len(places)),
                        dict.fromkeys(some, (mutant,)),
                    )
                )

    def of(name: str, mistake: str, wrong: str, rule: Rule, rank: int = 0) -> Suspect:
        return Suspect(name, mistake, wrong, _run(rule), Kind.NETWORK, rank)

    def changed(change: Callable[[Any, Any, Gradients, Array, float], Any]) -> Rule:
        """Hand on memory, state, gradients, x and lr; get the new state."""

        def rule(memory: Any, state: Any, x: Array, labels: Array, lr: float) -> Any:
            loss, grads = _gradients(state, x, labels, {})
            return loss, {**state, **change(memory, state, grads, x, lr)}

        return rule

    def summed(memory: Any, state: Any, grads: Gradients, x: Array, lr: float) -> Any:
        total = {r: memory.get(r, 0) + grads[r] for r in ROLES}
        memory.update(total)
        return {r: state[r] - lr * total[r] for r in ROLES}

    def late(memory: Any, state: Any, grads: Gradients, x: Array, lr: float) -> Any:
        before = dict(memory.get("g", {}))
        memory["g"] = grads
        return {r: state[r] - lr * before[r] for r in before}

    def hidden(state: Any, x: Array) -> Array:
        return np.maximum(x @ state["w1"].T + state["b1"], 0)

    def updated_first(memory: Any, state: Any, x: Array, labels: Array, lr: float) -> Any:
        loss, grads = _gradients(state, x, labels, {})
        h = hidden(state, x)
        scores = h @ state["w2"].T + state["b2"]
        p = np.exp(scores - scores.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        p[np.arange(len(labels)), labels] -= 1
        d = p / len(labels)
        new = {r: state[r] - lr * grads[r] for r in ("w2", "b2")}
        delta = (d @ new["w2"]) * (h > 0)
        return loss, {"w1": state["w1"] - lr * delta.T @ x, "b1": state["b1"] - lr * delta.sum(0), **new}

    def stale(what: str) -> Rule:
        def rule(memory: Any, state: Any, x: Array, labels: Array, lr: float) -> Any:
            loss, grads = _gradients(state, x, labels, {})
            used = {"x": memory.get("x", x), "h": memory.get("h", hidden(state, x))}
            memory.update(x=x, h=hidden(state, x))
            h = hidden(state, x)
            scores = h @ state["w2"].T + state["b2"]
            p = np.exp(scores - scores.max(1, keepdims=True))
            p /= p.sum(1, keepdims=True)
            p[np.arange(len(labels)), labels] -= 1
            d = p / len(labels)
            mask = (used["h"] if what in ("mask", "all") else h) > 0
            below = used["x"] if what in ("input", "all") else x
            middle = used["h"] if what in ("hidden", "all") else h
            delta = (d @ state["w2"]) * mask
            grads = {"w1": delta.T @ below, "b1": delta.sum(0), "w2": d.T @ middle, "b2": d.sum(0)}
            return loss, {r: state[r] - lr * grads[r] for r in ROLES}

        return rule

    return [
        *found,
        of(
            "gradients-not-zeroed",
            "The gradients of the batch before are still there, so each step also takes all the steps "
            "before it.",
            "grad = sum of the gradients of all batches so far",
            changed(summed),
        ),
        of(
            "the gradients of the batch before",
            "Each step uses the gradients of the batch before.",
            "w = w - lr old grad",
            changed(late),
        ),
        of(
            "update-before-input-gradient",
            "The second weight is changed before the gradient of the hidden layer is made with it.",
            "delta = grad_y (w2 - lr grad_w2)",
            updated_first,
        ),
        of(
            "stale-cache",
            "Backward reads what the forward of the batch before left behind.",
            "mask = h of the last batch > 0",
            stale("mask"),
        ),
        of(
            "stale-cache, of the input",
            "Backward reads the input of the batch before.",
            "grad_w1 = delta.T (old x)",
            stale("input"),
        ),
        of(
            "stale-cache, of the hidden values",
            "Backward reads the hidden values of the batch before.",
            "grad_w2 = d.T (old h)",
            stale("hidden"),
        ),
        of(
            "stale-cache, of all values",
            "Backward reads what the forward of the batch before left behind.",
            "all of the last batch",
            stale("all"),
        ),
        of(
            "early-return",
            "The loop over the layers stops one too early: the first layer never learns.",
            "w1 and b1 stay as they are",
            changed(lambda m, s, g, x, lr: {r: s[r] - lr * g[r] for r in ("w2", "b2")}),
        ),
        of(
            "the last layer does not learn",
            "The second layer is never changed.",
            "w2 and b2 stay as they are",
            changed(lambda m, s, g, x, lr: {r: s[r] - lr * g[r] for r in ("w1", "b1")}),
        ),
        of(
            "biases are not changed",
            "The update goes over the weights alone.",
            "b1 and b2 stay as they are",
            changed(lambda m, s, g, x, lr: {r: s[r] - lr * g[r] for r in ("w1", "w2")}),
        ),
        of(
            "the step goes uphill",
            "The gradient is added: each step makes the loss larger.",
            "w = w + lr grad",
            changed(lambda m, s, g, x, lr: {r: s[r] + lr * g[r] for r in ROLES}),
        ),
        of(
            "the learning rate forgotten",
            "The step is taken without the learning rate.",
            "w = w - grad",
            changed(lambda m, s, g, x, lr: {r: s[r] - g[r] for r in ROLES}),
        ),
        of(
            "nothing is changed",
            "The parameters stay as they are: the new ones are never put in their place.",
            "w = w",
            changed(lambda m, s, g, x, lr: {}),
        ),
        of(
            "accumulate-twice",
            "Each gradient is added twice, once by the layer and once by the loop around it.",
            "w = w - 2 lr grad",
            changed(lambda m, s, g, x, lr: {r: s[r] - 2 * lr * g[r] for r in ROLES}),
        ),
        of(
            "updated twice",
            "The step is divided by the batch size, which the loss's mean has already done.",
            "w = w - lr grad / N",
            changed(lambda m, s, g, x, lr: {r: s[r] - lr * g[r] / len(x) for r in ROLES}),
        ),
    ]


def _run(rule: Rule) -> Callable[[Probe], Tensors]:
    return lambda probe: _steps(probe, rule)


# -- a whole engine -------------------------------------------------------------------------------------

PLAIN = Setup("SGD", {"lr": 0.1, "momentum": 0.9})
# The first with a cumulative average in BatchNorm (momentum=None).
SETUPS = [PLAIN, *{repr(setup): setup for setup in [PLAIN, *SHOWN_BY.values()]}.values()]


def _network_draw(seed: int) -> list[Probe]:
    probes = []
    for i, setup in enumerate(SETUPS):
        rng = np.random.default_rng([seed, i])
        network = example(nn)
        for module in network.modules():
            if isinstance(module, nn.Linear):
                nn.init.reset_affine(module.weight, module.bias, rng)
        state = {name: np.array(value) for name, value in network.double().state_dict().items()}
        batches = [(rng.standard_normal((12, WIDTH)), rng.integers(0, WIDTH, 12)) for _ in range(4)]
        settings = {
            "optimizer": setup.name,
            "arguments": dict(setup.settings),
            "clip": setup.clip,
            "seed": i,
            "scheduler": None if setup.scheduler is None else [setup.scheduler[0], dict(setup.scheduler[1])],
            "norm_momentum": None if i == 0 else 0.1,
        }
        extra = {"batches": batches, "settings": settings, "whole": True}
        probes.append(Probe(state, np.zeros(4), {}, seed=i, batch=12, extra=extra))
    return probes


def train(state: dict[str, Array], batches: Any, settings: dict[str, Any]) -> list[dict[str, Array]]:
    """Train `agreement.mutants.networks.example` and return its state after each batch."""
    network = example(nn).double()
    network.load_state_dict({name: np.array(value) for name, value in state.items()})
    network.bn1.momentum = settings["norm_momentum"]
    network.drop.generator = np.random.default_rng(settings["seed"])
    scheduler = settings["scheduler"] and (settings["scheduler"][0], settings["scheduler"][1])
    setup = Setup(settings["optimizer"], settings["arguments"], scheduler, settings["clip"])
    optimizer = setup.optimizer(nn.optim, network.parameters())
    engine = ReferenceEngine(
        network,
        nn.CrossEntropyLoss(),
        optimizer,
        setup.schedule(nn.optim.lr_scheduler, optimizer),
        setup.clip,
    )
    states = []
    for x, labels in batches:
        engine.learn(x, labels)
        states.append({name: np.array(value) for name, value in network.state_dict().items()})
    return states


def _network(probe: Probe) -> Tensors:
    states = train(dict(probe.args), probe.extra["batches"], probe.extra["settings"])
    return {name: np.stack([s[name] for s in states]).astype(float) for name in probe.args}


def _network_suspects() -> list[Suspect]:
    def planted(mutant: Mutant) -> Callable[[Probe], Tensors]:
        def run(probe: Probe) -> Tensors:
            with mutant.planted(), np.errstate(all="ignore"):
                return _network(probe)

        return run

    return [Suspect(m.name, m.mistake, m.wrong, planted(m), m.kind) for m in (*NETWORKS, *OPTIMIZERS)]


STEP = "w_t = w_(t-1) - lr · dL/dw at w_(t-1)      each of the shape of w, L the loss of batch t"
WORDS = {
    **dict.fromkeys(
        ROLES,
        ("Each step goes along the gradient of this batch's loss at the parameters before the step.", STEP),
    ),
    "output": (
        "The loss of a batch is that of the parameters before the step.",
        "loss = mean_n -log p[n, label[n]], p = softmax of the scores      ()",
    ),
}


def _stored(args: Any) -> dict[str, Array]:
    return {k: np.ascontiguousarray(v.T) if k in ("w1", "w2") else v for k, v in args.items()}


TRAINING = [
    Subject(
        "training",
        "training of an MLP by SGD",
        ("training", "train_step", "train", "sgd_step"),
        _draw,
        _evaluate,
        _suspects,
        {
            "parameters": ["params", "weights", "p", "theta", "state", "model", "net", "network"],
            "x": X,
            "labels": TARGET,
            "lr": ["learning_rate", "eta", "rate", "alpha", "step_size"],
            **MLP_NAMES,
        },
        ROLES,
        {"lr": None},
        WORDS,
        kind="training",
        planned=lambda probe, plan: _steps(probe, _usual(plan)),
        layouts=(
            Layout(
                "your weights are stored (in, out); that is as good as (out, in)",
                _stored,
                lambda name, a: a.swapaxes(1, 2) if name in ("w1", "w2") and a.ndim == 3 else a,
            ),
        ),
    ),
    Subject(
        "network",
        "a whole engine: network, loss, optimizer, schedule",
        ("network", "engine"),
        _network_draw,
        _network,
        _network_suspects,
        {"parameters": ["state", "params"], "batches": ["data"], "settings": ["setup", "options"]},
        (),
        {},
        {},
        kind="training",
    ),
]
