"""What a file is, told from its first bytes: the compressions, and what people meet instead of IDX."""

from collections.abc import Sequence

from idx.layout import TYPES

#: How many bytes of a source decide which compression it has.
HEAD = 4
#: How many bytes are looked at to say what a file that is not IDX is.
LOOK = 64

_COMPRESSIONS = {"gzip": b"\x1f\x8b", "bzip2": b"BZh", "xz": b"\xfd7zX", "zip": b"PK\x03\x04"}

# The "matrix" files of the NORB data set share IDX's idea, not its bytes: S. Huang and Y. LeCun, "The NORB
# dataset".
_MATRIX = {
    0x1E3D4C51: "float32",
    0x1E3D4C52: "packed",
    0x1E3D4C53: "float64",
    0x1E3D4C54: "int32",
    0x1E3D4C55: "uint8",
    0x1E3D4C56: "int16",
}

_OTHERS: Sequence[tuple[bytes, str]] = (
    (b"\x93NUMPY", "a NumPy .npy file: read it with numpy.load, or turn it into IDX with `idx convert`"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself: run `git lfs pull`"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed data, which idx does not open: run `unzstd` first"),
    (b"\x04\x22\x4d\x18", "lz4-compressed data, which idx does not open: run `unlz4` first"),
    (b"\x1f\x9d", "a Unix compress (.Z) file, which idx does not open: run `uncompress` first"),
    (b"7z\xbc\xaf", "a 7z archive, which idx does not open"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"%PDF", "a PDF document"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x80\x02", "a Python pickle"),
    (b"\x80\x03", "a Python pickle"),
    (b"\x80\x04", "a Python pickle"),
    (b"\x80\x05", "a Python pickle"),
)


def compression_of(head: bytes) -> str | None:
    """``"gzip"``, ``"bzip2"``, ``"xz"`` or ``"zip"`` if a source begins with ``head``, else None."""
    for name, magic in _COMPRESSIONS.items():
        if head.startswith(magic):
            return name
    return None


def looks_like(head: bytes) -> str | None:
    """What a source that is not IDX and begins with ``head`` seems to be, in words; None if nobody knows."""
    if compression := compression_of(head):
        return f"{compression} data inside the compressed data: the file was compressed twice"
    for magic, description in _OTHERS:
        if head.startswith(magic):
            return description
    for magic in (head[:4], head[3::-1]):
        if kind := _MATRIX.get(int.from_bytes(magic, "big")):
            return f'a NORB "matrix" file ({kind}), a format of its own'
    if len(head) >= 4 and head[2:4] == b"\0\0" and head[1] in TYPES:
        return f"a little-endian IDX header ({TYPES[head[1]]}, {head[0]} dimensions): IDX is big-endian"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        return "an HTML or XML page, probably an error page saved in place of the download"
    if head and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        return "a text file"
    return None
