"""Every known mistake is named; right solutions, however written, are never accused."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest

import nn_reference as nn
from agreement.diagnosis import SUBJECTS, Limits, UnknownSubject, diagnose
from agreement.diagnosis.diagnosing import subject_of
from agreement.diagnosis.training import train
from agreement.mutants import NETWORKS, OPERATIONS, OPTIMIZERS, Kind
from nn_reference import gelu

LEARNERS = Path(__file__).parent / "learners"
SUBJECT_OF = {
    "Linear": "linear",
    "ReLU": "relu",
    "LeakyReLU": "leaky_relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "ELU": "elu",
    "SiLU": "silu",
    "GELU": "gelu",
    "GELU-tanh": "gelu_tanh",
    "Flatten": "flatten",
    "Identity": "identity",
    "Dropout": "dropout",
    "Softmax": "softmax",
    "LogSoftmax": "log_softmax",
    "BatchNorm1d": "batchnorm1d",
    "BatchNorm2d": "batchnorm2d",
    "Conv2d": "conv2d",
    "MaxPool2d": "max_pool2d",
    "AvgPool2d": "avg_pool2d",
    "CrossEntropyLoss": "cross_entropy",
    "CrossEntropyLoss-probabilities": "cross_entropy_soft",
    "NLLLoss": "nll",
    "MSELoss": "mse",
    "L1Loss": "l1",
    "BCEWithLogitsLoss": "bce_with_logits",
    "SGD": "sgd",
    "Adam": "adam",
    "AdamW": "adamw",
}
# Lost digits are no mistake: they are remarked on, where float64 shows them.
DIGITS = [m for m in OPERATIONS if m.kind == Kind.PRECISION]
SEEN = {"BatchNorm2d: float32 sums", "Conv2d: float32 canvas", "Linear: float32 in between"}
COARSE = {"Linear: half precision product"}  # three digits are no rounding any more
# In training nobody asks for the gradient of the input, and these two then do the same.
SAME = {"early-return": {"early-return", "first-layer-skipped"}}
SAME["first-layer-skipped"] = SAME["early-return"]


def planted(mutant):
    return contextlib.nullcontext() if mutant is None else mutant.planted()


def layer(row, mutant=None):
    """The engine's layer as a learner's class, with a mistake in it."""
    if mutant is not None and mutant.name == "GELU: cache changed in place":  # a class hides its cache
        return {"forward": gelu.forward, "backward": mutant.function}
    kind = getattr(nn, row.split("-")[0])
    given = {"approximate": "tanh"} if row == "GELU-tanh" else {}

    def forward(self, x, *others):
        with planted(mutant):
            return kind.forward(self, x, *others)

    def backward(self, grad_output=None, input_grad=True):
        with planted(mutant):
            return kind.backward(self, grad_output, input_grad)

    methods = {"forward": forward, "backward": backward, "__module__": "learner"}
    if given:
        methods["__init__"] = lambda self: kind.__init__(self, **given)
    return {"Own": type("Own", (kind,), methods)}


def optimizer(kind, mutant=None):
    kind = getattr(nn.optim, kind)

    def step(self):
        with planted(mutant):
            kind.step(self)

    return {"Own": type("Own", (kind,), {"step": step, "__module__": "learner"})}


def engine(mutant=None):
    def whole(state, batches, settings):
        with planted(mutant):
            return train(state, batches, settings)

    whole.__module__ = "learner"
    return {"train": whole}


def names(diagnosis):
    return [candidate.name for candidate in diagnosis.candidates]


@pytest.mark.parametrize("mutant", [m for m in OPERATIONS if m not in DIGITS or m.name in COARSE], ids=str)
def test_a_mutant_of_an_operation_gets_its_own_name_alone(mutant):
    found = diagnose(None, SUBJECT_OF[mutant.operation], code=layer(mutant.operation, mutant))
    assert names(found) == [mutant.name], str(found)
    assert not found.ok
    assert found.confidence == "sure"
    assert found.candidates[0].reason
    assert found.candidates[0].formula or found.candidates[0].parts[0].startswith(("changed", "running"))


@pytest.mark.parametrize("mutant", [m for m in DIGITS if m.name not in COARSE], ids=str)
def test_lost_digits_are_a_remark_and_no_mistake(mutant):
    found = diagnose(None, SUBJECT_OF[mutant.operation], code=layer(mutant.operation, mutant))
    assert found.ok, str(found)
    assert any(mutant.name in note for note in found.notes) == (mutant.name in SEEN)


@pytest.mark.parametrize(
    "mutant", [m for m in OPTIMIZERS if m.operation in ("SGD", "Adam", "AdamW")], ids=str
)
def test_a_mutant_of_an_optimizer_gets_its_own_name_alone(mutant):
    found = diagnose(None, SUBJECT_OF[mutant.operation], code=optimizer(mutant.operation, mutant))
    assert names(found) == [mutant.name], str(found)


@pytest.mark.parametrize(
    "mutant", [*NETWORKS, *(m for m in OPTIMIZERS if m.operation not in SUBJECT_OF)], ids=str
)
def test_a_mutant_of_a_whole_engine_gets_its_own_name(mutant):
    found = diagnose(None, "network", code=engine(mutant))
    assert set(names(found)) == SAME.get(mutant.name, {mutant.name}), str(found)
    assert found.confidence == ("one of several" if mutant.name in SAME else "sure")


@pytest.mark.parametrize("row", SUBJECT_OF)
@pytest.mark.parametrize("seed", range(2))
def test_the_engine_itself_is_right(row, seed):
    make = optimizer if row in ("SGD", "Adam", "AdamW") else layer
    found = diagnose(None, SUBJECT_OF[row], code=make(row), seed=seed)
    assert found.ok, str(found)
    assert found.probes >= 3
    assert not found.candidates


def test_every_subject_says_why_and_in_which_shape():
    for subject in SUBJECTS.values():
        if subject.name == "network":
            continue
        wanted = (
            {f"grad of {role}" for role in subject.gradients}
            if subject.kind == "operation"
            else subject.gradients
        )
        assert set(wanted) <= set(subject.explain), subject.name
        assert all("(" in formula for _, formula in subject.explain.values()), subject.name


def test_every_probe_differs_in_all_sizes_and_has_three_rows():
    for subject in SUBJECTS.values():
        if subject.kind != "operation":
            continue
        for probe in subject.probes(0):
            assert probe.batch >= 3 or subject.name in ("neuron", "linear_one", "batchnorm2d"), subject.name
            if subject.name in ("linear", "mlp", "softmax", "cross_entropy", "batchnorm1d"):
                sizes = [
                    *probe.args["x"].shape,
                    *(probe.upstream.shape[1:] if subject.name == "linear" else ()),
                ]
                assert len(set(sizes)) == len(sizes), (subject.name, sizes)


# -- learners ---------------------------------------------------------------------------------------------


def solutions(file):
    """Give (subject, the names that are right, source) of each solution in a file."""
    for part in (LEARNERS / file).read_text("utf-8").split("=== ")[1:]:
        head, source = part.split("\n", 1)
        subject, _, expected = head.partition(": ")
        yield subject, expected.split("|"), source


def loaded(source):
    space = {"__name__": "learner"}
    exec(compile(source, "learner.py", "exec"), space)  # these are ours
    return {name: value for name, value in space.items() if not name.startswith("__")}


WRONG = {file: list(solutions(file)) for file in ("wrong.txt", "blind.txt")}
RIGHT = [*solutions("right.txt"), *solutions("blind_right.txt")]


def test_there_are_enough_learners():
    for wrong in WRONG.values():
        assert len(wrong) >= 40
        assert len({subject for subject, _, _ in wrong}) >= 15
    assert len(RIGHT) >= 15


@pytest.mark.parametrize("file", WRONG)
def test_the_mistake_of_a_learner_is_named_first_or_second(file):
    first = second = 0
    missed = []
    for subject, expected, source in WRONG[file]:
        found = diagnose(None, subject, code=loaded(source))
        assert not found.ok
        first += names(found)[:1] != [] and names(found)[0] in expected
        hit = any(name in expected for name in names(found)[:2])
        second += hit
        if not hit:
            missed.append((subject, expected, names(found)))
    assert first >= 0.90 * len(WRONG[file]), missed
    assert second >= 0.97 * len(WRONG[file]), missed


@pytest.mark.parametrize(("subject", "source"), [(s, t) for s, _, t in RIGHT], ids=[s for s, _, _ in RIGHT])
@pytest.mark.parametrize("seed", range(2))
def test_a_right_solution_is_not_accused_whatever_its_style(subject, source, seed):
    found = diagnose(None, subject, code=loaded(source), seed=seed)
    assert found.ok, str(found)
    assert not found.candidates
    assert not found.problems


def test_two_mistakes_are_both_named():
    code = """
