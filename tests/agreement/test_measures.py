"""What the measures say of arrays whose distance is known."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agreement import (
    backward_limit,
    compare_tensors,
    cosine,
    error_against,
    largest_ulps,
    product_units,
    unit_roundoff,
)


def test_unit_roundoff_is_half_the_distance_from_1_to_the_next_number():
    assert unit_roundoff(np.float32) == 2.0**-24
    assert unit_roundoff(np.float64) == 2.0**-53


def test_the_limit_of_a_backward_pass():
    assert backward_limit(np.float64, loss=1e-4) == 1e-12
    assert backward_limit(np.longdouble) == 1e-12
    assert backward_limit(np.float32, loss=0.5) == 2.0**-24 * 18
    assert backward_limit(np.float32, loss=0.0) > 1e30  # a gradient of p - 1 has no digit left


def test_where_the_worst_element_is_and_what_each_engine_has_there():
    reference = np.arange(6.0).reshape(2, 3)
    autograd = reference.copy()
    autograd[1, 0] += 0.5
    row = compare_tensors("w", reference, autograd, truth=reference.astype(np.longdouble))
    assert (row.worst, row.reference_value, row.autograd_value) == ((1, 0), 3.0, 3.5)
    assert (row.error, row.agrees) == (0.1, False)
    assert (row.reference_error, row.autograd_error) == (0.0, 0.1)


def test_nan_is_never_agreement_and_is_the_worst_element():
    row = compare_tensors("w", np.array([1.0, 2.0, 3.0]), np.array([9.0, np.nan, 3.0]))
    assert not row.agrees
    assert row.worst == (1,)
    assert row.ulps == np.inf


def test_the_coarser_dtype_is_the_one_of_the_row():
    assert compare_tensors("w", np.ones(2, np.float32), np.ones(2)).dtype == "float32"


def test_empty_arrays_agree():
    row = compare_tensors("w", np.ones((0, 3)), np.ones((0, 3)))
    assert row.agrees
    assert row.worst is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ulps_count_the_numbers_between(dtype):
    one = dtype(1)
    tiny = np.nextafter(dtype(0), one)
    a = np.array([1, 1, -tiny, 5, 0], dtype)
    b = np.array([np.nextafter(one, dtype(2)), 1, tiny, 5, -0.0], dtype)
    assert largest_ulps(a[:2], b[:2]) == 1
    assert largest_ulps(a, b) == 2  # from one side of zero to the other
    most = np.finfo(dtype).max
    assert largest_ulps(np.array([-most]), np.array([most])) > 2 ** (8 * a.itemsize - 2)


@given(st.floats(width=32, allow_nan=False), st.integers(0, 40))
@example(float(np.finfo(np.float32).min), 1)
def test_ulps_of_so_many_steps(start, steps):
    a = b = np.float32(start)
    with np.errstate(over="ignore"):  # the last step may be to minus infinity
        for _ in range(steps):
            b = np.nextafter(b, np.float32(-np.inf))
    if np.isfinite(b):
        assert largest_ulps(np.array([a]), np.array([b])) == steps


def test_cosine_tells_a_factor_from_a_direction():
    a = np.array([3e-200, 4e-200])  # whose squares underflow
    assert cosine(a, 7 * a) == pytest.approx(1)
    assert cosine(a, -a) == pytest.approx(-1)
    assert cosine(a, np.array([-4.0, 3.0])) == pytest.approx(0)
    assert np.isnan(cosine(a, 0 * a))


def test_error_against_truth_is_measured_in_the_precision_of_the_truth():
    truth = np.array([1.0, 1.0]) + np.array([0, 2.0**-60], np.longdouble)
    assert error_against(truth, np.ones(2)) == pytest.approx(2.0**-60)
    with pytest.raises(ValueError, match=r"the truth's shape is \(2,\), found \(1, 2\)"):
        error_against(truth, np.ones((1, 2)))


def test_units_of_a_product():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 400)).astype(np.float32), rng.normal(size=(400, 7)).astype(np.float32)
    true, magnitude = a.astype(float) @ b.astype(float), np.abs(a).astype(float) @ np.abs(b)
    assert 0 < product_units(a @ b, true, magnitude, np.float32) < 16
    # Added up in float16 and in float32 but a row forgotten: both are seen.
    assert product_units((a.astype(np.float16) @ b.astype(np.float16)), true, magnitude, np.float32) > 16
    assert product_units(a[:, :-1] @ b[:-1], true, magnitude, np.float32) > 16


def test_where_nothing_is_added_any_difference_is_infinite():
    assert product_units(np.zeros(2), np.zeros(2), np.zeros(2), np.float32) == 0
    assert product_units(np.array([1e-30]), np.zeros(1), np.zeros(1), np.float32) == np.inf
