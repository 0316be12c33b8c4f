"""A picture becomes what MNIST's are, whatever its colours, its light, its size, and what else is on it."""

import io
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chainrule import preprocessing
from chainrule.errors import ChainruleError

sys.path.insert(0, str(Path(__file__).parent))
from drawn import STROKES, alike, draw
from PIL import Image, ImageDraw

from chainrule.preprocessing import cleaning, colour, finding, fitting, measures, paper, reading


def seen(picture):
    return preprocessing.prepare(picture).image


def encoded(picture, kind="PNG", **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


# -- All together ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("digit", STROKES)
def test_the_result_is_like_mnist(digit):
    image = seen(draw(digit))
    assert image.shape == (28, 28)
    assert image.dtype == np.uint8
    rows, columns = np.flatnonzero(image.max(axis=1) > 63), np.flatnonzero(image.max(axis=0) > 63)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20, "the longer side is 20 pixels"
    total = image.sum(dtype=float)
    for axis in (0, 1):
        centre = image.sum(axis=1 - axis, dtype=float) @ np.arange(28) / total
        assert abs(centre - 14) <= 0.51, "the centre of mass lies within half a pixel of (14, 14)"
    assert image[[0, -1]].max() == 0
    values = measures.measures(image[None])
    assert values["background"][0] == 0
    assert 1.5 < values["stroke width"][0] < 5
    assert image.max() > 180


GRADIENT = np.linspace(0, 90, 200)[:, None, None] + np.linspace(0, 40, 200)[None, :, None]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("inverted", lambda it: Image.fromarray(255 - np.asarray(it))),
        ("grey paper", lambda it: it.point(lambda value: 60 + value // 3)),
        ("faint", lambda it: it.point(lambda value: 170 + value // 8)),
        ("gradient", lambda it: Image.fromarray(np.uint8(np.asarray(it) * 0.5 + GRADIENT))),
        ("inverted gradient", lambda it: Image.fromarray(255 - np.uint8(np.asarray(it) * 0.5 + GRADIENT))),
        ("small", lambda it: it.resize((70, 70), Image.Resampling.LANCZOS)),
        ("large", lambda it: it.resize((1200, 1200), Image.Resampling.BICUBIC)),
        ("padded", lambda it: _on_page(it, (700, 500), (240, 240, 235), (430, 20))),
        ("black border", lambda it: _on_page(it, (300, 260), (0, 0, 0), (50, 30))),
        ("white border", lambda it: _on_page(it.point(lambda v: v // 2), (300, 260), (255,) * 3, (50, 30))),
        ("bar beside it", lambda it: _on_page(it, (260, 200), (30, 30, 30), (60, 0))),
        ("blue ink", lambda _: draw(5, ink=(30, 60, 200))),
        ("green on white", lambda _: draw(5, ink=(0, 255, 0), page=(255, 255, 255))),
        ("one luminance", lambda _: draw(5, ink=(190, 60, 60), page=(60, 124, 60))),
        ("grey levels", lambda it: it.convert("L")),
        ("palette", lambda it: it.quantize(16).convert("RGB")),
        ("noise", lambda it: _noisy(it)),
    ],
)
def test_the_digit_comes_out_the_same(name, change):
    picture = draw(5)
    assert alike(seen(change(picture)), seen(picture)) > 0.93


def _on_page(picture, size, page, at):
    whole = Image.new("RGB", size, page)
    whole.paste(picture, at)
    return whole


def _noisy(picture):
    noise = np.random.default_rng(0).normal(0, 12, np.asarray(picture).shape)
    return Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))


@given(st.integers(-50, 60), st.integers(-40, 45), st.booleans())
@settings(max_examples=15, deadline=None)
def test_where_it_lies_does_not_matter(across, down, light):
    colours = {"ink": (250, 250, 250), "page": (0, 0, 0)} if light else {}
    picture = draw(4, at=(65 + across, 55 + down), **colours)
    assert alike(seen(picture), seen(draw(4))) > 0.97


@pytest.mark.parametrize("width", [1, 2, 4, 8, 14])
def test_thin_and_thick_pens_give_strokes_of_about_one_width(width):
    image = seen(draw(2, width=width))
    assert 1.6 < measures.measures(image[None])["stroke width"][0] < 4.2
    assert alike(image, seen(draw(2))) > 0.85


def test_a_tiny_digit_on_a_large_page_is_looked_at_closely():
    picture = draw(5, (2000, 1500), at=(1500, 200), unit=5, width=6)
    assert alike(seen(picture), seen(draw(5))) > 0.93


def test_exif_rotation_is_followed():
    turned = draw(4).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by 90 degrees clockwise to see it
    picture = reading.decode(encoded(turned, "JPEG", exif=exif, quality=95), "photo.jpg")
    assert alike(seen(picture), seen(draw(4))) > 0.97
    assert alike(seen(turned), seen(draw(4))) < 0.8, "and without it the picture lies on its side"


@pytest.mark.parametrize("ink", [0, 255])
def test_ink_on_nothing_gets_the_paper_it_needs(ink):
    mask = Image.fromarray(255 - np.asarray(draw(5, ink=(0,) * 3, page=(255,) * 3).convert("L")))
    picture = Image.new("RGBA", mask.size, (ink, ink, ink, 0))
    picture.putalpha(mask)
    assert alike(seen(picture), seen(draw(5))) > 0.95


# -- Files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_format_is_read(kind):
    assert alike(seen(reading.decode(encoded(draw(5), kind), "picture")), seen(draw(5))) > 0.97


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "I;16", "F"])
def test_every_mode_is_read(mode):
    picture = draw(5)
    deep = {"I": np.int32, "F": np.float32, "I;16": np.uint16}
    if mode in deep:
        picture = Image.fromarray(np.asarray(picture.convert("L")).astype(deep[mode]) * 200)
    else:
        picture = picture.convert(mode, dither=Image.Dither.NONE)
    assert picture.mode == mode
    assert alike(seen(reading.decode(encoded(picture, "TIFF"), "it")), seen(draw(5))) > 0.93


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file is empty"),
        (b"two words", "not a picture, but text"),
        (("x" + "ü" * 400).encode(), "not a picture, but text"),
        (b"%PDF-1.7\n\xff", "not a picture, but a PDF"),
        (b"<!doctype html><html>", "not a picture, but a web page"),
        (b"\x00\x01\x02\xff" * 40, "not a picture of a known format"),
    ],
)
def test_what_is_no_picture_is_said(content, says):
    with pytest.raises(ChainruleError, match=f"^it: {says}"):
        reading.decode(content, "it")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_a_truncated_picture_is_an_error_in_a_line(kind, share):
    whole = encoded(_noisy(draw(5)), kind)
    with pytest.raises(ChainruleError, match=r"^it: [^\n]*$"):
        reading.decode(whole[: int(len(whole) * share)], "it")


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_damaged_bytes_are_read_or_refused(data):
    content = bytearray(encoded(draw(5, (60, 60), at=(15, 10), unit=3, width=3), "PNG"))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ChainruleError):
        preprocessing.prepare(reading.decode(bytes(content), "it"))


