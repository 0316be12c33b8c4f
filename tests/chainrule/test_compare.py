"""chainrule compare: recipes and a person's own file, what is printed, written and returned."""

import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

import nn_reference as nn
from chainrule import recipe as recipes
from chainrule.cli import run
from nn_reference import linear, relu

LAYER = """
import numpy as np


def forward(x, weight, bias):
    return x @ weight.T + bias, (x, weight)


def backward(cache, grad):
    x, weight = cache
    return grad @ weight, grad.T @ x, grad.sum(0)


def relu(x):
    return np.maximum(x, 0), x


def relu_backward(cache, grad):
    return grad * (cache >= 0)


def lonely_backward(cache, grad):
    return grad


class MyLinear:
    def __init__(self, i, o):
        self.W, self.b = np.zeros((i, o)), np.zeros(o)

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, grad):
        self.dW, self.db = self.x.T @ grad / len(grad), grad.sum(0)
        return grad @ self.W.T


class Nothing:
    def __init__(self, *args, **kwargs):
        raise RuntimeError("not today")


answer = 42
"""


@pytest.fixture
def layer(tmp_path):
    path = tmp_path / "my_layer.py"
    path.write_text(LAYER)
    return str(path)


def compare(*arguments):
    return run(["compare", "--dataset", "digits", *arguments])


# -- recipes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("recipe", recipes.known())
def test_every_recipe_agrees(recipe, dtype, capsys):
    size = "4" if "cnn" in recipe else "16"  # the truth in longdouble has no fast products
    assert compare(recipe, "--dtype", dtype, "--batch-size", size) == 0, capsys.readouterr().out
    out = capsys.readouterr().out
    assert f"in {dtype}" in out
    assert "They agree: each of" in out
    assert "error against truth" in out
    assert "too far apart" not in out


def test_every_intermediate_parameter_and_gradient_has_a_row(capsys):
    assert compare("simplenet", "--batch-size", "8", "--steps", "3", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    names = [row["name"] for row in data["tensors"]]
    layers = ["flatten", "fc1", "relu1", "fc2"]
    parameters = ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]
    expected = [f"{layer}.output" for layer in layers] + ["loss", "d loss / d inputs"]
    expected += [f"d loss / d {name}" for name in [*(f"{layer}.output" for layer in layers), *parameters]]
    expected += [f"{name} after {steps}" for name in parameters for steps in ("1 step", "3 steps")]
    assert sorted(names) == sorted(expected)
    assert data["agrees"] is True
    assert data["recipe"].startswith("simplenet")
    assert all(row["error"] <= row["limit"] for row in data["tensors"])
    assert all(row["reference_error"] < 1e-13 for row in data["tensors"] if " after " not in row["name"])


def test_the_same_seed_gives_the_same_report(capsys):
    outputs = []
    for seed in ("5", "5", "6"):
        compare("simplenet", "--batch-size", "8", "--seed", seed, "--json")
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] != outputs[2]


@pytest.mark.parametrize(
    ("where", "attribute", "wrong", "first"),
    [
        (linear, "sum_rows", lambda a, out=None: a.mean(0), "d loss / d fc2.bias"),
        (relu, "backward", lambda cache, grad_y, out=None: grad_y, "d loss / d fc1.output"),
        (nn.optim.Adam, "step", lambda self: None, "fc1.weight after 1 step"),
    ],
)
def test_a_mistake_in_the_engine_ends_with_status_1(where, attribute, wrong, first, monkeypatch, capsys):
    monkeypatch.setattr(where, attribute, wrong)
    assert compare("simplenet", "--batch-size", "8") == 1
    captured = capsys.readouterr()
    assert (
        f"the first tensor to part is {first}" in captured.out
        or f"first gradient to part is {first}" in captured.out
    )
    assert re.fullmatch(r"chainrule: They DISAGREE: \d+ of 18 tensors too far apart: .*\n", captured.err)


