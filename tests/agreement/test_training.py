"""Locked training: right engines stay together and raise no alarm; wrong ones are not excused."""

import re
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nn_reference as nn
from agreement import Twins, exact, locked_training
from agreement.allowances import one_ulp_away, sum_limit, update_magnitudes
from agreement.measures import unit_roundoff
from agreement.mutants import NETWORKS
from agreement.mutants import OPTIMIZERS as MISTAKEN_OPTIMIZERS
from agreement.training import batches


def mlp(library):
    return library.Sequential(
        OrderedDict(fc1=library.Linear(20, 15), relu1=library.ReLU(), fc2=library.Linear(15, 5))
    )


def cnn(library, bias=False):
    return library.Sequential(
        OrderedDict(
            conv1=library.Conv2d(1, 3, 3, padding=1, bias=bias),
            bn1=library.BatchNorm2d(3),
            relu1=library.ReLU(),
            pool1=library.MaxPool2d(2),
            flatten=library.Flatten(),
            drop1=library.Dropout(0.3),
            fc1=library.Linear(27, 5),
        )
    )


def seeded(build, seed=0):
    """The start of a network, the same in every run of the tests."""
    network, rng = build(nn), np.random.default_rng(seed)
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.reset_affine(module.weight, module.bias, rng)
    return network.state_dict()


def twins(build, optimizer, seed=0, **more):
    return Twins(
        build, lambda library: library.CrossEntropyLoss(), optimizer, start=seeded(build, seed), **more
    )


def data(shape, seed=0, count=120):
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 5, count)
    return rng.standard_normal((count, *shape)) + 0.5 * targets.reshape(-1, *(1,) * len(shape)), targets


SHAPES = {mlp: (20,), cnn: (1, 6, 6)}
OPTIMIZERS = {
    "sgd": lambda optim, parameters: optim.SGD(parameters, lr=0.02, momentum=0.9),
    "adam": lambda optim, parameters: optim.Adam(parameters, lr=1e-3),
    "adamw": lambda optim, parameters: optim.AdamW(parameters, lr=1e-3),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(("build", "steps"), [(mlp, 1000), (cnn, 100)], ids=["mlp", "cnn"])
def test_free_runs_in_float64_stay_within_1e_12(build, steps, name):
    report = locked_training(
        twins(build, OPTIMIZERS[name]), *data(SHAPES[build]), steps=steps, batch_size=12, control=False
    )
    assert report.together, str(report)
    assert not report.compared
    assert report.losses[-20:].mean() < 0.8 * report.losses[:20].mean(), "nothing was learnt"
    assert report.distance[-1] > 0, "two engines that differ in nothing are one engine"
    assert report.distance.shape == (steps + 1,)
    assert set(report.tensors) >= {name for name, _ in build(nn).named_parameters()}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("build", SHAPES, ids=lambda build: build.__name__)
def test_float32_agrees_when_the_state_is_locked(build, name):
    report = locked_training(
        twins(build, OPTIMIZERS[name]), *data(SHAPES[build]), steps=30, batch_size=12, dtype=np.float32
    )
    assert report.agrees, str(report)
    assert report.compared
    phases = {(point.phase, point.tensor) for _, point, _ in report.worst}
    assert {("forward", "output"), ("backward", "weight"), ("backward", "grad_input")} <= phases
    assert any(point.phase == "update" for _, point, _ in report.worst)
    assert report.distance.max() > 1e-9, "float32 was asked for"


LAYERS = st.sampled_from(["Linear", "ReLU", "LeakyReLU", "Tanh", "Sigmoid", "SiLU", "BatchNorm1d", "Dropout"])


@st.composite
def tasks(draw):
    """A random right network, as a function of the library, and how it is trained."""
    width = first = draw(st.integers(2, 7))
    parts = []
    for kind in draw(st.lists(LAYERS, min_size=1, max_size=6)):
        if kind == "Linear":
            parts.append((kind, (width, width := draw(st.integers(2, 7)))))
        else:
            parts.append((kind, {"BatchNorm1d": (width,), "Dropout": (0.4,)}.get(kind, ())))
    parts.append(("Linear", (width, 5)))

    def build(library):
        return library.Sequential(*(getattr(library, kind)(*arguments) for kind, arguments in parts))

    rate = draw(st.sampled_from([1e-3, 1e-2, 0.1]))
    optimizer = draw(
        st.sampled_from(
            [
                lambda o, p: o.SGD(p, lr=rate, momentum=0.9, nesterov=True),
                lambda o, p: o.SGD(p, lr=rate, momentum=0.5, dampening=0.3, weight_decay=1e-2, maximize=True),
                lambda o, p: o.Adam(p, lr=rate / 10, weight_decay=1e-2, amsgrad=True),
                lambda o, p: o.AdamW(p, lr=rate / 10),
            ]
        )
    )
    clip = draw(st.sampled_from([None, 0.1]))
    schedule = draw(
        st.sampled_from(
            [
                None,
                lambda s, o: s.StepLR(o, 4, 0.5),
                lambda s, o: s.OneCycleLR(o, max_lr=rate, total_steps=50),
            ]
        )
    )
    return build, first, optimizer, clip, schedule


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tasks(), st.sampled_from([np.float32, np.float64]), st.integers(0, 10**6))
def test_right_networks_raise_no_alarm(task, dtype, seed):
    build, width, optimizer, clip, schedule = task
    pair = twins(build, optimizer, seed, clip=clip, schedule=schedule)
    report = locked_training(
        pair, *data((width,), seed), steps=8, batch_size=9, dtype=dtype, locked=True, seed=seed
    )
    assert report.agrees, str(report)


