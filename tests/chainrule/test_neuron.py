"""One neuron, one step: the published numbers, and three ways to one derivative."""

import json

import numpy as np
import pytest

from chainrule.cli import run
from chainrule.neuron import ACTIVATIONS, Neuron, autograd, finite_difference, step

CLASSIC = Neuron(x=(1.0, 2.0), w=(0.1, 0.5), b=0.2, target=0.8)


def test_the_classic_step():
    found = step(CLASSIC, learning_rate=0.01)
    assert found.z == pytest.approx(1.3, rel=1e-15)
    assert found.a == pytest.approx(1.3, rel=1e-15)
    assert found.loss == pytest.approx(0.25, rel=1e-15)
    assert found.dL_da == pytest.approx(1.0, rel=1e-15)
    assert found.da_dz == 1
    assert found.dL_dw == pytest.approx((1, 2), rel=1e-15)
    assert found.dL_db == pytest.approx(1, rel=1e-15)
    assert found.w_after == pytest.approx((0.09, 0.48), rel=1e-15)
    assert found.b_after == pytest.approx(0.19, rel=1e-15)
    assert found.loss_after < found.loss


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("seed", range(5))
def test_backward_autograd_and_finite_difference_agree(activation, seed):
    rng = np.random.default_rng(seed)
    x, w = rng.standard_normal((2, 3))
    neuron = Neuron(
        tuple(x), tuple(w), float(rng.standard_normal()), float(rng.standard_normal()), activation
    )
    found = step(neuron, learning_rate=0.1)
    for (grad_w, grad_b), tolerance in ((autograd(neuron), 1e-14), (finite_difference(neuron), 1e-8)):
        assert found.dL_dw == pytest.approx(grad_w, rel=tolerance, abs=tolerance)
        assert found.dL_db == pytest.approx(grad_b, rel=tolerance, abs=tolerance)
    assert found.dL_dz == pytest.approx(found.dL_da * found.da_dz, rel=1e-15)


def test_a_neuron_that_is_off_learns_nothing():
    found = step(Neuron((1.0,), (-1.0,), 0.0, 1.0), learning_rate=0.5)
    assert (found.da_dz, found.dL_dw, found.w_after) == (0, (0,), (-1,))


@pytest.mark.parametrize(("b", "near"), [("-1.1", True), ("-1.0999999", True), ("-1.09", False)])
def test_a_difference_across_the_kink_is_said_to_be_one(capsys, b, near):
    assert run(["explain", "neuron", "--b", b]) == 0
    assert ("z is at relu's kink" in capsys.readouterr().out) == near


def test_numbers_that_overflow_are_one_line(capsys):
    assert run(["explain", "neuron", "--x", "1e200,1", "--json"]) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert "overflow" in captured.err


def test_the_screen_names_every_factor(capsys):
    assert run(["explain", "neuron"]) == 0
    text = capsys.readouterr().out
    lines = {line.split("=")[0].strip(): line for line in text.splitlines() if "=" in line}
    assert lines["z"].split()[-1] == "1.3"
    assert lines["L"].split()[-1] == "0.25"
    assert lines["dL/da"].split()[-1] == "1"
    assert lines["dL/dw"].endswith("= (1, 2)")
    assert "= (0.09, 0.48)" in text
    assert "= 0.19" in text
    assert "autograd" in text
    assert "finite difference" in text


def test_json_holds_the_same_numbers(capsys):
    assert (
        run(
            [
                "explain",
                "neuron",
                "--activation",
                "tanh",
                "--x",
                "-1,2,0.5",
                "--w",
                "1,-1,3",
                "--lr",
                "0.1",
                "--json",
            ]
        )
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    expected = step(Neuron((-1, 2, 0.5), (1, -1, 3), 0.2, 0.8, "tanh"), 0.1)
    assert found["dL_dw"] == list(expected.dL_dw)
    assert found["autograd"]["dL_dw"] == pytest.approx(found["dL_dw"])
    assert found["finite_difference"]["dL_db"] == pytest.approx(found["dL_db"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--x", "1,2,3"], "one weight for each input: found 3 and 2"),
        (["--x", "1,two"], "--x takes numbers separated by commas, such as 1,2; found '1,two'"),
        (["--w", "nan,1"], "--w takes finite numbers, found 'nan,1'"),
        (["--x", "1_0,2"], "found '1_0,2'"),
        (["--b", "inf"], "--b must be a finite number, found inf"),
        (["--activation", "gelu"], "'gelu' is not one of 'relu', 'sigmoid', 'tanh'"),
    ],
)
def test_wrong_numbers_are_one_line(arguments, message, capsys):
    assert run(["explain", "neuron", *arguments]) == 2
    assert message in capsys.readouterr().err