import numpy as np
def forward(x, w1, b1, w2, b2):
    h = np.maximum(x @ w1.T + b1, 0)
    return h @ w2.T + b2
def backward(g, x, w1, b1, w2, b2):
    h = np.maximum(x @ w1.T + b1, 0)
    d = g @ w2
    return d @ w1, d.T @ x, d.sum(0), g.T @ h, g.mean(0)
"""
    found = diagnose(None, "mlp", code=loaded(code))
    assert any("ReLU: mask missing" in n and "mean for sum in the bias" in n for n in names(found)[:2]), str(
        found
    )


def test_where_nothing_known_fits_it_narrows_down():
    code = """
import numpy as np
def forward(x, w, b):
    return x @ w.T + b
def backward(g, x, w, b):
    dw = g.T @ x
    dw[1] *= 1.7
    return g @ w, dw, g.sum(0)
"""
    found = diagnose(None, "linear", code=loaded(code))
    assert found.confidence == "none"
    assert not found.candidates
    assert any("wrong only in row 1" in line for line in found.narrowing), found.narrowing
    assert any(line.startswith("right: ") for line in found.narrowing)


def test_the_rows_where_it_is_made_are_named(tmp_path):
    file = tmp_path / "linear_of_mine.py"
    file.write_text(
        "def forward(x, w, b):\n    return x @ w.T + b\n\n\ndef backward(g, x, w, b):\n"
        "    first = g @ w\n    second = g.T @ x / len(x)\n    return second, g.sum(0), first\n"
    )
    found = diagnose(file)
    assert found.subject == "linear"
    assert names(found) == ["Linear: one over n too many"]
    assert found.candidates[0].lines == (7,)
    text = str(found)
    assert "line 7" in text
    assert "grad_y.T x / N" in text
    assert "grad_weight = grad_y.T x\n" not in text, "the solution"
    assert json.loads(json.dumps(found.to_dict()))["candidates"][0]["name"] == "Linear: one over n too many"


# -- code that misbehaves ---------------------------------------------------------------------------------

HEAD = "import os, sys, time\nimport numpy as np\ndef forward(x):\n    return np.maximum(x, 0)\n"
HOSTILE = {
    "loops": ("def backward(g, x):\n    while True:\n        pass\n", "time", "stopped after"),
    "loops and swallows": (
        "def backward(g, x):\n    while True:\n        try:\n            time.sleep(1)\n"
        "        except BaseException:\n            pass\n",
        "time",
        "stopped after",
    ),
    "eats memory": (
        "def backward(g, x):\n    a = []\n    while True:\n        a.append(bytearray(2**27))\n",
        "memory",
        "memory",
    ),
    "floods": ("def backward(g, x):\n    while True:\n        print('y' * 10**6)\n", "output", "printing"),
    "exits": ("def backward(g, x):\n    sys.exit(0)\n", "exit", "sys.exit"),
    "exits at once": ("sys.exit(3)\n", "exit", "line 5"),
    "exits hard": ("def backward(g, x):\n    os._exit(0)\n", "crash", "os._exit"),
    "crashes": ("import ctypes\ndef backward(g, x):\n    ctypes.string_at(0)\n", "crash", "line 7"),
    "raises": ("def backward(g, x):\n    return g @ x\n", "exception", "ValueError, in line 6"),
    "returns nothing": ("def backward(g, x):\n    g * (x > 0)\n", "returned", "returns nothing"),
    "returns a string": ("def backward(g, x):\n    return 'g'\n", "returned", "a string"),
    "changes its input": (
        "def backward(g, x):\n    x[x <= 0] = 0\n    return g * (x > 0)\n",
        "in-place",
        "changes x",
    ),
    "writes too much": (
        "def backward(g, x):\n    open('a', 'wb').write(bytes(10**8))\n    return g\n",
        "exception",
        "too large",
    ),
    "waits for input": ("def backward(g, x):\n    input()\n    return g\n", "exception", "EOFError"),
    "has a syntax error": ("def backward(g, x)\n    return g\n", "exception", "line 5"),
    "has no backward": ("", "missing", "no function named backward"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_code_that_misbehaves_gets_one_clear_line(name, tmp_path):
    body, kind, words = HOSTILE[name]
    file = tmp_path / "relu.py"
    file.write_text(HEAD + body)
    seconds = 10 if kind == "memory" else 1  # to fill a gigabyte takes a busy machine more than one
    found = diagnose(file, limits=Limits(seconds=seconds, memory=2**30))
    assert not found.ok
    assert [problem.kind for problem in found.problems] == [kind], str(found)
    assert words in found.problems[0].words, str(found)
    assert "\n" not in found.problems[0].words
    assert file.exists()
    assert "Traceback" not in str(found)


GOOD = "def backward(g, x):\n    return g * (x > 0)\n"
HARMLESS = {
    "prints a megabyte": ("print('x' * 10**6)\n" + GOOD, "prints 1,000,001 bytes"),
    "deletes its own file": ("os.remove(__file__)\n" + GOOD, "deletes its own file"),
    "deletes its cache": (
        "def forward(x):\n    return np.maximum(x, 0), {'x': x}\n"
        "def backward(cache, g):\n    return g * (cache.pop('x') > 0)\n",
        "deletes 'x' from its cache",
    ),
    "forks": ("os.fork()\n" + GOOD, ""),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_does_no_harm_is_remarked_on(name, tmp_path):
    body, words = HARMLESS[name]
    file = tmp_path / "relu.py"
    file.write_text(HEAD + body)
    found = diagnose(file)
    assert found.ok, str(found)
    assert any(words in note for note in found.notes) or not words
    assert file.exists()


def test_the_environment_is_not_handed_on(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_GRADER", "1")
    file = tmp_path / "relu.py"
    file.write_text(HEAD + "assert 'SECRET_OF_THE_GRADER' not in os.environ\n" + GOOD)
    assert diagnose(file).ok


@pytest.mark.parametrize(
    ("source", "message"), [("SUBJECT = 'lineer'\n", "SUBJECT is 'lineer'"), ("a = 1\n", "name it with --as")]
)
def test_an_unknown_subject_is_one_line(source, message, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(source)
    with pytest.raises(UnknownSubject, match=message):
        diagnose(file)


def test_nan_is_said(tmp_path):
    file = tmp_path / "relu.py"
    file.write_text(HEAD + "def backward(g, x):\n    return g * forward(x) / x\n")
    found = diagnose(file)
    assert not found.ok
    assert "NaN" in next(part.words for part in found.parts if not part.ok)


def test_float32_noise_is_no_mistake():
    code = {
        "forward": lambda x: np.tanh(x.astype(np.float32)),
        "backward": lambda grad_output, x: grad_output * (1 - np.tanh(x.astype(np.float32)) ** 2),
    }
    assert diagnose(None, "tanh", code=code).ok


@pytest.mark.parametrize(
    ("file", "subject"),
    [
        ("network.py", "network"),
        ("my_linear_2.py", "linear"),
        ("BatchNorm2d.py", "batchnorm2d"),
        ("softmax_cross_entropy.py", "cross_entropy"),
        ("log_softmax.py", "log_softmax"),
    ],
)
def test_the_name_of_a_file_says_what_it_is(file, subject):
    assert subject_of(Path(file), None).name == subject
