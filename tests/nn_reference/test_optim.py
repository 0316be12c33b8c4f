"""Optimizers and schedulers beside PyTorch's: 100 steps on the same gradients, in float64."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import nn_reference as nn
from nn_reference import optim
from nn_reference.optim import lr_scheduler

rates = st.floats(1e-4, 0.1)
OPTIMIZERS = {
    "SGD": st.fixed_dictionaries(
        {"lr": rates},
        optional={
            "momentum": st.sampled_from([0.5, 0.9]),
            "dampening": st.just(0.3),
            "weight_decay": st.sampled_from([1e-4, 0.1]),
            "maximize": st.booleans(),
        },
    )
    | st.fixed_dictionaries({"lr": rates, "momentum": st.just(0.9), "nesterov": st.just(True)}),
    **dict.fromkeys(
        ["Adam", "AdamW"],
        st.fixed_dictionaries(
            {"lr": rates},
            optional={
                "betas": st.sampled_from([(0.9, 0.999), (0.5, 0.9), (0.0, 0.99)]),
                "eps": st.sampled_from([1e-8, 1e-3]),
                "weight_decay": st.sampled_from([0.0, 1e-4, 0.1]),
                "amsgrad": st.booleans(),
                "maximize": st.booleans(),
            },
        ),
    ),
}


def two_sets_of_parameters(rng, dtype=np.float64):
    values = [rng.normal(size=shape).astype(dtype) for shape in ((3, 4), (5,), (2, 2))]
    return [nn.Parameter(v.copy()) for v in values], [torch.nn.Parameter(torch.from_numpy(v)) for v in values]


def step_both(ours, theirs, optimizer, their_optimizer, rng):
    """One step on the same random gradients, some of them zero."""
    for p, q in zip(ours, theirs, strict=True):
        g = rng.normal(size=p.shape) * (rng.random(p.shape) < 0.9)
        p.grad, q.grad = g.astype(p.dtype), torch.from_numpy(g.astype(p.dtype))
        p.grad.flags.writeable = False  # the optimizer may not touch it
    optimizer.step()
    their_optimizer.step()


def assert_same(ours, theirs, tolerance=1e-13):
    for p, q in zip(ours, theirs, strict=True):
        q = q.detach().numpy()
        assert np.abs(p.data - q).max() <= tolerance * np.abs(q).max()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_hundred_steps(name):
    @settings(max_examples=12, deadline=None, database=None)
    @given(OPTIMIZERS[name])
    def run(keywords):
        rng = np.random.default_rng(0)
        ours, theirs = two_sets_of_parameters(rng)
        optimizer = getattr(optim, name)(ours, **keywords)
        their_optimizer = getattr(torch.optim, name)(theirs, **keywords)
        for _ in range(100):
            step_both(ours, theirs, optimizer, their_optimizer, rng)
        assert_same(ours, theirs)

    run()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_defaults_are_torchs(name):
    ours, theirs = two_sets_of_parameters(np.random.default_rng(0))
    mine = getattr(optim, name)(ours).param_groups[0]
    other = getattr(torch.optim, name)(theirs).param_groups[0]
    assert {k: v for k, v in mine.items() if k != "params"} == {k: other[k] for k in mine if k != "params"}
    left_out = {k: v for k, v in other.items() if k not in mine}
    assert not any(left_out.values())  # all of them are ways to run, and off


def test_parameter_groups_have_settings_of_their_own():
    rng = np.random.default_rng(1)
    ours, theirs = two_sets_of_parameters(rng)
    groups = lambda p: [{"params": p[:1], "lr": 0.1, "weight_decay": 0.0}, {"params": p[1:]}]  # noqa: E731
    optimizer = optim.AdamW(groups(ours), lr=1e-3)
    their_optimizer = torch.optim.AdamW(groups(theirs), lr=1e-3)
    for _ in range(20):
        step_both(ours, theirs, optimizer, their_optimizer, rng)
    assert_same(ours, theirs)
    with pytest.raises(ValueError, match="a parameter is listed twice"):
        optimizer.add_param_group({"params": ours[0]})
    lines = repr(optimizer).splitlines()
    assert lines[:2] == repr(their_optimizer).splitlines()[:2]
    assert "    lr: 0.1" in lines


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("source", ["ours", "torch's"])
def test_state_dict_continues_where_it_was(name, source):
    rng = np.random.default_rng(2)
    keywords = {"momentum": 0.9} if name == "SGD" else {"amsgrad": True}
    ours, theirs = two_sets_of_parameters(rng)
    optimizer = getattr(optim, name)(ours, lr=0.05, **keywords)
    their_optimizer = getattr(torch.optim, name)(theirs, lr=0.05, **keywords)
    for _ in range(10):
        step_both(ours, theirs, optimizer, their_optimizer, rng)
    resumed = getattr(optim, name)(ours)
    state = optimizer.state_dict() if source == "ours" else their_optimizer.state_dict()
    resumed.load_state_dict(state)
    for _ in range(10):
        step_both(ours, theirs, resumed, their_optimizer, rng)
    assert_same(ours, theirs)
    assert resumed.param_groups[0]["lr"] == 0.05


def test_momentum_turned_on_after_resuming_without():
    rng = np.random.default_rng(5)
    ours, theirs = two_sets_of_parameters(rng)
    their_optimizer = torch.optim.SGD(theirs, lr=0.05)
    optimizer = optim.SGD(ours, lr=0.05)
    step_both(ours, theirs, optimizer, their_optimizer, rng)
    optimizer.load_state_dict(their_optimizer.state_dict())
    optimizer.param_groups[0]["momentum"] = their_optimizer.param_groups[0]["momentum"] = 0.9
    for _ in range(5):
        step_both(ours, theirs, optimizer, their_optimizer, rng)
    assert_same(ours, theirs)


def test_a_state_dict_that_does_not_fit_is_refused():
    ours, _ = two_sets_of_parameters(np.random.default_rng(0))
    optimizer = optim.SGD(ours, lr=0.1, momentum=0.9)
    with pytest.raises(ValueError, match=r"groups of \[2\] parameters, expected \[3\]"):
        optimizer.load_state_dict(optim.SGD(ours[:2], lr=0.1).state_dict())
    state = {
        "state": {0: {"momentum_buffer": np.ones(7)}},
        "param_groups": [{"params": [0, 1, 2], "lr": 9.0}],
    }
    with pytest.raises(ValueError, match=r"momentum_buffer has shape \(7,\), expected \(3, 4\)"):
        optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_float32_stays_float32(name):
    rng = np.random.default_rng(3)
    ours, theirs = two_sets_of_parameters(rng, np.float32)
    keywords = {"momentum": 0.9, "nesterov": True} if name == "SGD" else {"amsgrad": True}
    optimizer = getattr(optim, name)(ours, lr=np.float64(0.01), weight_decay=np.float64(0.1), **keywords)
    their_optimizer = getattr(torch.optim, name)(theirs, lr=0.01, weight_decay=0.1, **keywords)
    for _ in range(10):
        step_both(ours, theirs, optimizer, their_optimizer, rng)
    arrays = [v for state in optimizer.state.values() for v in state.values() if isinstance(v, np.ndarray)]
    assert {a.dtype for a in [*arrays, *(p.data for p in ours)]} == {np.dtype(np.float32)}
    assert_same(ours, theirs, 1e-6)


def test_a_parameter_without_gradient_is_left_alone():
    ours, _ = two_sets_of_parameters(np.random.default_rng(0))
    before = [p.data.copy() for p in ours]
    ours[1].grad = np.ones_like(ours[1].data)
    optimizer = optim.Adam(ours)
    optimizer.step()
    assert [np.array_equal(p.data, b) for p, b in zip(ours, before, strict=True)] == [True, False, True]
    assert optimizer.step(lambda: 5.0) == 5.0
    optimizer.zero_grad()
    assert ours[1].grad is None


# -- clipping -------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm_type", [1.0, 2.0, np.inf])
@pytest.mark.parametrize("max_norm", [0.5, 1e3])
def test_clip_grad_norm(norm_type, max_norm):
    rng = np.random.default_rng(4)
    for dtype, tolerance in ((np.float64, 1e-14), (np.float32, 1e-6)):
        ours, theirs = two_sets_of_parameters(rng, dtype)
        for p, q in zip(ours, theirs, strict=True):
            p.grad = rng.normal(size=p.shape).astype(dtype)
            q.grad = torch.from_numpy(p.grad.copy())
        ours[2].grad = theirs[2].grad = None
        norm = nn.utils.clip_grad_norm_(ours, max_norm, norm_type)
        their_norm = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)
        assert norm.dtype == dtype
        assert norm == pytest.approx(their_norm.item(), rel=tolerance)
        for p, q in zip(ours[:2], theirs[:2], strict=True):
            assert p.grad.dtype == dtype
            np.testing.assert_allclose(p.grad, q.grad.numpy(), rtol=4 * tolerance)
    ours[0].grad[...] = np.nan
    with pytest.raises(ValueError, match="norm of the gradients is nan"):
        nn.utils.clip_grad_norm_(ours, 1.0, error_if_nonfinite=True)


# -- schedulers -----------------------------------------------------------------------------------

factors = st.floats(0.1, 0.99)
SCHEDULERS = {
    "StepLR": st.fixed_dictionaries({"step_size": st.integers(1, 30), "gamma": factors}),
    "MultiStepLR": st.fixed_dictionaries(
        {"milestones": st.lists(st.integers(0, 90), max_size=5), "gamma": factors}
    ),
    "ExponentialLR": st.fixed_dictionaries({"gamma": factors}),
    "CosineAnnealingLR": st.fixed_dictionaries(
        {"T_max": st.integers(1, 70), "eta_min": st.sampled_from([0, 1e-3])}
    ),
    "LinearLR": st.fixed_dictionaries(
        {},
        optional={
            "start_factor": factors,
            "end_factor": st.floats(0.0, 1.0),
            "total_iters": st.integers(1, 120),
        },
    ),
    "OneCycleLR": st.fixed_dictionaries(
        {"max_lr": st.sampled_from([0.1, [0.1, 0.3]]), "total_steps": st.integers(100, 130)},
        optional={
            "pct_start": st.floats(0.05, 0.45),
            "anneal_strategy": st.sampled_from(["cos", "linear"]),
            "cycle_momentum": st.booleans(),
            "three_phase": st.booleans(),
            "div_factor": st.just(10.0),
            "final_div_factor": st.just(100.0),
        },
    ),
}


def two_optimizers(name="Adam"):
    ours, theirs = two_sets_of_parameters(np.random.default_rng(0))
    groups = lambda p: [{"params": p[:1]}, {"params": p[1:], "lr": 0.3}]  # noqa: E731
    keywords = {"lr": 0.05, **({"momentum": 0.9} if name == "SGD" else {})}
    return getattr(optim, name)(groups(ours), **keywords), getattr(torch.optim, name)(
        groups(theirs), **keywords
    )


def settings_of(optimizer):
    """Learning rates, and the momenta that a schedule may change."""
    return [
        (group["lr"], group.get("momentum", group.get("betas", (None,)) and group.get("betas", (0,))[0]))
        for group in optimizer.param_groups
    ]


def assert_same_schedule(scheduler, their_scheduler, optimizer, their_optimizer, steps=100, metrics=None):
    for i in range(steps + 1):
        for (lr, momentum), (their_lr, their_momentum) in zip(
            settings_of(optimizer), settings_of(their_optimizer), strict=True
        ):
            assert abs(lr - their_lr) <= 1e-15, (i, lr, their_lr)
            assert abs(momentum - their_momentum) <= 1e-15
        assert scheduler.get_last_lr() == [group["lr"] for group in optimizer.param_groups]
        if i < steps:
            their_optimizer.step()
            arguments = () if metrics is None else (metrics[i],)
            scheduler.step(*arguments)
            their_scheduler.step(*arguments)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_hundred_steps_of_a_schedule(name):
    @settings(max_examples=20, deadline=None, database=None)
    @given(SCHEDULERS[name], st.sampled_from(["SGD", "Adam"]))
    def run(keywords, optimizer_name):
        optimizer, their_optimizer = two_optimizers(optimizer_name)
        scheduler = getattr(lr_scheduler, name)(optimizer, **keywords)
        their_scheduler = getattr(torch.optim.lr_scheduler, name)(their_optimizer, **keywords)
        assert_same_schedule(scheduler, their_scheduler, optimizer, their_optimizer)

    run()


@settings(max_examples=30, deadline=None, database=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "mode": st.sampled_from(["min", "max"]),
            "factor": factors,
            "patience": st.integers(0, 5),
            "threshold": st.sampled_from([1e-4, 0.1]),
            "threshold_mode": st.sampled_from(["rel", "abs"]),
            "cooldown": st.integers(0, 3),
            "min_lr": st.sampled_from([0, 1e-3, [1e-3, 1e-2]]),
            "eps": st.sampled_from([1e-8, 1e-2]),
        },
    ),
    st.integers(0, 2**32 - 1),
)
def test_reduce_on_plateau(keywords, seed):
    optimizer, their_optimizer = two_optimizers()
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, **keywords)
    their_scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(their_optimizer, **keywords)
    metrics = np.random.default_rng(seed).normal(size=100).round(1).cumsum()
    assert_same_schedule(scheduler, their_scheduler, optimizer, their_optimizer, 100, metrics)


def warm_up_then(module, optimizer):
    first = module.LinearLR(optimizer, 0.1, total_iters=10)
    second = module.CosineAnnealingLR(optimizer, T_max=40)
    third = module.StepLR(optimizer, 7, 0.5)
    return module.SequentialLR(optimizer, [first, second, third], milestones=[10, 50])


@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step")
def test_sequential_schedules():
    optimizer, their_optimizer = two_optimizers()
    scheduler = warm_up_then(lr_scheduler, optimizer)
    their_scheduler = warm_up_then(torch.optim.lr_scheduler, their_optimizer)
    assert_same_schedule(scheduler, their_scheduler, optimizer, their_optimizer)
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer)
    with pytest.raises(NotImplementedError, match="ReduceLROnPlateau among the schedulers"):
        lr_scheduler.SequentialLR(optimizer, [plateau], [])
    with pytest.raises(ValueError, match="0 milestones for 2 schedulers"):
        lr_scheduler.SequentialLR(optimizer, scheduler.schedulers[:2], [])


def test_two_schedules_act_on_one_optimizer():
    optimizer, their_optimizer = two_optimizers()
    pairs = [
        (
            getattr(lr_scheduler, name)(optimizer, **keywords),
            getattr(torch.optim.lr_scheduler, name)(their_optimizer, **keywords),
        )
        for name, keywords in (("ExponentialLR", {"gamma": 0.95}), ("LinearLR", {"start_factor": 0.2}))
    ]
    for _ in range(30):
        their_optimizer.step()
        for scheduler, their_scheduler in pairs:
            scheduler.step()
            their_scheduler.step()
        for (lr, _), (their_lr, _) in zip(settings_of(optimizer), settings_of(their_optimizer), strict=True):
            assert lr == pytest.approx(their_lr, rel=1e-14)


@pytest.mark.parametrize("name", ["StepLR", "OneCycleLR", "SequentialLR", "ReduceLROnPlateau"])
def test_a_schedule_resumes(name):
    def make(optimizer):
        if name == "SequentialLR":
            return warm_up_then(lr_scheduler, optimizer)
        keywords = {"StepLR": {"step_size": 3}, "OneCycleLR": {"max_lr": 0.1, "total_steps": 60}}
        return getattr(lr_scheduler, name)(optimizer, **keywords.get(name, {"patience": 1}))

    def step(scheduler, i):
        scheduler.step(*((np.sin(i),) if name == "ReduceLROnPlateau" else ()))

    optimizer, _ = two_optimizers()
    scheduler = make(optimizer)
    for i in range(25):
        step(scheduler, i)
    resumed_optimizer, _ = two_optimizers()
    resumed = make(resumed_optimizer)
    resumed_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    resumed.load_state_dict(copy.deepcopy(scheduler.state_dict()))
    for i in range(25, 55):
        assert settings_of(resumed_optimizer) == settings_of(optimizer)
        step(scheduler, i)
        step(resumed, i)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda o: lr_scheduler.StepLR(o, 3, last_epoch=5), NotImplementedError, "last_epoch=5"),
        (lambda o: lr_scheduler.OneCycleLR(o, 0.1), ValueError, "give total_steps"),
        (lambda o: lr_scheduler.OneCycleLR(o, [0.1], 10), ValueError, "found 1 numbers"),
        (
            lambda o: lr_scheduler.OneCycleLR(o, 0.1, 10, anneal_strategy="exp"),
            ValueError,
            "anneal_strategy='exp'",
        ),
        (lambda o: lr_scheduler.LinearLR(o, start_factor=0), ValueError, "start_factor=0"),
        (lambda o: lr_scheduler.ReduceLROnPlateau(o, "low"), ValueError, "mode='low'"),
        (lambda o: lr_scheduler.ReduceLROnPlateau(o).step(), TypeError, "step needs the metric"),
        (lambda o: [s.step() for s in [lr_scheduler.OneCycleLR(o, 0.1, 1)] * 2], ValueError, "step 2"),
    ],
)
def test_a_wrong_schedule_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make(two_optimizers()[0])


@pytest.mark.parametrize("name", ["CosineAnnealingLR", "OneCycleLR"])
def test_a_resumed_schedule_goes_on(name):
    """From the state dicts of optimizer and scheduler, in an optimizer made with another rate."""
    make = {
        "CosineAnnealingLR": lambda lib, o: lib.lr_scheduler.CosineAnnealingLR(o, 6),
        "OneCycleLR": lambda lib, o: lib.lr_scheduler.OneCycleLR(o, 0.3, 20),
    }[name]

    def run(library, parameters, interrupted):
        optimizer = library.SGD(parameters, lr=0.1, momentum=0.9)
        scheduler = make(library, optimizer)
        rates = []
        for t in range(20):
            if interrupted and t == 6:
                saved = optimizer.state_dict(), scheduler.state_dict()
                optimizer = library.SGD(parameters, lr=0.5, momentum=0.9)
                optimizer.load_state_dict(saved[0])
                scheduler = make(library, optimizer)
                scheduler.load_state_dict(saved[1])
            optimizer.step()
            scheduler.step()
            rates.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
        return rates

    ours, theirs = two_sets_of_parameters(np.random.default_rng(0))
    expected = run(torch.optim, theirs, interrupted=True)
    for interrupted in (False, True):
        np.testing.assert_allclose(run(optim, ours, interrupted), expected, rtol=1e-14)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_a_misspelt_setting_is_an_error_even_where_it_asks_for_nothing(name):
    with pytest.raises(TypeError, match=f"{name}: got an unexpected keyword argument 'maximise'"):
        getattr(optim, name)([nn.Parameter(np.ones(2))], maximise=False)