class Page(HTMLParser):
    """What matters of a page: its tags and addresses."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for key, value in attrs if key in ("src", "href", "xlink:href")]


def test_the_page_stands_alone(tmp_path, capsys):
    path = tmp_path / "out.html"
    assert compare("simplenet", "--batch-size", "8", "--report", str(path)) == 0
    text = path.read_text("utf-8")
    page = Page(text)
    assert "d loss / d fc1.weight" in text
    assert "They agree" in text
    assert page.addresses == []
    assert not {"script", "link", "img"} & set(page.tags)
    assert "url(" not in text
    assert page.tags.count("tr") == 1 + 18
    assert f"Report  {path}" in capsys.readouterr().out


# -- a person's own file --------------------------------------------------------------------------------


def test_own_functions_agree(layer, capsys):
    assert run(["compare", "--own", f"{layer}:backward", "--like", "torch.nn.Linear"]) == 0
    out = capsys.readouterr().out
    assert "d/dweight" in out
    assert "They agree: each of 4 tensors" in out
    args = ["--args", "3,2", "--input", "6,3", "--dtype", "float32"]
    assert run(["compare", "--own", f"{layer}:backward", "--like", "torch.nn.Linear", *args]) == 0
    assert "2x3" in capsys.readouterr().out


def test_a_wrong_layer_is_named_with_its_cause(layer, tmp_path, capsys):
    page = tmp_path / "<page>.html"
    arguments = ["--own", f"{layer}:MyLinear", "--like", "torch.nn.Linear", "--report", str(page)]
    assert run(["compare", *arguments]) == 1
    captured = capsys.readouterr()
    assert "likely cause: 4 times too small: divided by the batch size once too often" in captured.out
    assert f"Repeat chainrule compare --own {layer}:MyLinear --like torch.nn.Linear" in captured.out
    assert captured.err.startswith("chainrule: They DISAGREE: 1 of 4 tensors")
    assert captured.err.count("\n") == 1
    assert "TOO FAR APART" in page.read_text()


def test_the_forward_is_found_beside_the_backward(layer, capsys):
    assert run(["compare", "--own", f"{layer}:relu_backward", "--like", "torch.relu"]) == 1
    assert "wrong only where x is exactly 0: a kink or a tie" in capsys.readouterr().out


def test_names_are_escaped_in_the_page(tmp_path):
    folder = tmp_path / "<b>&"
    folder.mkdir()
    (folder / "my_layer.py").write_text(LAYER)
    page = tmp_path / "page.html"
    own = f"{folder}/my_layer.py:backward"
    assert run(["compare", "--own", own, "--like", "torch.nn.Linear", "--report", str(page)]) == 0
    assert "<b>&" not in page.read_text()
    assert "&lt;b&gt;&amp;" in page.read_text()


@pytest.mark.parametrize(
    ("own", "more", "status", "message"),
    [
        ("missing.py:backward", [], 1, "missing.py: there is no such file"),
        ("broken.py:backward", [], 1, "broken.py, line 1: "),
        ("raising.py:backward", [], 1, "raising.py, line 3: ZeroDivisionError: division by zero"),
        ("my_layer.py:bakward", [], 1, "has no bakward. It has forward, backward, "),
        ("my_layer.py:lonely_backward", [], 1, "there is no lonely_forward or lonely beside lonely_backward"),
        ("my_layer.py:forward", [], 2, "--own names the backward"),
        ("my_layer.py:answer", [], 1, "answer is a int, expected a function, a class or an object"),
        (
            "my_layer.py:Nothing",
            ["--args", "7,5,bias=False"],
            1,
            "constructor raises RuntimeError: not today",
        ),
        ("my_layer.py:MyLinear", ["--args", "7"], 1, "missing 1 required positional argument"),
        ("my_layer.py:MyLinear", ["--args", "7,"], 1, "missing 1 required positional argument"),
        ("my_layer.py:MyLinear", ["--args", "os.remove('x')"], 2, "--args takes arguments such as 7,5"),
        ("my_layer.py:MyLinear", ["--input", "4,x"], 2, "--input takes a shape such as 4,7; found '4,x'"),
        ("my_layer.py:MyLinear", ["--input", "4,9"], 1, "DISAGREE"),
        ("my_layer.py", [], 2, "--own is FILE.py:NAME"),
        ("my_layer.txt:backward", [], 2, "--own is FILE.py:NAME"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(own, more, status, message, layer, monkeypatch, capsys):
    folder = Path(layer).parent
    monkeypatch.chdir(folder)
    (folder / "broken.py").write_text("def backward(:\n")
    (folder / "raising.py").write_text("import math\n\nx = 1 / 0\n")
    assert run(["compare", "--own", own, "--like", "torch.nn.Linear", *more]) == status
    err = capsys.readouterr().err
    assert message in err
    assert err.startswith("chainrule: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--own", "a.py:b"], "--own needs --like"),
        (["simplenet", "--own", "a.py:b", "--like", "torch.relu"], "leave out the recipe 'simplenet'"),
        (["--like", "torch.relu"], "--like, --args and --input are for --own"),
        (["--steps", "-1"], "--steps must be at least 0, found -1"),
        (["--batch-size", "1"], "--batch-size must be at least 2, found 1"),
        (["--dtype", "float16"], "'float16' is not one of 'float64', 'float32'"),
        (["simplnet"], "Did you mean 'simplenet'?"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(arguments, message, capsys):
    assert run(["compare", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("like", "status", "message"),
    [
        ("torch.nn.Liner", 1, "torch.nn has no Liner. Did you mean 'Linear'?"),
        ("numpy.dot", 2, "--like is a name of PyTorch's"),
        ("torch.pi", 2, "--like torch.pi is a float"),
    ],
)
def test_an_unknown_counterpart(like, status, message, layer, capsys):
    assert run(["compare", "--own", f"{layer}:backward", "--like", like]) == status
    assert message in capsys.readouterr().err


def test_a_batch_larger_than_the_data(capsys):
    assert compare("--batch-size", "2000") == 1
    assert "--batch-size is 2000, " in capsys.readouterr().err


def test_what_own_code_prints_is_no_part_of_the_report(tmp_path, capsys):
    file = tmp_path / "layer.py"
    file.write_text(LAYER.replace("    return np.maximum", "    print('here')\n    return np.maximum"))
    compare("--own", f"{file}:relu_backward", "--like", "torch.nn.ReLU", "--json")
    assert json.loads(capsys.readouterr().out)["agrees"] is False


def test_a_file_that_ends_the_program_is_one_line(tmp_path, capsys):
    file = tmp_path / "layer.py"
    file.write_text("import sys\n\nsys.exit('done')\n")
    assert compare("--own", f"{file}:backward", "--like", "torch.nn.ReLU") == 1
    assert capsys.readouterr().err == f"chainrule: {file}, line 3: SystemExit: done\n"


def test_a_report_in_no_folder_is_said_before_anything_is_computed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("agreement.compare_networks", None)
    assert compare("simplenet", "--report", str(tmp_path / "no" / "out.html")) == 1
    assert "there is no such folder" in capsys.readouterr().err


def test_an_exception_in_the_engine_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(linear, "sum_rows", None)
    assert compare("simplenet", "--batch-size", "8") == 1
    assert re.fullmatch(
        r"chainrule: nn_reference/linear.py, line \d+: TypeError: 'NoneType' .*\n", capsys.readouterr().err
    )


def test_help_has_examples(capsys):
    assert run(["compare", "--help"]) == 0
    assert "Example: chainrule compare" in " ".join(capsys.readouterr().out.split())


def test_make_compare_exists():
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    assert re.search(r"^COMPARED \?= simplenet cnn-same$", makefile, flags=re.MULTILINE)
    shown = subprocess.run(
        ["make", "-n", "compare", "COMPARED=simplenet"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert "chainrule compare $recipe" in shown.stdout
