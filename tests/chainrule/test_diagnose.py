"""``chainrule diagnose``, as a learner types it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WRONG = {
    "linear.py": (
        "def forward(x, w, b):\n    return x @ w.T + b\ndef backward(g, x, w, b):\n"
        "    return g @ w, g.T @ x, g\n",
        "Linear: bias not summed",
    ),
    "my_softmax.py": (
        "import numpy as np\ndef forward(z):\n    e = np.exp(z)\n    return e / e.sum(1, keepdims=True)\n"
        "def backward(g, z):\n    return g * forward(z)\n",
        "Softmax: normaliser is constant",
    ),
    "mutant.py": (
        "SUBJECT = 'max_pool2d'\nfrom agreement.mutants import ALL\nimport nn_reference as nn\n"
        "mutant = next(m for m in ALL if m.name == 'MaxPool2d: maximum overwritten')\n"
        "planted = mutant.planted()\nplanted.__enter__()\nMaxPool2d = nn.MaxPool2d\n",
        "MaxPool2d: maximum overwritten",
    ),
    "adam.py": (
        "import numpy as np\ndef step(w, g, m, v, t, lr=0.01, beta1=0.9, beta2=0.999, eps=1e-8):\n"
        "    m = beta1 * m + (1 - beta1) * g\n    v = beta2 * v + (1 - beta2) * g * g\n"
        "    return w - lr * m / (np.sqrt(v) + eps), m, v\n",
        "adam-no-bias-correction",
    ),
}


def run(folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    command = [sys.executable, "-m", "chainrule", "diagnose", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_named_and_the_exit_status_is_1(name, tmp_path):
    source, mistake = WRONG[name]
    (tmp_path / name).write_text(source)
    done = run(tmp_path, name, "--json")
    assert done.returncode == 1, done.stderr
    assert not done.stderr
    found = json.loads(done.stdout)
    assert [candidate["name"] for candidate in found["candidates"]] == [mistake], found
    assert not found["ok"]


def test_right_code_is_called_right(tmp_path):
    (tmp_path / "sums.py").write_text(
        "def forward(x, w, b):\n    return x @ w.T + b\ndef backward(g, x, w, b):\n"
        "    return {'db': g.sum(0), 'dw': g.T @ x, 'dx': g @ w}\n"
    )
    done = run(tmp_path, "sums.py", "--as", "linear")
    assert done.returncode == 0, done.stdout
    assert "Everything is right." in done.stdout
    assert not done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["none.py"], 1, "there is no such file"),
        (["none.txt"], 2, "takes a Python file"),
        (["there.py"], 2, "name it with --as"),
        (["there.py", "--as", "nothing"], 2, "'nothing' is no subject"),
        (["there.py", "--as", "relu", "--seconds", "0"], 2, "--seconds must be above 0"),
    ],
)
def test_wrong_usage_is_one_line(arguments, status, message, tmp_path):
    (tmp_path / "there.py").write_text("a = 1\n")
    done = run(tmp_path, *arguments)
    assert done.returncode == status
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
