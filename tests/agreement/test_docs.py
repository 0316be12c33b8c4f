"""The page about agreement: its samples run, and what it prints is what is printed."""

import re
from pathlib import Path

import pytest

import agreement
from agreement.limits import Limit
from agreement.measures import backward_limit
from agreement.numerical import ALL_ELEMENTS, COMPLEX_LIMIT, DIFFERENCE_LIMIT

PAGE = (Path(__file__).parents[2] / "docs" / "agreement.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
SAMPLES = [text for language, text in BLOCKS if language == "python"]


@pytest.mark.parametrize("sample", SAMPLES, ids=range(len(SAMPLES)))
def test_the_samples_run(sample):
    names = {}
    exec(sample, names)
    for name, value in names.items():
        if name.startswith("test_"):
            value()


def test_the_message_shown_is_the_one_that_comes():
    (sample,) = [sample for sample in SAMPLES if "class MyLinear" in sample]
    names = {}
    exec(sample.replace("self.x.T @ grad\n", "self.x.T @ grad / len(grad)\n"), names)
    with pytest.raises(agreement.GradientsDisagree) as caught:
        names["test_my_linear"]()
    (shown,) = [text for language, text in BLOCKS if not language and text.startswith("Yours")]
    # Last digits depend on the machine: compare the words.
    words = lambda text: re.sub(r"[\d.e+-]+", "#", text)  # noqa: E731
    assert words(shown).split() == words(str(caught.value)).split()[: len(words(shown).split())]


def test_the_limits_are_those_of_the_code():
    assert (backward_limit("float64"), COMPLEX_LIMIT, DIFFERENCE_LIMIT, ALL_ELEMENTS) == (
        1e-12,
        1e-10,
        1e-6,
        100,
    )
    assert backward_limit("float32", 0.5) == 2.0**-24 * 18
    assert Limit(1e-12).absolute == 0.0
