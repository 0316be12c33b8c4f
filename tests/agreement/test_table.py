"""The layer table itself: what its rows draw, and the docs' page made from it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nn_reference as nn
from agreement.checks import CHECKERS
from agreement.table import LAYERS, OPERATIONS, ROWS, Draw
from agreement.table.__main__ import page

every_row = pytest.mark.parametrize("row", OPERATIONS, ids=str)
few = settings(max_examples=30, deadline=None, database=None)
seeds = st.integers(0, 2**32 - 1)


def test_every_layer_and_loss_has_a_row_and_every_row_mutants():
    modules = {name for name, c in vars(nn).items() if isinstance(c, type) and issubclass(c, nn.Module)}
    assert {name.split("-")[0] for name in ROWS} == modules - {"Module", "Sequential", "Layer", "Loss"}
    assert len(ROWS) == len(OPERATIONS) == 25
    assert all(row.mutants for row in OPERATIONS)


@every_row
def test_a_probe_has_a_batch_and_no_two_sizes_alike(row):
    @few
    @given(seeds)
    def run(seed):
        x = row.example(seed).inputs[0]
        assert len(x) >= 2
        assert len(set(x.shape)) == x.ndim
        assert min(x.shape) >= 2

    run()


@every_row
def test_the_same_seed_draws_the_same_example(row):
    first, second = row.example(7), row.example(7)
    assert repr(first.ours) == repr(second.ours)
    for a, b in zip(first.inputs, second.inputs, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(first.ours.parameters(), second.ours.parameters(), strict=True):
        np.testing.assert_array_equal(a.data, b.data)
    assert not np.array_equal(first.inputs[0], row.example(8).inputs[0])


@every_row
def test_the_upstream_gradient_is_random_and_the_same_in_every_dtype(row):
    upstream = [
        row.example(3).upstream_of(dtype)((4, 5)) for dtype in (np.float32, np.float64, np.longdouble)
    ]
    assert len(np.unique(upstream[0])) == 20
    for other in upstream[1:]:
        np.testing.assert_array_equal(upstream[0], other)


@pytest.mark.parametrize("row", [row for row in OPERATIONS if "BatchNorm" not in row.name], ids=str)
def test_zeros_and_ties_are_common(row):
    """In batch normalisation a channel of equal values has no variance, and no digits either."""
    drawn = [row.example(seed).inputs[0] for seed in range(10)]
    assert sum((x == 0).any() for x in drawn) >= 6
    assert sum(len(np.unique(x)) < x.size for x in drawn) >= 6


@pytest.mark.parametrize("row", LAYERS, ids=str)
def test_edges_reach_what_a_probe_avoids(row):
    shapes = [row.example(seed, edges=True).inputs[0].shape for seed in range(60)]
    assert any(1 in shape for shape in shapes)
    assert any(len(set(shape)) < len(shape) for shape in shapes)


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        ("Linear", ["bias"]),
        ("BatchNorm1d", ["training", "eps", "momentum", "weight", "running_mean"]),
        ("Conv2d", ["kernel_size", "stride", "padding", "dilation", "groups", "bias"]),
        ("MaxPool2d", ["kernel_size", "stride", "padding", "dilation", "ceil_mode"]),
        ("AvgPool2d", ["stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"]),
        ("Dropout", ["training", "p"]),
        ("CrossEntropyLoss", ["weight", "ignore_index", "reduction", "label_smoothing"]),
        ("BCEWithLogitsLoss", ["weight", "pos_weight", "reduction"]),
    ],
)
@pytest.mark.parametrize("edges", [False, True])
def test_every_argument_varies(name, attributes, edges):
    drawn = [ROWS[name].example(seed, edges=edges).ours for seed in range(60)]
    for attribute in attributes:
        assert len({str(getattr(module, attribute)) for module in drawn}) > 1, attribute
        is_none = {getattr(module, attribute) is None for module in drawn}
        if attribute in ("bias", "weight", "pos_weight", "running_mean"):
            assert is_none == {True, False}, attribute


@given(seeds)
@few
def test_values_away_from_kinks_are_away_from_zero_and_from_each_other(seed):
    x, target = ROWS["L1Loss"].example(seed).spread_out().inputs
    gaps = np.diff(np.sort(np.concatenate([x.ravel(), target.ravel(), [0.0]])))
    assert gaps.min() > 2.0**-9


@given(seeds)
@few
def test_rounded_values_have_kinks_and_nothing_next_to_them(seed):
    x = ROWS["MaxPool2d"].example(seed).rounded().inputs[0]
    np.testing.assert_array_equal(2 * x, np.round(2 * x))


def test_sizes_that_run_out_go_on_beyond():
    draw = Draw(0)
    assert sorted(draw.size(2, 4) for _ in range(5)) == [2, 3, 4, 5, 6]


def test_the_docs_page_is_up_to_date():
    """If not: python -m agreement.table > docs/operations.md."""
    root = Path(__file__).parents[2]
    assert (root / "docs" / "operations.md").read_text(encoding="utf-8") == page()
    command = [sys.executable, "-m", "agreement.table"]
    assert subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout == page()


def test_the_docs_page_names_every_operation_and_checker():
    assert all(f"| `{row.name}` |" in page() for row in OPERATIONS)
    assert all(f"`{checker.name}`: " in page() for checker in CHECKERS)


def test_the_table_and_checks_that_need_no_torch_import_none():
    code = """if True:
        import sys
        from agreement.checks import CHECKERS
        from agreement.table import ROWS
        for checker in CHECKERS:
            if "autograd" not in checker.name and checker.applies(ROWS["Linear"]):
                assert all(row.agrees for row in checker(ROWS["Linear"], 0))
        assert "torch" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