def test_a_bomb_is_refused_before_it_is_unpacked():
    bomb = encoded(Image.new("1", (20_000, 20_000)))
    assert len(bomb) < 100_000
    with pytest.raises(ChainruleError, match="more than the 100,000,000"):
        reading.decode(bomb, "bomb.png")


def test_the_first_frame_of_an_animation_is_read():
    content = encoded(draw(5), "GIF", save_all=True, append_images=[draw(2), draw(7)])
    assert alike(seen(reading.decode(content, "it.gif")), seen(draw(5))) > 0.97


@pytest.mark.parametrize("level", [0, 128, 255])
def test_an_empty_page_is_said(level):
    with pytest.raises(preprocessing.NoInk):
        seen(Image.new("RGB", (300, 200), (level,) * 3))


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 40), (28, 28), (500, 400)])
def test_noise_alone_is_an_empty_page(size):
    noise = np.random.default_rng(1).normal(170, 8, (size[1], size[0]))
    if min(size) < 3:
        noise[:] = 170
    with pytest.raises(preprocessing.NoInk):
        seen(Image.fromarray(noise.astype(np.uint8)))


# -- One step at a time ---------------------------------------------------------------------------------


def test_the_light_is_taken_away_and_the_ink_left():
    plane = np.full((100, 80), 0.5, np.float32)
    plane += np.linspace(-0.2, 0.2, 100, dtype=np.float32)[:, None] ** 2 + np.linspace(
        0, 0.3, 80, dtype=np.float32
    )
    plane[40:60, 30:35] -= 0.25
    flat = paper.level(plane)
    assert np.abs(flat[:30]).max() < 0.01
    assert np.abs(flat[45:55, 32] + 0.25).max() < 0.02


def test_nothing_is_changed_by_a_step():
    rng = np.random.default_rng(0)
    plane = rng.random((60, 50)).astype(np.float32)
    for step in (
        *(
            colour.unframe,
            paper.level,
            paper.ink_up,
            paper.ink,
            cleaning.without_lines,
            cleaning.without_specks,
        ),
        *(finding.digit, fitting.enlarge, fitting.even_strokes, fitting.smooth, fitting.upright_strokes),
        *(fitting.fit,),
    ):
        before = plane.copy()
        result = step(plane)
        assert (plane == before).all(), step
        assert result.dtype == np.float32, step


