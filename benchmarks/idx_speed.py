"""Time and peak memory of `idx` beside NumPy, zlib and other readers: `make bench-idx`.

Everything of one table runs in turns, round after round, in one process; the figures are medians. Peak memory
is what one call adds to the resident memory of a process of its own, divided by the size of the array.
"""

import argparse
import gzip
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

import idx
import idx.inflate

sys.path.insert(0, str(Path(__file__).parent))
from idx_peers import readers

ROOT = Path(__file__).resolve().parents[1]
REAL = ROOT.parent / "shared" / "datasets" / "mnist" / "train-images-idx3-ubyte.gz"
HEADER = 16


def fromfile(path: str) -> np.ndarray:
    return np.fromfile(path, np.uint8, offset=HEADER)


def read_and_swap(path: str) -> np.ndarray:
    array = np.empty((Path(path).stat().st_size - HEADER) // 4, np.float32)
    with Path(path).open("rb", buffering=0) as file:
        file.seek(HEADER)
        file.readinto(array.data)
    return array.byteswap(inplace=True)


def zlib_into_exact(path: str, size: int) -> bytes:
    return zlib.decompress(Path(path).read_bytes(), 31, size)


def gzip_decompress(path: str) -> np.ndarray:
    return np.frombuffer(gzip.decompress(Path(path).read_bytes()), np.uint8, offset=HEADER)


def tofile(path: str, header: bytes, array: np.ndarray, *, sync: bool = False) -> None:
    with Path(path).open("wb") as file:
        file.write(header)
        array.tofile(file)
        if sync:
            os.fsync(file.fileno())


def read_with(engine: str) -> Callable[[str], np.ndarray]:
    """`idx.read`, inflating with zlib or with ISA-L."""

    def read(path: str) -> np.ndarray:
        installed = idx.inflate.ENGINES["gzip"]
        if engine == "zlib":
            idx.inflate.ENGINES["gzip"] = (lambda: zlib.decompressobj(31), installed[1])
        try:
            return idx.read(path)
        finally:
            idx.inflate.ENGINES["gzip"] = installed

    return read


def in_turns(subjects: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median seconds of each subject; who begins changes from round to round."""
    times: dict[str, list[float]] = {name: [] for name in subjects}
    for call in subjects.values():
        call()
    turns = list(subjects.items())
    for _ in range(rounds):
        turns.reverse()
        for name, call in turns:
            start = time.perf_counter()
            result = call()
            times[name].append(time.perf_counter() - start)
            del result
    return {name: statistics.median(values) for name, values in times.items()}


def peak_memory(expression: str, payload: int) -> float:
    """What ``expression``, in terms of this module, adds to the peak memory, per byte of ``payload``."""
    code = f"""
import sys
sys.path.insert(0, {str(ROOT / "benchmarks")!r})
import idx_speed as here
from idx_speed import *
import idx.reading, idx.writing, gzip
here.readers()
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024
before = peak()
result = {expression}
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1]) / payload


