"""torch_random against torch itself, bit for bit; and the initialisers' distributions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import nn_reference as nn
from nn_reference import init, torch_random

seeds = st.integers(-(2**40), 2**40) | st.sampled_from(
    [0, 1, 2**32 - 1, 2**32, 2**63 - 1, -(2**63), 2**64 - 1]
)


def same_bits(ours, theirs):
    return np.array_equal(ours.view(f"u{ours.itemsize}"), theirs.detach().numpy().view(f"u{ours.itemsize}"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@settings(max_examples=40, deadline=None, database=None)
@given(
    seed=seeds,
    low=st.sampled_from([0.1, 0.0, -1.0, -0.1, -0.0357142857, -5.0]),
    width=st.sampled_from([1e-7, 1.0, 2.0, 0.2, 0.0714285714, 7.5]),
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=4),
)
def test_uniform_numbers(dtype, seed, low, width, sizes):
    torch.manual_seed(seed)
    rng = torch_random.Generator(seed)
    for size in sizes:
        theirs = torch.empty(size, dtype=getattr(torch, dtype)).uniform_(low, low + width)
        assert same_bits(rng.uniform(low, low + width, (size,), dtype), theirs)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_high_is_never_drawn(dtype):
    width = np.finfo(dtype).eps / 2
    torch.manual_seed(-3)
    theirs = torch.empty(1000, dtype=getattr(torch, dtype)).uniform_(0.1, 0.1 + width)
    assert same_bits(torch_random.Generator(-3).uniform(0.1, 0.1 + width, (1000,), dtype), theirs)


@settings(max_examples=40, deadline=None, database=None)
@given(seeds, st.integers(0, 300), st.integers(0, 300))
def test_permutations(seed, first, second):
    torch.manual_seed(seed)
    rng = torch_random.Generator(seed)
    for n in (first, second):
        np.testing.assert_array_equal(rng.randperm(n), torch.randperm(n))


def test_the_seeded_run_of_a_tutorial():
    """Seed 101, a network 784-120-84-10, and the order of 60,000 images."""
    torch.manual_seed(101)
    theirs = [torch.nn.Linear(784, 120), torch.nn.Linear(120, 84), torch.nn.Linear(84, 10)]
    their_order = torch.randperm(60_000)
    rng = torch_random.Generator(101)
    ours = [
        nn.Linear(784, 120, generator=rng),
        nn.Linear(120, 84, generator=rng),
        nn.Linear(84, 10, generator=rng),
    ]
    for a, b in zip(ours, theirs, strict=True):
        assert same_bits(a.weight.data, b.weight)
        assert same_bits(a.bias.data, b.bias)
    order = rng.randperm(60_000)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(order, their_order)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("seed", range(5))
def test_convolutions_without_bias_and_xavier(seed, dtype):
    torch.manual_seed(seed)
    their_dtype = getattr(torch, dtype)
    theirs = [
        torch.nn.Conv2d(1, 32, 3, dtype=their_dtype),
        torch.nn.Conv2d(32, 64, (3, 2), groups=2, bias=False, dtype=their_dtype),
        torch.nn.Linear(7, 3, bias=False, dtype=their_dtype),
    ]
    torch.nn.init.xavier_uniform_(theirs[2].weight)
    torch.nn.init.kaiming_uniform_(theirs[0].weight, nonlinearity="relu", mode="fan_out")
    rng = torch_random.Generator(seed)
    ours = [
        nn.Conv2d(1, 32, 3, dtype=dtype, generator=rng),
        nn.Conv2d(32, 64, (3, 2), groups=2, bias=False, dtype=dtype, generator=rng),
        nn.Linear(7, 3, bias=False, dtype=dtype, generator=rng),
    ]
    init.xavier_uniform_(ours[2].weight, generator=rng)
    init.kaiming_uniform_(ours[0].weight, nonlinearity="relu", mode="fan_out", generator=rng)
    for a, b in zip(ours, theirs, strict=True):
        assert same_bits(a.weight.data, b.weight)
        assert (a.bias is None and b.bias is None) or same_bits(a.bias.data, b.bias)


def test_what_cannot_be_repeated_is_refused():
    rng = torch_random.Generator(0)
    with pytest.raises(NotImplementedError, match="only uniform and randperm"):
        init.normal_(np.zeros(3), generator=rng)
    with pytest.raises(NotImplementedError, match="only uniform and randperm"):
        nn.Dropout(generator=rng)(np.ones(3))
    with pytest.raises(TypeError, match="dtype is float16"):
        rng.uniform(0, 1, (2,), np.float16)


def test_the_state_can_be_kept_and_put_back():
    rng = torch_random.Generator(3)
    rng.randperm(10)
    state = rng.bit_generator.state
    first = rng.uniform(0, 1, (700,))
    rng.bit_generator.state = state
    np.testing.assert_array_equal(rng.uniform(0, 1, (700,)), first)


# -- initialisers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(300, 200), (50, 40, 5, 3)])
@pytest.mark.parametrize(
    ("name", "keywords"),
    [
        ("xavier_uniform_", {"gain": 2.0}),
        ("xavier_normal_", {}),
        ("kaiming_uniform_", {"a": 0.3}),
        ("kaiming_uniform_", {"mode": "fan_out", "nonlinearity": "relu"}),
        ("kaiming_normal_", {"nonlinearity": "tanh"}),
        ("kaiming_normal_", {"mode": "fan_out"}),
        ("normal_", {"mean": 1.0, "std": 3.0}),
        ("uniform_", {"a": -1.0, "b": 3.0}),
    ],
)
def test_distributions_are_torchs(name, keywords, shape):
    """The same quantiles as a large sample of torch's: 30,000 draws or more of each."""
    ours = getattr(init, name)(np.empty(shape), **keywords, generator=np.random.default_rng(5)).ravel()
    theirs = getattr(torch.nn.init, name)(
        torch.empty(shape, dtype=torch.float64), **keywords, generator=torch.Generator().manual_seed(5)
    )
    theirs = theirs.numpy().ravel()
    levels = np.linspace(0, 1, 21)[1:-1]
    np.testing.assert_allclose(
        np.quantile(ours, levels), np.quantile(theirs, levels), atol=0.04 * theirs.std()
    )
    if "uniform" in name:
        assert ours.max() == pytest.approx(theirs.max(), rel=1e-3)


