"""What can be wrong with an IDX file: one family, so that ``except IdxError`` is enough."""


class IdxError(ValueError):
    """Something is wrong with the bytes of a source, or an array cannot be stored as IDX.

    The message names the source, the offset where that helps, what was found and what was expected. Trouble
    with the file system (no such file, no permission, a full disk) stays an ``OSError``.
    """


class BadMagicError(IdxError):
    """The first bytes are not those of an IDX file. The message says what they look like."""


class UnknownTypeError(IdxError):
    """Byte 2 of the header is none of the six types."""


class TruncatedError(IdxError):
    """The source ends before its header says that it does."""


class TrailingBytesError(IdxError):
    """The source goes on after its last element, and ``trailing="ignore"`` was not asked for."""


class TooLargeError(IdxError):
    """The array is larger than ``max_bytes``, or than memory or NumPy can hold."""


class DamagedCompressionError(IdxError):
    """A gzip, bzip2, xz or zip stream is damaged: its checksum or its structure is wrong."""


class WrongShapeError(IdxError):
    """The number of dimensions is not the one asked for: images where labels were expected, say."""


class UnsupportedArrayError(IdxError):
    """The array to be written has a type, a value or a size that IDX has not."""
