"""The subjects that are updates: some steps of SGD, Adam and AdamW, of given gradients."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

import nn_reference as nn
from agreement.diagnosis.subject import Probe, Subject, Suspect, Tensors
from agreement.measures import Array
from agreement.mutants import OPTIMIZERS, Kind, Mutant

STEPS = 6
NAMES = {
    "w": ["weight", "weights", "param", "params", "p", "theta", "parameter", "x", "W"],
    "grad": ["g", "gradient", "dw", "grads", "dW", "grad_w", "gradients", "d", "delta"],
    "params": ["parameters", "param_list", "weights", "variables", "layers", "network"],
    "velocity": ["v", "vel", "momentum_buffer", "buf", "b", "u", "buffer", "velocities"],
    "state": ["memory", "cache", "st", "states", "ctx"],
    "lr": ["learning_rate", "eta", "rate", "alpha", "step_size", "l"],
    "momentum": ["mu", "beta", "rho", "mom", "gamma", "friction"],
    "weight_decay": ["decay", "wd", "c", "l2", "lambda_", "lam"],
    "m": ["exp_avg", "mean", "first", "m1", "first_moment", "mt", "M"],
    "v": ["exp_avg_sq", "sq", "second", "v1", "second_moment", "vt", "V", "s"],
    "t": ["step", "i", "n", "iteration", "step_count", "count", "k", "step_number", "it", "time"],
    "beta1": ["b1", "beta_1", "beta1_"],
    "beta2": ["b2", "beta_2"],
    "eps": ["epsilon", "e", "tiny"],
}


def _grads(rng: np.random.Generator, shape: tuple[int, ...]) -> list[Array]:
    """Return gradients of which some elements are small (where eps counts), and some zero."""
    grads = [rng.normal(size=shape) for _ in range(STEPS)]
    for grad in grads:
        grad.reshape(-1)[0] *= 1e-4
        grad.reshape(-1)[1] *= 1e-3
    grads[2].reshape(-1)[2] = 0.0
    return grads


def _probes(settings: list[dict[str, Any]]) -> Callable[[int], list[Probe]]:
    def draw(seed: int) -> list[Probe]:
        probes = []
        for i, options in enumerate(settings):
            rng = np.random.default_rng([seed, i])
            shape: tuple[int, ...] = ((4, 3), (7,))[i % 2]
            options = dict(options)
            lrs = options.pop("lrs", [options.get("lr", 0.1)] * STEPS)
            extra = {"grads": _grads(rng, shape), "lrs": lrs}
            options["lr"] = lrs[0]
            if "beta1" in options:
                options["betas"] = (options["beta1"], options["beta2"])
            w = rng.normal(size=shape)
            probes.append(
                Probe({"w": w}, np.zeros((STEPS, *shape)), options, seed=i, batch=STEPS, extra=extra)
            )
        return probes

    return draw


def _evaluate(kind: str) -> Callable[[Probe], Tensors]:
    def evaluate(probe: Probe) -> Tensors:
        parameter = nn.Parameter(probe.args["w"].copy())
        options = {k: v for k, v in probe.options.items() if k not in ("beta1", "beta2")}
        optimizer = getattr(nn.optim, kind)([parameter], **options)
        seen = []
        for grad, lr in zip(probe.extra["grads"], probe.extra["lrs"], strict=True):
            optimizer.param_groups[0]["lr"] = lr
            parameter.grad = grad.copy()
            optimizer.step()
            seen.append(np.array(parameter.data))
        return {"w": np.stack(seen)}

    return evaluate


def _mutants(kinds: tuple[str, ...], evaluate: Callable[[Probe], Tensors]) -> list[Suspect]:
    def planted(mutant: Mutant) -> Callable[[Probe], Tensors]:
        def run(probe: Probe) -> Tensors:
            with mutant.planted(), np.errstate(all="ignore"):
                return evaluate(probe)

        return run

    return [
        Suspect(m.name, m.mistake, m.wrong, planted(m), m.kind) for m in OPTIMIZERS if m.operation in kinds
    ]


Step = Callable[[dict[str, Any], Array, Array, float, int, Any], Array]


def _by_hand(name: str, mistake: str, wrong: str, step: Step, evaluate: Any, rank: int = 1) -> Suspect:
    """Return a suspect whose update is ``step(memory, w, grad, lr, t, options)``."""

    def run(probe: Probe) -> Tensors:
        memory: dict[str, Any] = {}
        w, seen = probe.args["w"].copy(), []
        special = ("nesterov", "maximize", "amsgrad")
        if any(probe.options.get(key) for key in special) or probe.options.get("weight_decay") not in (
            0,
            None,
            0.01,
        ):
            return evaluate(probe)
        with np.errstate(all="ignore"):
            for t, (grad, lr) in enumerate(zip(probe.extra["grads"], probe.extra["lrs"], strict=True), 1):
                w = step(memory, w, grad, lr, t, probe.options)
                seen.append(np.array(w))
        return {"w": np.stack(seen)}

    return Suspect(name, mistake, wrong, run, Kind.OPTIMIZER, rank)


def _two(
    single: list[Suspect], slots: list[dict[str, Any]], play: Callable[..., Step], evaluate: Any
) -> list[Suspect]:
    """Return every two mistakes of different parts of an update, ``play(i, f, j, g)`` being the update.

    A slot holds the mistakes of one part by the name under which ``single`` has their words.
    """
    known = {s.name: s for s in single}
    found = []
    for i, j in itertools.combinations(range(len(slots)), 2):
        for (a, f), (b, g) in itertools.product(slots[i].items(), slots[j].items()):
            if a in known and b in known:
                one, two = known[a], known[b]
                words = f"{one.mistake} {two.mistake}", f"{one.wrong}; {two.wrong}"
                found.append(_by_hand(f"{a} and {b}", *words, play(i, f, j, g), evaluate, rank=5))
    return found


# The parts of SGD: the velocity, then the step.
SGD_SLOTS: list[dict[str, Any]] = [
    {
        "sgd-momentum-dampened": lambda b, g, lr, mu: mu * b + (1 - mu) * g,
        "sgd-rate-inside-velocity": lambda b, g, lr, mu: mu * b + lr * g,
        "the velocity not kept": lambda b, g, lr, mu: g,
        "the momentum on the gradient": lambda b, g, lr, mu: b + mu * g,
        "the momentum forgotten": lambda b, g, lr, mu: b + g,
        "the velocity subtracted": lambda b, g, lr, mu: g - mu * b,
    },
    {
        "the step goes uphill": lambda w, b, old, g, lr, mu: w + lr * b,
        "the learning rate forgotten": lambda w, b, old, g, lr, mu: w - b,
        "the old velocity": lambda w, b, old, g, lr, mu: w - lr * old,
        "the momentum once too often": lambda w, b, old, g, lr, mu: w - lr * mu * b,
        "a look ahead": lambda w, b, old, g, lr, mu: w - lr * (g + mu * b),
    },
]


def _play_sgd(i: int, velocity: Any, j: int, move: Any) -> Step:
    def step(m: dict[str, Any], w: Array, g: Array, lr: float, t: int, o: Any) -> Array:
        old, mu = m.get("b", np.zeros_like(w)), o.get("momentum", 0.0)
        m["b"] = velocity(old, g, lr, mu)
        return move(w, m["b"], old, g, lr, mu)

    return step


# The parts of Adam: the first moment, the second, their correction, the denominator, the step.
ADAM_USUAL: list[Any] = [
    lambda m, g, b1: b1 * m + (1 - b1) * g,
    lambda v, g, m, b1, b2: b2 * v + (1 - b2) * g * g,
    lambda m, v, t, b1, b2: (m / (1 - b1**t), v / (1 - b2**t)),
    lambda v, eps: np.sqrt(v) + eps,
    lambda w, m, g, below, lr: w - lr * m / below,
]
ADAM_SLOTS: list[dict[str, Any]] = [
    {
        "the first moment is not an average": lambda m, g, b1: b1 * m + g,
        "the first moment not kept": lambda m, g, b1: (1 - b1) * g,
    },
    {
        "the second moment is not an average": lambda v, g, m, b1, b2: b2 * v + g * g,
        "the second moment not kept": lambda v, g, m, b1, b2: (1 - b2) * g * g,
        "the square of the first moment": lambda v, g, m, b1, b2: b2 * v + (1 - b2) * m * m,
        "one beta for both": lambda v, g, m, b1, b2: b1 * v + (1 - b1) * g * g,
        "adam-not-squared": lambda v, g, m, b1, b2: b2 * v + (1 - b2) * np.abs(g),
    },
    {
        "adam-no-bias-correction": lambda m, v, t, b1, b2: (m, v),
        "adam-second-uncorrected": lambda m, v, t, b1, b2: (m / (1 - b1**t), v),
        "the first moment uncorrected": lambda m, v, t, b1, b2: (m, v / (1 - b2**t)),
        "adam-powers-off-by-one": lambda m, v, t, b1, b2: (m / (1 - b1 ** (t + 1)), v / (1 - b2 ** (t + 1))),
        "corrected the wrong way": lambda m, v, t, b1, b2: (m * (1 - b1**t), v * (1 - b2**t)),
        "corrected by beta without its power": lambda m, v, t, b1, b2: (m / (1 - b1), v / (1 - b2)),
    },
    {
        "adam-eps-inside-root": lambda v, eps: np.sqrt(v + eps),
        "the root forgotten": lambda v, eps: v + eps,
        "eps forgotten": lambda v, eps: np.sqrt(v),
    },
    {
        "the step goes uphill": lambda w, m, g, below, lr: w + lr * m / below,
        "the gradient for the first moment": lambda w, m, g, below, lr: w - lr * g / below,
        "the learning rate forgotten": lambda w, m, g, below, lr: w - m / below,
    },
]


def _play_adam(decoupled: bool) -> Callable[..., Step]:
    def play(i: int, f: Any, j: int, g_: Any) -> Step:
        first, second, correct, denominator, move = (
            f if k == i else g_ if k == j else usual for k, usual in enumerate(ADAM_USUAL)
        )

        def step(s: dict[str, Any], w: Array, g: Array, lr: float, t: int, o: Any) -> Array:
            b1, b2, eps = o.get("beta1", 0.9), o.get("beta2", 0.999), o.get("eps", 1e-8)
            decay = o.get("weight_decay", 0.01 if decoupled else 0.0)
            w, g = (w - lr * decay * w, g) if decoupled else (w, g + decay * w)
            zero = np.zeros_like(w)
            s["m"] = first(s.get("m", zero), g, b1)
            s["v"] = second(s.get("v", zero), g, s["m"], b1, b2)
            m, v = correct(s["m"], s["v"], t, b1, b2)
            return move(w, m, g, denominator(v, eps), lr)

        return step

    return play


def _sgd_suspects() -> list[Suspect]:
    evaluate = _evaluate("SGD")

    def of(name: str, mistake: str, wrong: str, step: Step, rank: int = 1) -> Suspect:
        return _by_hand(name, mistake, wrong, step, evaluate, rank)

    def velocity(change: Callable[..., Any]) -> Step:
        def step(m: dict[str, Any], w: Array, g: Array, lr: float, t: int, o: Any) -> Array:
            m["b"], w = change(m.get("b", np.zeros_like(w)), w, g, lr, o.get("momentum", 0.0))
            return w

        return step

    single = [
        *_mutants(("SGD",), evaluate),
        of(
            "the step goes uphill",
            "The gradient is added: each step makes the loss larger.",
            "w = w + lr b",
            velocity(lambda b, w, g, lr, mu: (b := mu * b + g, w + lr * b)),
        ),
        of(
            "the learning rate forgotten",
            "The step is taken without the learning rate.",
            "w = w - b",
            velocity(lambda b, w, g, lr, mu: (b := mu * b + g, w - b)),
        ),
        of(
            "the learning rate counted twice",
            "The learning rate is in the velocity and in the step.",
            "b = mu b + lr g, w = w - lr b",
            velocity(lambda b, w, g, lr, mu: (b := mu * b + lr * g, w - lr * b)),
        ),
        of(
            "the velocity not kept",
            "The velocity of the step before is forgotten: each step starts from zero.",
            "b = g",
            velocity(lambda b, w, g, lr, mu: (0 * b, w - lr * g)),
            2,
        ),
        of(
            "the old velocity",
            "The step is taken along the velocity of the step before.",
            "w = w - lr b, then b = mu b + g",
            velocity(lambda b, w, g, lr, mu: (mu * b + g, w - lr * b)),
        ),
        of(
            "the momentum on the gradient",
            "The gradient is multiplied by the momentum, and the velocity is not.",
            "b = b + mu g",
            velocity(lambda b, w, g, lr, mu: (b := b + mu * g, w - lr * b)),
        ),
        of(
            "the momentum forgotten",
            "The velocity only adds up the gradients: it is not multiplied by the momentum.",
            "b = b + g",
            velocity(lambda b, w, g, lr, mu: (b := b + g, w - lr * b)),
        ),
        of(
            "the momentum once too often",
            "The velocity is multiplied by the momentum again in the step.",
            "w = w - lr mu b",
            velocity(lambda b, w, g, lr, mu: (b := mu * b + g, w - lr * mu * b)),
        ),
        of(
            "a look ahead",
            "The step is Nesterov's, though it was not asked for.",
            "w = w - lr (g + mu b)",
            velocity(lambda b, w, g, lr, mu: (b := mu * b + g, w - lr * (g + mu * b))),
        ),
        of(
            "the velocity subtracted",
            "The old velocity is taken off the gradient.",
            "b = g - mu b",
            velocity(lambda b, w, g, lr, mu: (b := g - mu * b, w - lr * b)),
        ),
    ]
    return single + _two(single, SGD_SLOTS, _play_sgd, evaluate)


def _adam_suspects(kind: str) -> Callable[[], list[Suspect]]:
    def suspects() -> list[Suspect]:
        evaluate = _evaluate(kind)

        def of(name: str, mistake: str, wrong: str, change: Callable[..., Any], rank: int = 1) -> Suspect:
            def step(s: dict[str, Any], w: Array, g: Array, lr: float, t: int, o: Any) -> Array:
                b1, b2, eps = o.get("beta1", 0.9), o.get("beta2", 0.999), o.get("eps", 1e-8)
                decay = o.get("weight_decay", 0.01 if kind == "AdamW" else 0.0)
                if kind == "AdamW":
                    w = w - lr * decay * w
                elif decay:
                    g = g + decay * w
                zero = np.zeros_like(w)
                old_m, old_v = s.get("m", zero), s.get("v", zero)
                s["m"], s["v"] = b1 * old_m + (1 - b1) * g, b2 * old_v + (1 - b2) * g * g
                return change(s, old_m, old_v, w, g, lr, t, b1, b2, eps)

            return _by_hand(name, mistake, wrong, step, evaluate, rank)

        def hats(s: Any, t: int, b1: float, b2: float) -> tuple[Array, Array]:
            return s["m"] / (1 - b1**t), s["v"] / (1 - b2**t)

        def usual(s: Any, w: Array, lr: float, t: int, b1: float, b2: float, eps: float) -> Array:
            m, v = hats(s, t, b1, b2)
            return w - lr * m / (np.sqrt(v) + eps)

        def second(f: Callable[..., Any]) -> Callable[..., Any]:
            """Change what is kept, then step as usual."""

            def change(
                s: Any, om: Any, ov: Any, w: Any, g: Any, lr: Any, t: Any, b1: Any, b2: Any, eps: Any
            ) -> Any:
                s["m"], s["v"] = f(s, om, ov, g, b1, b2)
                return usual(s, w, lr, t, b1, b2, eps)

            return change

        def last(f: Callable[..., Any]) -> Callable[..., Any]:
            """Step in another way, of the right moments."""
            return lambda s, om, ov, w, g, lr, t, b1, b2, eps: f(
                w, *hats(s, t, b1, b2), g, lr, eps, s, t, b1, b2
            )

        single = [
            *_mutants((kind,), evaluate),
            of(
                "the root forgotten",
                "The step is divided by the second moment itself, not by its root.",
                "w = w - lr m^ / (v^ + eps)",
                last(lambda w, m, v, g, lr, eps, *r: w - lr * m / (v + eps)),
            ),
            of(
                "the step goes uphill",
                "The step is added: the loss grows.",
                "w = w + lr m^ / (sqrt(v^) + eps)",
                last(lambda w, m, v, g, lr, eps, *r: w + lr * m / (np.sqrt(v) + eps)),
            ),
            of(
                "the gradient for the first moment",
                "The step is taken along the gradient itself.",
                "w = w - lr g / (sqrt(v^) + eps)",
                last(lambda w, m, v, g, lr, eps, *r: w - lr * g / (np.sqrt(v) + eps)),
            ),
            of(
                "the learning rate forgotten",
                "The step is taken without the learning rate.",
                "w = w - m^ / (sqrt(v^) + eps)",
                last(lambda w, m, v, g, lr, eps, *r: w - m / (np.sqrt(v) + eps)),
            ),
            of(
                "the first moment uncorrected",
                "Only the second moment is corrected for its start at 0.",
                "m^ = m",
                last(lambda w, m, v, g, lr, eps, s, t, b1, b2: w - lr * s["m"] / (np.sqrt(v) + eps)),
            ),
            of(
                "corrected the wrong way",
                "The moments are multiplied by what they should be divided by: they shrink where the "
                "correction should enlarge them.",
                "m^ = m (1 - beta1^t), v^ = v (1 - beta2^t)",
                last(
                    lambda w, m, v, g, lr, eps, s, t, b1, b2: (
                        w - lr * (s["m"] * (1 - b1**t)) / (np.sqrt(s["v"] * (1 - b2**t)) + eps)
                    )
                ),
            ),
            of(
                "corrected by beta without its power",
                "The bias correction does not know how many steps there were.",
                "m^ = m / (1 - beta1), v^ = v / (1 - beta2)",
                last(
                    lambda w, m, v, g, lr, eps, s, t, b1, b2: (
                        w - lr * (s["m"] / (1 - b1)) / (np.sqrt(s["v"] / (1 - b2)) + eps)
                    )
                ),
                2,
            ),
            of(
                "the corrected moments are kept",
                "The moments that were corrected are kept for the next step.",
                "m = m / (1 - beta1^t), v = v / (1 - beta2^t)",
                _keep_corrected,
            ),
            of(
                "the first moment is not an average",
                "The gradient comes into the first moment whole, without 1 - beta1.",
                "m = beta1 m + g",
                second(lambda s, om, ov, g, b1, b2: (b1 * om + g, s["v"])),
            ),
            of(
                "the second moment is not an average",
                "The square comes into the second moment whole, without 1 - beta2.",
                "v = beta2 v + g^2",
                second(lambda s, om, ov, g, b1, b2: (s["m"], b2 * ov + g * g)),
            ),
            of(
                "the square of the first moment",
                "The second moment averages the square of the first one.",
                "v = beta2 v + (1 - beta2) m^2",
                second(lambda s, om, ov, g, b1, b2: (s["m"], b2 * ov + (1 - b2) * s["m"] ** 2)),
            ),
            of(
                "moments not kept",
                "The moments of the step before are forgotten.",
                "m = (1 - beta1) g, v = (1 - beta2) g^2",
                second(lambda s, om, ov, g, b1, b2: ((1 - b1) * g, (1 - b2) * g * g)),
            ),
            of(
                "the first moment not kept",
                "The first moment of the step before is forgotten.",
                "m = (1 - beta1) g",
                second(lambda s, om, ov, g, b1, b2: ((1 - b1) * g, s["v"])),
            ),
            of(
                "the second moment not kept",
                "The second moment of the step before is forgotten.",
                "v = (1 - beta2) g^2",
                second(lambda s, om, ov, g, b1, b2: (s["m"], (1 - b2) * g * g)),
            ),
            of(
                "one beta for both",
                "Both moments are averaged with the first beta.",
                "v = beta1 v + (1 - beta1) g^2",
                second(lambda s, om, ov, g, b1, b2: (s["m"], b1 * ov + (1 - b1) * g * g)),
            ),
            of(
                "eps forgotten",
                "There is no eps in the denominator.",
                "w = w - lr m^ / sqrt(v^)",
                last(lambda w, m, v, g, lr, eps, *r: w - lr * m / np.sqrt(v)),
            ),
        ]
        return single + _two(single, ADAM_SLOTS, _play_adam(kind == "AdamW"), evaluate)

    return suspects


def _keep_corrected(
    s: Any, om: Any, ov: Any, w: Array, g: Any, lr: float, t: int, b1: float, b2: float, eps: float
) -> Array:
    s["m"], s["v"] = s["m"] / (1 - b1**t), s["v"] / (1 - b2**t)
    return w - lr * s["m"] / (np.sqrt(s["v"]) + eps)


MU = {"momentum": 0.9}
FALLING = [0.1, 0.1, 0.03, 0.03, 0.01, 0.01]
SGD_SETTINGS: list[dict[str, Any]] = [
    {"lr": 0.1, **MU},
    {"lr": 0.05, "momentum": 0.5},
    {"lr": 0.1, "momentum": 0.0},
    {**MU, "lrs": FALLING},
    {"lr": 0.1, **MU, "nesterov": True},
    {"lr": 0.1, **MU, "weight_decay": 0.1},
    {"lr": 0.1, **MU, "weight_decay": 0.1},
    {"lr": 0.1, **MU, "dampening": 0.3},
    {"lr": 0.1, **MU, "maximize": True},
]
B = {"beta1": 0.9, "beta2": 0.999}
ADAM_SETTINGS: list[dict[str, Any]] = [
    {"lr": 0.01, **B},
    {"lr": 0.05, **B},
    {"lr": 0.01, "beta1": 0.8, "beta2": 0.95},
    {"lr": 0.01, **B, "eps": 1e-3},
    {"lr": 0.01, **B, "weight_decay": 0.1},
    {"lr": 0.01, **B, "amsgrad": True},
    {"lr": 0.05, "beta1": 0.7, "beta2": 0.5, "amsgrad": True},
]
SGD_DEFAULTS = {
    "momentum": 0.0,
    "weight_decay": 0,
    "nesterov": False,
    "dampening": 0,
    "maximize": False,
    "lr": None,
}
ADAM_DEFAULTS = {
    "beta1": 0.9,
    "beta2": 0.999,
    "betas": (0.9, 0.999),
    "eps": 1e-8,
    "weight_decay": 0,
    "amsgrad": False,
    "lr": None,
}
WORDS = {
    "w": (
        "Each step moves the weights along what was gathered from all gradients so far, against them.",
        "w_t = w_(t-1) - lr · (the direction made of g_1 ... g_t)      all of the shape of w",
    )
}


def _optimizer(
    name: str, title: str, kind: str, settings: Any, defaults: Any, suspects: Any, state: list[str]
) -> Subject:
    return Subject(
        name,
        title,
        (name,),
        _probes(settings),
        _evaluate(kind),
        suspects,
        {**NAMES, "state_order": state},
        ("w",),
        defaults,
        WORDS,
        kind="optimizer",
    )


OPTIMIZER_SUBJECTS = [
    _optimizer(
        "sgd", "SGD with momentum", "SGD", SGD_SETTINGS, SGD_DEFAULTS, _sgd_suspects, ["w", "velocity"]
    ),
    _optimizer("adam", "Adam", "Adam", ADAM_SETTINGS, ADAM_DEFAULTS, _adam_suspects("Adam"), ["w", "m", "v"]),
    _optimizer(
        "adamw",
        "AdamW",
        "AdamW",
        ADAM_SETTINGS,
        {**ADAM_DEFAULTS, "weight_decay": 0.01},
        _adam_suspects("AdamW"),
        ["w", "m", "v"],
    ),
]