def test_a_bias_before_batch_normalisation_is_no_mistake():
    # Its gradient is zero in exact arithmetic, so the engines have nothing but rounding there; and Adam makes
    # steps of it, which in float64 too carry the free runs apart.
    pair = twins(lambda library: cnn(library, bias=True), OPTIMIZERS["adam"])
    for dtype in (np.float32, np.float64):
        report = locked_training(pair, *data(SHAPES[cnn]), steps=15, batch_size=12, dtype=dtype, locked=True)
        assert report.agrees, str(report)


def test_a_difference_smaller_than_any_fixed_tolerance_is_seen(monkeypatch):
    right = nn.Linear._backward

    def off_by_a_billionth(self, cache, grad_y, need_grad_x):
        grad_x = right(self, cache, grad_y, need_grad_x)
        self.weight.grad *= 1 + 1e-9
        return grad_x

    monkeypatch.setattr(nn.Linear, "_backward", off_by_a_billionth)
    report = locked_training(twins(mlp, OPTIMIZERS["sgd"]), *data((20,)), steps=20, batch_size=12)
    assert not report.agrees
    assert report.difference.point == ("backward", "fc2", "weight")


def test_the_control_starts_one_ulp_away_and_zeros_stay():
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        weights = {"w": rng.standard_normal((50, 3)).astype(dtype), "b": np.zeros(4, dtype), "n": np.array(3)}
        moved = one_ulp_away(weights, 0)
        assert (moved["w"] != weights["w"]).all()
        assert (np.abs(moved["w"] - weights["w"]) <= np.spacing(np.abs(weights["w"]))).all()
        assert {np.sign(d) for d in (moved["w"] - weights["w"]).ravel()} == {-1, 1}
        assert not moved["b"].any()
        assert moved["n"] == 3
        assert moved["w"].dtype == dtype
    report = locked_training(twins(mlp, OPTIMIZERS["sgd"]), *data((20,)), steps=5, batch_size=12)
    assert 1e-17 < report.control[0] < 3e-16


def test_a_free_float32_run_far_beyond_its_control_is_an_alarm():
    report = locked_training(
        twins(mlp, OPTIMIZERS["sgd"]), *data((20,)), steps=10, batch_size=12, dtype=np.float32
    )
    assert report.agrees
    assert not replace(report, distance=report.distance + 1e-2).agrees


@pytest.mark.parametrize("clip", [None, 0.05])
def test_dropout_masks_are_handed_over(clip):
    pair = twins(cnn, OPTIMIZERS["sgd"], clip=clip)
    report = locked_training(pair, *data(SHAPES[cnn]), steps=20, batch_size=12, control=False)
    assert report.together, str(report)
    other = locked_training(pair, *data(SHAPES[cnn]), steps=20, batch_size=12, control=False, seed=1)
    assert (other.losses != report.losses).any()


