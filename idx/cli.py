"""The command line ``idx``: it parses, calls the library, and turns each known error into one line.

NumPy and everything that needs it is imported by the commands, so that ``idx --help`` comes at once.
"""

import errno
import io
import json
import operator
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idx.errors import IdxError
from idx.progress import printable, progress

if TYPE_CHECKING:
    from idx.layout import AnyArray, Header
    from idx.lazy import LazyArray

app = typer.Typer(
    name="idx",
    help="Inspect, check, show and convert IDX files (the format of MNIST), compressed or not.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

# An index such as -1 is no option.
_NEGATIVE_INDEXES = {"ignore_unknown_options": True}

File = Annotated[
    str, typer.Argument(metavar="FILE", help="An IDX file; archive.zip!path for one in a zip archive.")
]
Files = Annotated[list[str], typer.Argument(metavar="FILE", help="IDX files.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"idx {version('chainrule')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def info(files: Files, as_json: Json = False) -> int:
    """Say what is in each FILE, from its header.

    \b
    Example:
      idx info train-images-idx3-ubyte.gz
    """

    def describe(path: str) -> dict[str, Any]:
        from idx.reading import check_size, read_header
        from idx.sources import opened

        with opened(path) as stream:
            header = read_header(stream)
            check_size(stream, header, "error")
            return {"file": path, **_as_data(header), "compression": stream.compression}

    return _for_each(files, describe, _info_line, as_json)


def _info_line(entry: dict[str, Any]) -> str:
    how = f"compressed with {entry['compression']}" if entry["compression"] else "not compressed"
    name, shape = printable(entry["file"]), tuple(entry["shape"])
    return f"{name}: {entry['dtype']} {shape}, {entry['nbytes']:,} bytes, {how}"


@app.command()
def verify(files: Files, as_json: Json = False) -> int:
    """Read every byte of each FILE and verify every checksum.

    \b
    Example:
      idx verify *-ubyte.gz
    """

    def check(path: str) -> dict[str, Any]:
        import idx

        with progress(f"Verifying {path}"):
            return {"file": path, **_as_data(idx.verify(path))}

    return _for_each(
        files,
        check,
        lambda entry: f"{printable(entry['file'])}: in order, {entry['dtype']} {tuple(entry['shape'])}",
        as_json,
    )


def _as_data(header: "Header") -> dict[str, Any]:
    return {"dtype": str(header.dtype), "shape": list(header.shape), "nbytes": header.nbytes}


def _for_each(
    files: list[str],
    look_at: Callable[[str], dict[str, Any]],
    line: Callable[[dict[str, Any]], str],
    as_json: bool,
) -> int:
    """Print what ``look_at`` finds for each file; after one that is wrong, go on with the next."""
    status, entries = 0, []
    for path in files:
        try:
            entry = look_at(path)
        except (IdxError, OSError) as error:
            status = _fail(_message(error), 1)
            entries.append({"file": path, "error": _message(error)})
            continue
        entries.append(entry)
        if not as_json:
            print(line(entry))
    if as_json:
        print(json.dumps(entries, indent=2, allow_nan=False))
    return status


@app.command(context_settings=_NEGATIVE_INDEXES)
def show(
    file: File,
    which: Annotated[
        str, typer.Argument(metavar="[INDEX or RANGE]", help="7, or 0:10, or 0:1000:100.")
    ] = "0",
    labels: Annotated[
        str | None, typer.Option(metavar="FILE", help="The labels that belong to the pictures.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="PICTURE", help="Write a PNG instead, many side by side.")
    ] = None,
) -> None:
    """Show elements of FILE: pictures as pictures, anything else as numbers.

    \b
    Example:
      idx show train-images-idx3-ubyte.gz 0:100 --labels train-labels-idx1-ubyte.gz --out digits.png
    """
    import idx

    with idx.open(file) as array:
        chosen = _slice(which, array)
        rows = range(len(array) if array.ndim else 1)[chosen]
        items = array[chosen] if array.ndim else [array[()]][chosen]
    captions = [""] * len(rows)
    if labels is not None:
        marks = idx.read(labels, ndim=1)
        if len(marks) != len(array):
            raise IdxError(f"{labels}: found {len(marks)} labels, expected {len(array)} as in {file}")
        captions = [str(mark) for mark in marks[chosen]]
    if out is not None:
        _save_montage(out, file, items, captions)
        return
    for number, item, caption in zip(rows, items, captions, strict=True):
        text = _in_text(item)
        print(f"{number}:{caption and f' {caption}'}", end="\n" if "\n" in text else " ")
        print(text)


def _slice(text: str, array: "LazyArray") -> slice:
    """The rows of ``array`` that ``text`` names."""
    try:
        parts = [int(part) if part.strip() else None for part in text.split(":")]
        chosen = slice(*parts)
        range(0)[chosen]  # a step of 0 is an error
        index = operator.index(parts[0]) if len(parts) == 1 else None  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise typer.BadParameter(
            f"{text!r} is neither an index (7) nor a range (0:10 or 0:1000:100)"
        ) from None
    if index is None:
        return chosen
    length = len(array) if array.ndim else 1
    if not -length <= index < length:
        raise IdxError(f"{array.name}: found {length} elements, expected one with the index {index}")
    return slice(index % length, index % length + 1)


def _in_text(item: "AnyArray") -> str:
    import numpy as np

    from idx.pictures import in_colour, in_shades, is_picture, to_grey

    item = np.asarray(item)
    if not is_picture(item) or 0 in item.shape:
        return np.array2string(item, threshold=sys.maxsize)
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        return in_colour(to_grey(item))
    return in_shades(to_grey(item), sys.stdout.encoding)


def _save_montage(out: str, file: str, items: Sequence["AnyArray"], captions: Sequence[str]) -> None:
    from pathlib import Path

    from idx.pictures import is_picture, montage
    from idx.writing import replacing

    if not len(items) or not is_picture(items[0]) or 0 in items[0].shape:
        found = f"elements of shape {items[0].shape}" if len(items) else "no elements"
        raise IdxError(f"{file}: found {found}, expected pictures (height, width)")
    picture = montage(items, captions)
    with replacing(Path(out)) as target:
        picture.save(target, "PNG")


@app.command()
def convert(
    source: Annotated[
        str, typer.Argument(metavar="A", help="IDX, .npy, .npz, .csv or a folder of PNG pictures.")
    ],
    target: Annotated[str, typer.Argument(metavar="B", help="The same; a folder ends in a slash.")],
) -> None:
    """Convert A into B, whose kind its name says.

    A type that IDX has not becomes the nearest that it has, if no value changes.

    \b
    Example:
      idx convert train-images-idx3-ubyte.gz pictures/
    """
    from idx.convert import load, save

    with progress(f"Reading {source}") as track:
        array = load(source, track)
    with progress(f"Writing {target}") as track:
        save(target, array, track)


@app.command(context_settings=_NEGATIVE_INDEXES)
def cut(
    file: File,
    rows: Annotated[str, typer.Argument(metavar="RANGE", help="0:1000, or 0:60000:10, or one index.")],
    out: Annotated[
        str, typer.Option(metavar="B", help="The IDX file to write; compressed if it ends in .gz, .bz2, .xz.")
    ],
) -> None:
    """Write some elements of FILE to another file.

    \b
    Example:
      idx cut train-images-idx3-ubyte.gz 0:1000 --out small.gz
    """
    import idx

    with idx.open(file) as array, progress(f"Cutting {file}"):
        if not array.ndim:
            raise IdxError(f"{file}: found no dimensions, expected at least one to cut along")
        idx.write(out, array[_slice(rows, array)])


@app.command()
def cat(
    files: Files,
    out: Annotated[
        str | None, typer.Option(metavar="B", help="The IDX file to write; without it, standard output.")
    ] = None,
) -> None:
    """Join FILES along their first dimension.

    \b
    Example:
      idx cat train-labels-idx1-ubyte.gz t10k-labels-idx1-ubyte.gz --out all-labels.gz
    """
    import idx
    from idx.layout import Header
    from idx.writing import write_pieces

    if out is None and sys.stdout.isatty():
        raise typer.BadParameter("IDX is not text: give --out FILE, or send the output to a file or a pipe")
    with ExitStack() as stack:
        parts = [stack.enter_context(idx.open(path)) for path in files]
        first = parts[0]
        for part in parts:
            if not first.ndim or (part.dtype, part.shape[1:]) != (first.dtype, first.shape[1:]):
                raise IdxError(
                    f"{part.name}: found {part.header}, expected the type of {first.name} "
                    f"and its shape but for the first dimension: {first.header}"
                )
        joined = Header(first.dtype, (sum(map(len, parts)), *first.shape[1:]))
        stack.enter_context(progress("Joining"))
        chunks = (chunk for part in parts for chunk in part.chunks())
        write_pieces(sys.stdout.buffer if out is None else out, joined, chunks)


@app.command()
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="An IDX file.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another.")],
    as_json: Json = False,
) -> int:
    """Compare two IDX files element by element, however they are compressed. Exit status 1 if they differ.

    \b
    Example:
      idx diff train-labels-idx1-ubyte.gz relabelled.gz
    """
    import idx
    from idx.compare import compare

    with idx.open(a) as first, idx.open(b) as second, progress("Comparing") as track:
        result = compare(first, second, track)
    if as_json:
        print(json.dumps(result.as_data(), indent=2, allow_nan=False))
    else:
        print(result)
    return int(result.differ)


def run(arguments: list[str] | None = None) -> int:
    """Run one command line and return its exit status: 0, 1 (it failed) or 2 (it was used wrongly)."""
    if arguments is None:
        arguments = sys.argv[1:]
    try:
        status = app(args=arguments or ["--help"], prog_name="idx", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except typer.TyperException as error:
        return _fail(error.format_message(), error.exit_code)
    except (BrokenPipeError, SystemExit) as error:
        cause = error.__context__ if isinstance(error, SystemExit) else error
        if not (isinstance(cause, OSError) and cause.errno == errno.EPIPE):
            raise
        # The reader of our output (`head`) has gone, for which typer exits. Python would complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (IdxError, OSError) as error:
        return _fail(_message(error), 1)
    except MemoryError:
        return _fail("the array does not fit into memory", 1)
    except ModuleNotFoundError as error:
        return _fail(f"this needs {error.name}: pip install 'chainrule[digits]'", 1)
    except KeyboardInterrupt:
        return _fail("stopped", 130)


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _fail(message: str, status: int) -> int:
    print(f"idx: {printable(' '.join(message.split()))}", file=sys.stderr)
    return status


def main() -> None:
    """Run the command line of this process and exit with its status."""
    if sys.stdout is None:  # closed by the caller
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 (without pathlib --help comes sooner)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names that the terminal cannot show
    sys.exit(run())


if __name__ == "__main__":
    main()
