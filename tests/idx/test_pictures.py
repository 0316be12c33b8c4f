import numpy as np
import pytest

from idx.pictures import in_colour, in_shades, is_picture, montage, to_grey


def test_what_a_picture_is():
    assert [
        is_picture(np.zeros(shape)) for shape in ((28, 28), (8, 8, 3), (8, 8, 1), (8, 8, 8), (9,), ())
    ] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("values", "grey"),
    [
        (np.array([[0, 100]], np.uint8), [[0, 100]]),
        (np.array([[-10, 0, 10]], np.int16), [[0, 128, 255]]),
        (np.array([[np.nan, -np.inf, np.inf, 0, 1]]), [[0, 0, 255, 0, 255]]),
        (np.array([[3.0, 3.0]]), [[0, 0]]),
        (np.array([[np.nan]]), [[0]]),
        (np.array([[[30, 60, 90]]], np.uint8), [[60]]),
    ],
)
def test_to_grey(values, grey):
    assert to_grey(values).tolist() == grey


def test_shades():
    grey = np.array([[0, 1, 128, 255], [0, 0, 0, 0]], np.uint8)
    assert in_shades(grey, "utf-8") == "  ░░▓▓██\n"
    assert in_shades(grey, "ascii") == "  ..++@@\n"


def test_colour_puts_two_rows_in_one_line():
    text = in_colour(np.array([[1], [2], [3]], np.uint8))
    assert text == "\x1b[38;2;1;1;1;48;2;2;2;2m▀\x1b[0m\n\x1b[38;2;3;3;3;48;2;0;0;0m▀\x1b[0m"


def test_montage_holds_every_picture():
    pictures = [np.full((28, 28), value, np.uint8) for value in (10, 20, 30, 40, 50)]
    sheet = np.asarray(montage(pictures, [""] * 5))
    assert [int((sheet == value).sum()) for value in (10, 20, 30, 40, 50)] == [56 * 56] * 5
    captioned = montage(pictures, list("12345"))
    assert captioned.height > sheet.shape[0]
    assert (np.asarray(captioned) > 150).any()