def test_what_is_given_is_not_changed_and_runs_repeat():
    ours, theirs = mlp(nn), mlp(torch.nn)
    before = ours.state_dict(), {k: v.clone() for k, v in theirs.state_dict().items()}
    pair = Twins((ours, theirs), (nn.CrossEntropyLoss(), torch.nn.CrossEntropyLoss()), OPTIMIZERS["adam"])
    first, second = (locked_training(pair, *data((20,)), steps=15, batch_size=12) for _ in range(2))
    assert first.agrees
    assert (first.distance == second.distance).all()
    assert (first.control == second.control).all()
    assert all((ours.state_dict()[key] == value).all() for key, value in before[0].items())
    assert all((theirs.state_dict()[key] == value).all() for key, value in before[1].items())


def test_regression_targets_and_three_dimensional_inputs():
    rng = np.random.default_rng(0)
    pair = Twins(lambda lib: lib.Linear(4, 3), lambda lib: lib.MSELoss(), OPTIMIZERS["sgd"])
    inputs, targets = rng.standard_normal((30, 2, 4)), rng.standard_normal((30, 2, 3))
    for dtype in (np.float32, np.float64):
        report = locked_training(pair, inputs, targets, steps=20, batch_size=7, dtype=dtype, locked=True)
        assert report.agrees, str(report)


def test_batches_are_full_and_cover_every_example_of_an_epoch():
    x = np.arange(23)
    run = list(batches(x, 10 * x, 5, 9, seed=4))
    assert [len(a) for a, _ in run] == [5] * 9
    assert all((10 * a == b).all() for a, b in run)
    assert len(set(np.concatenate([a for a, _ in run[:4]]).tolist())) == 20
    assert (run[0][0] != run[4][0]).any()


def test_bad_arguments_are_named():
    inputs, targets = data((20,))
    pair = twins(mlp, OPTIMIZERS["sgd"])
    with pytest.raises(ValueError, match=r"120 inputs, but 119 targets"):
        locked_training(pair, inputs, targets[1:])
    with pytest.raises(ValueError, match=r"batch_size=121, expected 1 to 120"):
        locked_training(pair, inputs, targets, batch_size=121)
    other = Twins((mlp(nn), torch.nn.Linear(20, 5)), (nn.MSELoss(), torch.nn.MSELoss()), OPTIMIZERS["sgd"])
    with pytest.raises(ValueError, match=r"the shape of bias is missing in our network, \(5,\) in torch's"):
        locked_training(other, inputs, targets)


def test_a_run_that_diverges_is_refused_in_words():
    pair = Twins(
        lambda library: library.Linear(4, 3),
        lambda library: library.MSELoss(),
        lambda optim, parameters: optim.SGD(parameters, lr=1e9),
    )
    inputs = np.random.default_rng(0).standard_normal((8, 4))
    with pytest.raises(ValueError, match=r"PyTorch's loss is (inf|nan) in step \d+, expected a finite one"):
        locked_training(pair, inputs, inputs[:, :3], steps=200, batch_size=4, dtype=np.float32)


def test_an_adam_update_may_differ_by_16_u_of_its_terms_and_no_more():
    rng = np.random.default_rng(0)
    shape, u = (400, 300), unit_roundoff(np.float32)
    w, g, m = (rng.standard_normal(shape).astype(np.float32) * s for s in (0.1, 1e-2, 1e-2))
    g[:10] *= 1e-7  # of the size of eps, where lr g / (|g| + eps) is steepest
    m[:20] = -g[:20] * 0.1 / 0.9  # the new moment cancels
    v = (g * g * rng.uniform(0, 3, shape)).astype(np.float32)
    settings = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-2}

    ours = [a.copy() for a in (w, m, v)]
    nn.optim.adam.update(ours[0], g, *ours[1:], step=7, **settings)
    parameter = torch.nn.Parameter(torch.tensor(w))
    optimizer = torch.optim.Adam([parameter], **settings)
    start = {"step": torch.tensor(6.0), "exp_avg": torch.tensor(m), "exp_avg_sq": torch.tensor(v)}
    optimizer.state[parameter] = start
    parameter.grad = torch.tensor(g)
    optimizer.step()
    theirs = [parameter.detach().numpy(), start["exp_avg"].numpy(), start["exp_avg_sq"].numpy()]

    new = {"step": 7, "exp_avg": theirs[1], "exp_avg_sq": theirs[2]}
    magnitudes = update_magnitudes(w, theirs[0], g, {"exp_avg": m, "exp_avg_sq": v}, new, settings)
    for key, a, b in zip(("parameter", "exp_avg", "exp_avg_sq"), ours, theirs, strict=True):
        assert (np.abs(a - b) <= 16 * u * magnitudes[key]).all(), key
        size = np.abs(b).max() if key != "parameter" else 0.1
        assert np.median(magnitudes[key]) < 20 * size, "a limit that allows everything"