def test_default_initialisation_lies_within_torchs_bound():
    for layer, fan_in in ((nn.Linear(400, 300), 400), (nn.Conv2d(40, 60, (5, 3)), 600)):
        bound = 1 / np.sqrt(fan_in)
        for parameter in (layer.weight, layer.bias):
            assert parameter.dtype == np.float32
            assert np.abs(parameter.data).max() <= bound
        assert np.abs(layer.weight.data).max() > 0.999 * bound
        assert layer.weight.data.std() == pytest.approx(bound / np.sqrt(3), rel=0.02)
        assert layer.bias.data.std() == pytest.approx(bound / np.sqrt(3), rel=0.3)


def test_every_dtype_starts_from_the_same_values():
    layers = [
        nn.Linear(5, 4, dtype=d, generator=np.random.default_rng(1)) for d in ("f4", "f8", np.longdouble)
    ]
    for layer in layers[1:]:
        np.testing.assert_array_equal(layer.weight.data.astype("f4"), layers[0].weight.data)


@pytest.mark.parametrize(
    "nonlinearity", ["linear", "conv2d", "conv_transpose3d", "sigmoid", "tanh", "relu", "leaky_relu", "selu"]
)
def test_gains_are_torchs(nonlinearity):
    assert init.calculate_gain(nonlinearity) == torch.nn.init.calculate_gain(nonlinearity)
    assert init.calculate_gain("leaky_relu", 0.2) == torch.nn.init.calculate_gain("leaky_relu", 0.2)


def test_constants_and_refusals():
    parameter = nn.Parameter(np.empty((2, 2), np.float32))
    assert init.constant_(parameter, 3.0) is parameter
    assert (parameter.data == 3).all()
    assert not init.zeros_(np.empty(3)).any()
    assert (init.ones_(np.empty(3)) == 1).all()
    with pytest.raises(ValueError, match="two or more dimensions"):
        init.xavier_uniform_(np.empty(3))
    with pytest.raises(ValueError, match="mode='fan_avg'"):
        init.kaiming_normal_(np.empty((2, 2)), mode="fan_avg")
    with pytest.raises(ValueError, match="nonlinearity='gelu'"):
        init.calculate_gain("gelu")
