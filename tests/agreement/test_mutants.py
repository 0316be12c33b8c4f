"""The gate: every mutant changes the gradient, and every checker that claims it catches it."""

import functools
import inspect
import itertools
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest

import nn_reference as nn
from agreement import checks
from agreement.checks import CHECKERS, effect
from agreement.measures import error_against
from agreement.mutants import ALL, NETWORKS, OPERATIONS, OPTIMIZERS, Kind, Mutant
from agreement.running import run_reference
from agreement.table import ROWS

# PyTorch pads by a copy there, and says so.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")

SEEDS = range(20)
every_mutant = pytest.mark.parametrize("mutant", OPERATIONS, ids=str)

# A mutant that one checker alone claims is suspicious. These lose digits in float32 only, which no check in
# float64 can see, and no comparison with PyTorch in float32, which may lose as many.
SEEN_BY_ONE = {
    "Linear: one running sum": "float32_sums",  # a short batch rounds no more than blocks do
    "ELU: exp minus one": "float32",  # elements near zero; nothing is summed
}


CLAIMS = [
    pytest.param(mutant, checker, id=f"{mutant} - {checker}")
    for mutant in OPERATIONS
    for checker in CHECKERS
    if checker.claims(ROWS[mutant.operation], mutant)
]


@functools.cache
def effects(mutant):
    """The tensors that a mutant changes with any of the seeds, and their largest relative change."""
    largest = {}
    for seed in SEEDS:
        for name, change in effect(ROWS[mutant.operation], mutant, seed).items():
            largest[name] = max(change, largest.get(name, 0.0))
    return largest


DERIVATIVES = {}


@contextmanager
def derivatives_from_memory(checker, row, seed):
    """Let a checker take derivatives, which need no backward, as they were when it last asked.

    They take most of the time, and only a mutant with another forward changes them.
    """
    calls = itertools.count()

    def remembered(function):
        def call(*arguments):
            key = checker, row.name, seed, next(calls)
            if key not in DERIVATIVES:
                DERIVATIVES[key] = function(*arguments)
            return DERIVATIVES[key]

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("derivatives", "true_derivatives"):
            patch.setattr(checks, name, remembered(getattr(checks, name)))
        yield


def names_of_disagreements(checker, row, seed, mutant):
    """The tensors that a checker says are wrong."""
    of_backward = mutant.forward is None and mutant.attribute in ("backward", "_backward")
    memory = derivatives_from_memory(checker, row, seed) if of_backward else nullcontext()
    try:
        with memory:
            return {found.name for found in checker(row, seed) if not found.agrees}
    except ValueError as error:  # a wrong shape; then the message must begin with the tensor
        return {str(error).split(":")[0]}


@pytest.mark.parametrize(("mutant", "checker"), CLAIMS)
def test_a_checker_catches_what_it_claims_and_names_the_tensor(mutant, checker):
    row = ROWS[mutant.operation]
    for seed in SEEDS:
        with mutant.planted():
            named = names_of_disagreements(checker, row, seed, mutant)
        if named:
            assert named <= set(effects(mutant))
            return
    pytest.fail(f"{checker} caught {mutant} with none of {len(SEEDS)} seeds")


@every_mutant
def test_every_mutant_changes_the_gradient(mutant):
    """Or the gradient from above, in place; or, of kind "state", what evaluation will use."""
    changes = effects(mutant)
    names, largest = set(changes), max(changes.values(), default=0.0)
    print(f"{mutant}: {largest:.1e} of {', '.join(sorted(names))}")
    assert largest > (1e-8 if mutant.kind is Kind.PRECISION else 1e-3)
    if mutant.kind is Kind.STATE:
        assert names == {"running_var"}
    elif mutant.attribute == "backward":
        assert all("grad" in name or "cache" in name for name in names)
        assert any("grad" in name for name in names) or mutant.name == "GELU: cache changed in place"