def test_a_long_sum_is_allowed_more_than_a_short_one():
    u = unit_roundoff(np.float32)
    assert sum_limit(10, np.float32) == 16 * u
    assert sum_limit(10_000, np.float32) == 400 * u


@pytest.mark.parametrize("control", [True, False])
def test_the_picture_is_drawn_with_lines_labels_and_the_flip(control):
    from matplotlib.figure import Figure

    from agreement import plots
    from agreement.bisect import Flip

    report = locked_training(
        twins(mlp, OPTIMIZERS["sgd"]), *data((20,)), steps=10, batch_size=12, control=control
    )
    report = replace(report, parted=Flip(3, "relu1", "ReLU", (0, 0), 1e-9, -1e-9))
    assert plots.distances({"float64": report}, "title")[:8] == b"\x89PNG\r\n\x1a\n"
    axes = Figure().subplots()
    plots._panel(axes, report)
    curves = [line for line in axes.lines if len(line.get_xdata()) > 2]
    assert [line.get_linestyle() for line in curves] == ["-", "--"][: 1 + control]
    texts = [text.get_text() for text in axes.texts]
    assert "ours from PyTorch's" in texts
    assert "first flip:\nrelu1, step 3" in texts


def sgd(optim, parameters):
    return optim.SGD(parameters, lr=0.05, momentum=0.9)


def digits_like(count=150):
    """Numbers of few bits, so that sums hardly depend on their order."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 20)) / 256, rng.integers(0, 5, count)


def test_exact_training_agrees_in_every_bit():
    twins = Twins(mlp, lambda library: library.CrossEntropyLoss(), sgd, start=seeded(mlp))
    report = locked_training(twins, *digits_like(), steps=40, batch_size=32, exact=True)
    assert report.agrees
    assert report.steps == 40
    assert report.losses[-1] < report.losses[0]


def test_exact_training_sees_a_mistake_of_one_unit_of_rounding(monkeypatch):
    monkeypatch.setattr(exact, "multiply_add", lambda a, b, c: (a * np.float32(b) + c).astype(np.float32))
    twins = Twins(mlp, lambda library: library.CrossEntropyLoss(), sgd, start=seeded(mlp))
    report = locked_training(twins, *digits_like(), steps=3, batch_size=32, exact=True)
    assert not report.agrees
    assert report.first.tensor.startswith(("fc1", "fc2"))


@pytest.mark.parametrize(
    ("loss", "optimizer", "more", "message"),
    [
        (lambda nn: nn.CrossEntropyLoss(label_smoothing=0.1), sgd, {}, "the loss must be CrossEntropyLoss"),
        (lambda nn: nn.CrossEntropyLoss(reduction="sum"), sgd, {}, "the loss must be CrossEntropyLoss"),
        (lambda nn: nn.CrossEntropyLoss(), lambda optim, p: optim.Adam(p), {}, "the optimizer must be SGD"),
        (lambda nn: nn.CrossEntropyLoss(), sgd, {"clip": 1.0}, "neither a schedule nor clipping"),
        (lambda nn: nn.CrossEntropyLoss(), lambda o, p: o.SGD(p, maximize=True), {}, "SGD must minimise"),
    ],
)
def test_exact_training_refuses_what_it_cannot_repeat(loss, optimizer, more, message):
    with pytest.raises(NotImplementedError, match=message):
        locked_training(Twins(mlp, loss, optimizer, **more), *digits_like(), exact=True)


def test_the_sample_of_the_docs_page_runs_and_counts_right():
    page = (Path(__file__).parents[2] / "docs" / "locked-training.md").read_text(encoding="utf-8")
    (sample,) = re.findall(r"^```python\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    exec(sample, {})
    assert f"hold {len(NETWORKS)} mistakes" in page
    assert f"and {len(MISTAKEN_OPTIMIZERS)} in\nupdates" in page
