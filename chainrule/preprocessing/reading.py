"""A picture from a file or from bytes, whatever its format and mode, or one line that says why not."""

import codecs
import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.errors import ChainruleError

if TYPE_CHECKING:
    from PIL.Image import Image

# A photograph of today's telephones has up to 50 million pixels, their largest sensors 200 million; only what
# Pillow can shrink while it decodes (JPEG) may have more of them than this, up to what it calls a bomb.
MOST_PIXELS = 100_000_000
# Steps look at a picture of at most this many pixels a side: a digit is 20 pixels high in the end.
WORKING_SIDE = 384


def read(path: Path) -> "Image":
    """Return the picture in a file; see `decode`. Raises ChainruleError, one line that names the file."""
    try:
        return decode(path.read_bytes(), str(path))
    except OSError as error:
        raise ChainruleError(f"{path}: {error.strerror or error}") from None


def decode(content: bytes, name: str) -> "Image":
    """Return the picture in the bytes of a file: mode L, RGB or RGBA, 8 bit; the first frame of several.

    A large one is shrunk to at most four times WORKING_SIDE while it is decoded, where its format can.
    ``name`` stands in errors. Raises ChainruleError for what is no picture, cut short, or larger than
    MOST_PIXELS, before memory is taken for it.
    """
    Image, UnidentifiedImageError = _pillow()
    if not content:
        raise ChainruleError(f"{name}: the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, and of large pictures: see below
            with Image.open(io.BytesIO(content)) as image:
                width, height = image.size
                # 4: what lies below may be read from 16 pixels each
                image.draft(None, (4 * WORKING_SIDE, 4 * WORKING_SIDE))
                if image.size[0] * image.size[1] > MOST_PIXELS:
                    raise ChainruleError(
                        f"{name}: {width:,} x {height:,} pixels, more than the {MOST_PIXELS:,} that are read"
                    )
                image.load()
                return _eight_bit(image)
    except UnidentifiedImageError:
        raise ChainruleError(f"{name}: not a picture{_guess(content)}") from None
    except Image.DecompressionBombError:
        raise ChainruleError(f"{name}: more than the {MOST_PIXELS:,} pixels that are read") from None
    except MemoryError:
        raise ChainruleError(f"{name}: {width:,} x {height:,} pixels do not fit into memory") from None
    # Pillow's decoders raise what they like at damaged bytes.
    except (OSError, SyntaxError, ValueError, KeyError, IndexError, TypeError, EOFError, ZeroDivisionError,
            OverflowError, AttributeError, RuntimeError) as error:  # fmt: skip
        raise ChainruleError(f"{name}: a damaged picture: {str(error) or type(error).__name__}") from None


def _pillow() -> tuple[Any, type[Exception]]:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise ChainruleError(
            "pictures need Pillow and SciPy, which are not installed: pip install 'chainrule[pictures]'"
        ) from None
    return Image, UnidentifiedImageError


def _eight_bit(image: "Image") -> "Image":
    """Return a picture in mode L, RGB or RGBA; what has more than eight bits is spread over them."""
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, np.float64)
        values = np.nan_to_num(values, posinf=0.0, neginf=0.0)
        low, high = values.min(), values.max()
        scaled = (values - low) * (255 / (high - low)) if high > low else values * 0
        found = Image.fromarray(np.round(scaled).astype(np.uint8))
    elif image.mode in ("L", "RGB", "RGBA"):
        found = image.copy()
    elif image.mode in ("LA", "La", "PA", "RGBa") or "transparency" in image.info:
        found = image.convert("RGBA")
    else:
        found = image.convert("L" if image.mode == "1" else "RGB")
    if "transparency" in image.info and found.mode != "RGBA" and not image.mode.startswith(("I", "F")):
        found = image.convert("RGBA")
    if found.mode == "RGBA" and found.getchannel("A").getextrema() == (255, 255):
        found = found.convert("RGB")
    # Only the rotation is of use later.
    orientation = image.getexif().get(0x0112)
    found.info = {}
    if orientation in range(2, 9):
        found.getexif()[0x0112] = orientation
    return found


def _guess(content: bytes) -> str:
    """Say what a file that is no picture seems to be."""
    head = content[:512].lstrip()
    if head.startswith(b"%PDF"):
        return ", but a PDF: export the page as PNG"
    if head[:1] == b"<" and b"svg" in head.lower():
        return " of pixels, but an SVG drawing: export it as PNG"
    if head[:1] == b"<" and b"html" in head.lower():
        return ", but a web page"
    if b"ftypheic" in content[:32] or b"ftypheix" in content[:32] or b"ftypmif1" in content[:32]:
        return " that Pillow reads, but HEIC: save it as JPEG or PNG"
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(content[:512])  # which may end within a letter
    except UnicodeDecodeError:
        text = "\0"
    return " of a known format, or damaged from its first bytes on" if "\0" in text else ", but text"
