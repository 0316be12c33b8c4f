"""What the tests of this folder share. The checks of single operations are in tests/agreement."""

import math

import numpy as np
import torch
from hypothesis import strategies as st

import nn_reference as nn

seeds = st.integers(0, 2**32 - 1)


def give_same_state(ours, theirs, rng):
    """Random parameters and buffers in both, so that no default (bias 0, weight 1) hides a mistake."""
    for key, value in ours._live_state():
        if key.endswith("running_var"):
            value[...] = rng.uniform(0.5, 2.0, value.shape)
        elif value.dtype.kind == "f" and not key.endswith("pos_weight"):
            value[...] = rng.normal(size=value.shape)
    if isinstance(theirs, torch.nn.Module):
        theirs.load_state_dict({key: torch.from_numpy(value) for key, value in ours.state_dict().items()})


def assert_close(name, found, expected, tolerance):
    """Assert that the largest difference, over the largest expected value, is within the tolerance."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    difference, largest = np.abs(found - expected).max(), np.abs(expected).max()
    error = 0.0 if difference == 0 else float(difference / largest) if largest else math.inf
    assert error <= tolerance, f"{name}: relative error {error:.2e}\nfound {found}\nexpected {expected}"


def freeze(*things):
    """Make arrays, also those within caches, unwritable, so that a change in place raises ValueError."""
    for thing in things:
        if isinstance(thing, np.ndarray):
            thing.flags.writeable = False
        elif isinstance(thing, tuple):
            freeze(*thing)


def run_ours(ours, inputs, upstream):
    """Forward and backward with everything frozen that must not change; returns y, grad_x."""
    freeze(*inputs)
    with nn.Tape(ours) as tape:
        y = ours(*inputs)
    for call in tape.calls:
        freeze(call.cache)
    g = np.asarray(upstream(y.shape), y.dtype)
    freeze(g)
    return y, ours.backward(g)
