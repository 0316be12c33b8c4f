"""One member of a zip archive, as a source of its own."""

import struct
import zipfile
import zlib
from contextlib import ExitStack
from typing import IO, cast

from idx.errors import BadMagicError, DamagedCompressionError, IdxError
from idx.sources import RawSource

# What zipfile lets out when an archive is damaged, besides its own error.
_DAMAGE = (
    zipfile.BadZipFile,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    ValueError,
    struct.error,
    zlib.error,
)
# zipfile inflates these two in bounded steps, and bzip2 and LZMA members without any bound (CPython issue
# 156002).
_BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class _Member:
    """The bytes of a member; what is wrong with them is an `IdxError`."""

    def __init__(self, name: str, file: IO[bytes]) -> None:
        self._name = name
        self._file = file

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._file.read(size)
        except _DAMAGE as error:
            raise DamagedCompressionError(
                f"{self._name}: the zip member is damaged ({_reason(error)})"
            ) from None


def open_member(raw: RawSource, stack: ExitStack) -> RawSource:
    """Open the member that ``raw`` names, or the only one of its archive."""
    if raw.size is None:
        raise BadMagicError(f"{raw.name}: a zip archive can be read only from a file that can seek")
    try:
        archive = stack.enter_context(zipfile.ZipFile(cast(IO[bytes], raw.file)))
        information = _choose(archive, raw)
        name = raw.name if raw.member else f"{raw.name}!{information.filename}"
        file = stack.enter_context(archive.open(information))
    except IdxError:
        raise
    except _DAMAGE as error:
        raise DamagedCompressionError(
            f"{raw.name}: the zip archive is damaged or encrypted ({_reason(error)})"
        ) from None
    member = RawSource(name, _Member(name, file))
    member.set_size(min(information.compress_size, raw.size), surely=False)
    return member


def _reason(error: Exception) -> str:
    """What zipfile says, or zlib; anything else tells more about their code than about the archive."""
    known = isinstance(error, zipfile.BadZipFile | RuntimeError | zlib.error)
    return str(error) if known else "its structure is wrong"


def _choose(archive: zipfile.ZipFile, raw: RawSource) -> zipfile.ZipInfo:
    members = [information for information in archive.infolist() if not information.is_dir()]
    names = ", ".join(information.filename for information in members[:5]) + (
        ", ..." if len(members) > 5 else ""
    )
    if raw.member:
        chosen = [information for information in members if information.filename == raw.member]
        if not chosen:
            raise BadMagicError(f"{raw.name}: the zip archive has no such member, expected one of: {names}")
    else:
        chosen = members
        if members and all(information.filename.endswith(".npy") for information in members):
            raise BadMagicError(
                f"{raw.name}: found a NumPy .npz archive ({names}), expected an IDX file: "
                "`idx convert` turns it into one"
            )
        if len(members) != 1:
            raise BadMagicError(
                f"{raw.name}: found a zip archive of {len(members)} files ({names}), "
                "expected the name of one after an exclamation mark: archive.zip!path/inside"
            )
    if chosen[-1].compress_type not in _BOUNDED:
        raise DamagedCompressionError(
            f"{raw.name}: the member is compressed with zip method {chosen[-1].compress_type}, "
            "expected stored (0) or deflated (8)"
        )
    return chosen[-1]