def table(
    title: str,
    seconds: dict[str, float],
    bars: dict[tuple[str, str], float],
    peaks: dict[str, float] | None = None,
) -> None:
    """Print the medians and their ratios; ``bars`` has the most that a subject may take of a base."""
    bases = sorted({base for _, base in bars}, key=list(seconds).index) or list(seconds)[:1]
    print(f"\n### {title}\n\n| | median |{''.join(f' of {base} |' for base in bases)} peak memory / array |")
    print("|---" * (3 + len(bases)) + "|")
    for name, value in seconds.items():
        ratios = [
            f"{value / seconds[base]:.3f}"
            + (f" (must be <= {bars[name, base]})" if (name, base) in bars else "")
            for base in bases
        ]
        peak = f"{peaks[name]:.2f}" if peaks and name in peaks else ""
        print(f"| {name} | {value * 1e3:.2f} ms | {' | '.join(ratios)} | {peak} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21, help="rounds of the fast tables (default 21)")
    parser.add_argument("--slow-rounds", type=int, default=3, help="rounds of the slow readers (default 3)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), options.rounds, options.slow_rounds)


def measure(folder: Path, rounds: int, slow_rounds: int) -> None:
    if REAL.exists():
        images = idx.read(REAL)
        packed = REAL.read_bytes()
    else:
        print("the real MNIST is not in ../shared: random blocks of the same size instead", file=sys.stderr)
        images = np.random.default_rng(0).integers(0, 60, (60000, 28, 28), np.uint8)
        images[images > 12] = 0
        packed = gzip.compress(idx.Header(images.dtype, images.shape).encode() + images.tobytes(), 6)
    (folder / "images.gz").write_bytes(packed)
    floats = np.random.default_rng(0).random((60000, 14, 14), np.float32)
    idx.write(folder / "images", images)
    idx.write(folder / "floats", floats)
    measure_raw(folder, images.nbytes, 5 * rounds)  # milliseconds each: more rounds, less chance
    measure_opening(folder)
    measure_gzip(folder, images.nbytes, rounds)
    measure_readers(folder, images.nbytes, slow_rounds)
    measure_writing(folder, images, floats, 3 * rounds)


def measure_raw(folder: Path, nbytes: int, rounds: int) -> None:
    images, floats = str(folder / "images"), str(folder / "floats")
    table(
        "Reading uint8, 47 MB, not compressed",
        in_turns({"np.fromfile": lambda: fromfile(images), "idx.read": lambda: idx.read(images)}, rounds),
        {("idx.read", "np.fromfile"): 1.05},
        {
            "np.fromfile": peak_memory(f"fromfile({images!r})", nbytes),
            "idx.read": peak_memory(f"idx.read({images!r})", nbytes),
        },
    )
    by_hand = "readinto and byteswap in place"
    table(
        "Reading float32, 47 MB, not compressed",
        in_turns({by_hand: lambda: read_and_swap(floats), "idx.read": lambda: idx.read(floats)}, rounds),
        {("idx.read", by_hand): 1.1},
        {
            by_hand: peak_memory(f"read_and_swap({floats!r})", nbytes),
            "idx.read": peak_memory(f"idx.read({floats!r})", nbytes),
        },
    )


def measure_opening(folder: Path) -> None:
    sparse = folder / "sparse"
    with sparse.open("wb") as file:
        file.write(idx.Header(np.dtype(np.uint8), (4, 1 << 30)).encode())
        file.truncate(12 + (4 << 30))
    medians = in_turns(
        {"47 MB": lambda: idx.open(folder / "images"), "4 GiB": lambda: idx.open(sparse)}, 2001
    )
    print("\n### Opening a mapped file (must be < 0.1 ms)\n\n| | median |\n|---|---|")
    for name, value in medians.items():
        print(f"| {name} | {value * 1e3:.3f} ms |")


def measure_gzip(folder: Path, nbytes: int, rounds: int) -> None:
    path, size = str(folder / "images.gz"), nbytes + HEADER
    exact, plain, ours, fast = (
        "zlib into an exact buffer",
        "gzip.decompress",
        "idx.read with zlib",
        "idx.read with isal ([fast])",
    )
    subjects: dict[str, Callable[[], object]] = {
        exact: lambda: zlib_into_exact(path, size),
        plain: lambda: gzip_decompress(path),
        ours: lambda: read_with("zlib")(path),
    }
    expressions = {
        exact: f"zlib_into_exact({path!r}, {size})",
        plain: f"gzip_decompress({path!r})",
        ours: f"read_with('zlib')({path!r})",
    }
    if importlib.util.find_spec("isal"):
        subjects[fast] = lambda: read_with("isal")(path)
        expressions[fast] = f"read_with('isal')({path!r})"
    else:
        print("isal is not installed: [fast] is left out", file=sys.stderr)
    table(
        "Reading uint8, 47 MB, gzip",
        in_turns(subjects, rounds),
        {(ours, exact): 1.05, (fast, plain): 0.5},
        {name: peak_memory(expression, nbytes) for name, expression in expressions.items()},
    )


def measure_readers(folder: Path, nbytes: int, rounds: int) -> None:
    peers = readers()
    for title, path in (("not compressed", str(folder / "images")), ("gzip", str(folder / "images.gz"))):
        names = [name for name in peers if title != "gzip" or not name.startswith("torchvision")]
        subjects = {name: (lambda read=peers[name], path=path: read(path)) for name in names}
        expressions = {name: f"readers()[{name!r}]({path!r})" for name in names}
        table(
            f"Other readers, uint8, 47 MB, {title}",
            in_turns({"idx.read": lambda path=path: idx.read(path), **subjects}, rounds),
            {},
            {
                name: peak_memory(expression, nbytes)
                for name, expression in {"idx.read": f"idx.read({path!r})", **expressions}.items()
            },
        )


def measure_writing(folder: Path, images: np.ndarray, floats: np.ndarray, rounds: int) -> None:
    header = idx.header(folder / "images").encode()
    paths = [str(folder / f"out{number}") for number in range(4)]
    cached, synced = "idx.write(sync=False)", "idx.write"
    table(
        "Writing uint8, 47 MB, left to the system's cache",
        in_turns(
            {
                "tofile": lambda: tofile(paths[0], header, images),
                cached: lambda: idx.write(paths[1], images, sync=False),
            },
            rounds,
        ),
        {(cached, "tofile"): 1.1},
    )
    table(
        "Writing uint8, 47 MB, until it is on the disk",
        in_turns(
            {
                "tofile and fsync": lambda: tofile(paths[0], header, images, sync=True),
                synced: lambda: idx.write(paths[1], images),
            },
            rounds,
        ),
        {(synced, "tofile and fsync"): 1.1},
    )
    table(
        "Writing float32, 47 MB, left to the system's cache",
        in_turns(
            {
                "astype('>f4') and tofile": lambda: tofile(paths[2], header, floats.astype(">f4")),
                cached: lambda: idx.write(paths[3], floats, sync=False),
            },
            rounds,
        ),
        {(cached, "astype('>f4') and tofile"): 1.1},
    )


if __name__ == "__main__":
    main()
