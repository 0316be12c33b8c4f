"""The mutants of networks and optimizers: each changes what it should, and each is caught and named."""

import numpy as np
import pytest

import nn_reference as nn
from agreement import Twins, first_difference, locked_training
from agreement.mutants import Kind
from agreement.mutants.networks import NETWORKS, WIDTH, example
from agreement.mutants.optimizers import OPTIMIZERS, SHOWN_BY, Setup

MUTANTS = NETWORKS + OPTIMIZERS
PLAIN = Setup("SGD", {"lr": 0.1, "momentum": 0.9})

# Where the bisector must find each: step, phase, operation and tensor.
NAMED = {
    "accumulate-overwrites": (1, "backward", "shared", "weight"),
    "accumulate-twice": (1, "backward", "fc2", "weight"),
    "gradients-not-zeroed": (2, "backward", "fc2", "weight"),
    "update-before-input-gradient": (1, "backward", "fc2", "grad_input"),
    "early-return": (1, "backward", "fc1", "grad_output"),
    "first-layer-skipped": (2, "backward", "fc1", "grad_output"),
    "forward-order": (1, "backward", "fc2", "grad_output"),
    "relu-mask-of-next-output": (1, "backward", "relu2", "grad_input"),
    "stale-cache": (2, "backward", "relu2", "grad_input"),
    "softmax-twice": (1, "forward", "loss", "output"),
    "dropout-new-mask": (1, "backward", "drop", "grad_input"),
    "dropout-not-scaled": (1, "forward", "drop", "output"),
    "batches-not-counted": (1, "forward", "bn1", "num_batches_tracked"),
    "eval-left-on": (1, "forward", "bn1", "output"),
    "running-statistics-swapped": (1, "forward", "bn1", "running_mean"),
    "sgd-momentum-dampened": (1, "update", "SGD", "fc1.weight momentum_buffer"),
    "sgd-velocity-unused": (2, "update", "SGD", "fc1.weight"),
    "sgd-first-velocity-scaled": (1, "update", "SGD", "fc1.weight momentum_buffer"),
    "sgd-no-look-ahead": (1, "update", "SGD", "fc1.weight"),
    "sgd-rate-inside-velocity": (1, "update", "SGD", "fc1.weight momentum_buffer"),
    "sgd-maximize-ignored": (1, "update", "SGD", "fc1.weight momentum_buffer"),
    "sgd-decay-of-biases-only": (1, "update", "SGD", "fc1.weight momentum_buffer"),
    "sgd-decay-sign-turned": (1, "update", "SGD", "fc1.weight momentum_buffer"),
    "sgd-decay-past-the-velocity": (1, "update", "SGD", "fc1.weight momentum_buffer"),
    "adam-eps-inside-root": (1, "update", "Adam", "fc1.weight"),
    "adam-eps-before-correction": (1, "update", "Adam", "fc1.weight"),
    "adam-no-bias-correction": (1, "update", "Adam", "fc1.weight"),
    "adam-second-uncorrected": (1, "update", "Adam", "fc1.weight"),
    "adam-powers-off-by-one": (1, "update", "Adam", "fc1.weight"),
    "adam-count-forgotten": (1, "update", "Adam", "fc1.weight step"),
    "adam-betas-swapped": (1, "update", "Adam", "fc1.weight exp_avg"),
    "adam-not-squared": (1, "update", "Adam", "fc1.weight exp_avg_sq"),
    "adam-amsgrad-largest-forgotten": (1, "update", "Adam", "fc1.weight max_exp_avg_sq"),
    "adam-decay-decoupled": (1, "update", "Adam", "fc1.weight exp_avg"),
    "adamw-decay-coupled": (1, "update", "AdamW", "fc1.weight exp_avg"),
    "adamw-decay-without-rate": (1, "update", "AdamW", "fc1.weight"),
    "step-lr-one-early": (2, "update", "scheduler", "lr"),
    "exponential-lr-compounded": (2, "update", "scheduler", "lr"),
    "clip-after-step": (1, "update", "clip_grad_norm_", "fc1.weight"),
    "clip-each-alone": (1, "update", "clip_grad_norm_", "fc1.weight"),
}


def start(seed):
    network, rng = example(nn), np.random.default_rng(seed)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.reset_affine(module.weight, module.bias, rng)
    return network.state_dict()


def twins(setup, seed):
    return Twins(
        example,
        lambda library: library.CrossEntropyLoss(),
        setup.optimizer,
        schedule=setup.schedule,
        clip=setup.clip,
        start=start(seed),
    )


def data(seed):
    rng = np.random.default_rng([seed, 1])
    return rng.standard_normal((60, WIDTH)), rng.integers(0, WIDTH, 60)


def train(setup, seed, dtype):
    return locked_training(twins(setup, seed), *data(seed), steps=6, batch_size=12, dtype=dtype, seed=seed)


def learnt(setup, seed):
    """What our engine alone has learnt after six steps: parameters and running statistics."""
    engine = twins(setup, seed).reference(np.float64, seed)
    for i in range(0, 60, 12):
        engine.learn(*(part[i : i + 12] for part in data(seed)))
    return engine.network.state_dict()


def test_the_catalogue_is_complete_and_well_formed():
    assert len(NETWORKS) >= 8
    assert len(OPTIMIZERS) >= 10
    assert {mutant.kind for mutant in NETWORKS} == {Kind.NETWORK}
    assert {mutant.kind for mutant in OPTIMIZERS} == {Kind.OPTIMIZER}
    names = [mutant.name for mutant in MUTANTS]
    assert len(set(names)) == len(names)
    assert set(NAMED) == set(names)
    assert set(SHOWN_BY) == {mutant.name for mutant in OPTIMIZERS}
    assert all(m.right != m.wrong and m.mistake.endswith(".") for m in MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_it_changes_what_is_learnt_and_leaves_no_trace(mutant):
    setup = SHOWN_BY.get(mutant.name, PLAIN)
    before = vars(mutant.where).get(mutant.attribute)
    right = learnt(setup, 0)
    with mutant.planted():
        wrong = learnt(setup, 0)
    again = learnt(setup, 0)
    assert vars(mutant.where).get(mutant.attribute) is before
    assert all((right[key] == again[key]).all() for key in right)
    largest = max(np.abs(right[key] - wrong[key]).max() for key in right)
    assert largest > 1e-6, f"after five steps nothing differs by more than {largest}"


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_locked_training_catches_it_and_names_the_place(mutant, dtype):
    setup, seed = SHOWN_BY.get(mutant.name, PLAIN), 1
    with mutant.planted():
        report = train(setup, seed, dtype)
    assert not report.agrees
    found = report.difference
    assert (found.step, *found.point) == NAMED[mutant.name], str(report)
    assert found.flip is None
    assert found.element is not None


@pytest.mark.parametrize("mutant", NETWORKS[:1] + OPTIMIZERS[:1], ids=str)
def test_the_bisector_alone_finds_the_same(mutant):
    with mutant.planted():
        found = first_difference(twins(PLAIN, 0), *data(0), steps=6, batch_size=12)
    assert (found.step, *found.point) == NAMED[mutant.name]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", [None, *SHOWN_BY])
def test_without_a_mutant_there_is_no_alarm(name, seed):
    setup = SHOWN_BY.get(name, PLAIN)
    report = locked_training(
        twins(setup, seed), *data(seed), steps=6, batch_size=12, dtype=np.float32, seed=seed, control=False
    )
    assert report.agrees, str(report)