def test_ruled_lines_go_and_the_digit_stays():
    picture = draw(5, width=9)
    on = ImageDraw.Draw(picture)
    for y in (20, 100, 180):
        on.line((0, y, 200, y + 3), fill=(90, 90, 160), width=2)
    assert alike(seen(picture), seen(draw(5, width=9))) > 0.9


@pytest.mark.parametrize("corner", [0, 25])
@pytest.mark.parametrize("turned", [0, 3])
def test_a_drawn_box_goes_and_the_digit_stays(corner, turned):
    plain = Image.new("RGB", (320, 300), (240, 240, 235))
    plain.paste(draw(5), (60, 50))
    framed = plain.copy()
    ImageDraw.Draw(framed).rounded_rectangle((30, 25, 290, 275), corner, outline=(20, 20, 30), width=6)
    framed = framed.rotate(turned, fillcolor=(240, 240, 235))
    assert alike(seen(framed), seen(plain.rotate(turned, fillcolor=(240, 240, 235)))) > 0.97
    assert len(preprocessing.prepare_many(framed)) == 1


@pytest.mark.parametrize("corner", [0, 40])
def test_an_angular_0_is_no_box(corner):
    page = Image.new("L", (200, 200), 255)
    on = ImageDraw.Draw(page)
    on.rounded_rectangle((50, 30, 150, 170), corner, outline=0, width=12)
    clean = seen(page)
    on.ellipse((96, 96, 101, 101), fill=0)  # a blot in it is no digit
    assert alike(seen(page), clean) > 0.97


def test_specks_and_a_shadow_at_the_edge_are_no_strokes():
    picture = draw(5)
    on = ImageDraw.Draw(picture)
    for x, y in ((20, 30), (170, 150), (150, 20)):
        on.ellipse((x, y, x + 4, y + 4), fill=(30, 30, 30))
    on.rectangle((0, 190, 60, 200), fill=(20, 20, 20))
    assert alike(seen(picture), seen(draw(5))) > 0.97


def test_a_broken_stroke_is_kept():
    picture = draw(5)
    ImageDraw.Draw(picture).rectangle((85, 45, 92, 65), fill=(240, 240, 235))  # the bar is cut off
    assert alike(seen(picture), seen(draw(5))) > 0.85


def test_a_slant_is_taken_out():
    slanted = draw(1).transform(
        (200, 200), Image.Transform.AFFINE, (1, 0.4, -40, 0, 1, 0), fillcolor=(240, 240, 235)
    )
    straight = preprocessing.prepare(slanted, deskew=True).image
    assert np.ptp(np.flatnonzero(straight.max(axis=0) > 127)) < np.ptp(
        np.flatnonzero(preprocessing.prepare(slanted).image.max(axis=0) > 127)
    )


def test_stroke_width_is_that_of_a_stripe():
    for width in (3, 6, 11):
        plane = np.zeros((200, 60), np.float32)
        plane[:, 20 : 20 + width] = 1
        assert fitting.stroke_width(plane) == pytest.approx(width, rel=0.2)
    image = np.zeros((1, 28, 28), np.uint8)
    image[:, :, 10:13] = 255
    assert measures.measures(image)["stroke width"][0] == pytest.approx(3, rel=0.1)


def test_several_digits_are_read_in_order():
    picture = Image.new("RGB", (640, 420), (240, 240, 235))
    order = [7, 5, 2, 4]
    for digit, at in zip(order, ((20, 0), (230, 10), (430, 5), (120, 220)), strict=True):
        picture.paste(draw(digit).crop((40, 30, 160, 175)), at)
    found = preprocessing.prepare_many(picture)
    assert len(found) == 4
    for digit, one in zip(order, found, strict=True):
        assert alike(one.image, seen(draw(digit))) > 0.9
        top, bottom, left, right = one.box
        assert 0 <= top < bottom <= 1
        assert 0 <= left < right <= 1


def test_every_step_keeps_its_picture():
    made = preprocessing.prepare(draw(5), keep=True)
    names = [step.name for step in made.steps]
    assert names[0] == "upright"
    assert names[-1] == "centred"
    assert len(set(names)) == len(names) >= 15
    assert preprocessing.prepare(draw(5)).steps == []


def test_the_naive_way_leaves_grey_paper():
    values = measures.measures(preprocessing.naive(draw(5, page=(180, 180, 180))).image[None])
    assert values["background"][0] == pytest.approx(75 / 255, abs=0.02)