@every_mutant
def test_most_mutants_are_claimed_by_several_checkers(mutant):
    claiming = [c.name for c in CHECKERS if c.claims(ROWS[mutant.operation], mutant)]
    expected = [SEEN_BY_ONE[mutant.name]] if mutant.name in SEEN_BY_ONE else None
    assert claiming == expected if expected else len(claiming) >= 2


def test_every_checker_claims_mutants_of_every_row_that_it_is_for():
    for checker in CHECKERS:
        if checker.name != "float32_sums":
            for row in filter(checker.applies, ROWS.values()):
                assert any(checker.claims(row, mutant) for mutant in row.mutants), f"{checker} {row}"
        else:
            assert any(checker.claims(row, m) for row in ROWS.values() for m in row.mutants)


def test_no_mutant_is_left_out_of_the_gates():
    """Of the operations every one has a claim above, of the rest a place in `test_network_mutants`.

    There each runs through locked training, bisector included, in both dtypes, and is found at its place.
    """
    claimed = {claim.values[0].name for claim in CLAIMS}
    placed = {mutant.name for mutant in NETWORKS + OPTIMIZERS}
    assert [mutant.name for mutant in ALL if mutant.name not in claimed | placed] == []
    assert len({mutant.name for mutant in ALL}) == len(ALL) == len(claimed) + len(placed)
    kinds = {kind for checker in CHECKERS for kind in checker.kinds} | {Kind.PRECISION}
    assert kinds | {mutant.kind for mutant in NETWORKS + OPTIMIZERS} == set(Kind), "a kind nobody claims"


def test_the_catalogue_is_well_kept():
    assert len(OPERATIONS) >= 100
    assert len({mutant.name for mutant in OPERATIONS}) == len(OPERATIONS)
    assert {mutant.operation for mutant in OPERATIONS} == set(ROWS)
    for mutant in OPERATIONS:
        assert mutant.right != mutant.wrong
        assert mutant.mistake.endswith((".", ")"))
        assert len(mutant.mistake) > 30
        assert mutant.kind in (Kind.OPERATION, Kind.KINK, Kind.PRECISION, Kind.STATE)


@every_mutant
def test_a_mutant_is_taken_out_again(mutant):
    before = getattr(mutant.where, mutant.attribute), getattr(mutant.where, "forward", None)
    with pytest.raises(ZeroDivisionError), mutant.planted():
        assert inspect.unwrap(getattr(mutant.where, mutant.attribute)) is mutant.function
        raise ZeroDivisionError
    assert before == (getattr(mutant.where, mutant.attribute), getattr(mutant.where, "forward", None))


def test_a_mutant_of_a_layer_shows_in_a_network():
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    x = np.random.default_rng(0).normal(size=(5, 3))
    network(x)
    right = network.backward(np.ones((5, 2)))
    mutant: Mutant = next(m for m in OPERATIONS if m.name == "ReLU: mask missing")
    with mutant.planted():
        network(x)
        assert not np.allclose(network.backward(np.ones((5, 2))), right)
    network(x)
    np.testing.assert_array_equal(network.backward(np.ones((5, 2))), right)


@pytest.mark.parametrize("row", ROWS.values(), ids=str)
def test_no_two_mistakes_of_an_operation_look_the_same(row):
    """Or nobody could tell a learner which one it was."""
    examples = [row.example(seed) for seed in SEEDS]
    outcomes = {}
    for mutant in row.mutants:
        if "float64" in mutant.shows_in:
            with mutant.planted():
                outcomes[mutant.name] = [run_reference(example) for example in examples]
    for (one, first), (other, second) in itertools.combinations(outcomes.items(), 2):
        assert any(differ(a, b) for a, b in zip(first, second, strict=True)), f"{one} and {other}"


def differ(a, b):
    """Whether two outcomes differ by more than rounding, in a gradient or in what was changed in place."""
    if [change.name for change in a.changes] != [change.name for change in b.changes]:
        return True
    pairs = [(a.tensors[name], b.tensors[name]) for name in a.tensors]
    return any(x.shape != y.shape or error_against(x, y) > 1e-9 for x, y in pairs)
