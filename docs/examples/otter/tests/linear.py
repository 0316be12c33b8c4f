"""Otter's test of the exercise linear: one case for each part, with the points that the exercise gives it."""

from functools import cache

from otter.test_files import test_case

from chainrule.exercises.grading import grade_functions

OK_FORMAT = False

name = "linear"
points = None  # those of the cases

# The same two functions are diagnosed once, and not again for each case.
graded = cache(lambda forward, backward: grade_functions("linear", forward, backward))


def check(part_name, forward, backward):
    """Fail with the reason where points are missing."""
    part = next(part for part in graded(forward, backward).parts if part.name == part_name)
    assert part.points == part.out_of, f"{part.reason}."


@test_case(name="output", points=1)
def output(forward, backward):
    """Check what forward returns."""
    check("output", forward, backward)


@test_case(name="grad of x", points=2)
def grad_of_x(forward, backward):
    """Check the gradient of x."""
    check("grad of x", forward, backward)


@test_case(name="grad of weight", points=2)
def grad_of_weight(forward, backward):
    """Check the gradient of weight."""
    check("grad of weight", forward, backward)


@test_case(name="grad of bias", points=1)
def grad_of_bias(forward, backward):
    """Check the gradient of bias."""
    check("grad of bias", forward, backward)


@test_case(name="changes nothing it was given", points=1)
def unchanged(forward, backward):
    """Check that no argument was written into."""
    check("changes nothing it was given", forward, backward)
