"""Peak memory as the operating system sees it, each case in a process of its own."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import idx

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from Linux's /proc")

ROOT = Path(__file__).resolve().parents[2]
PAYLOAD = 64 << 20

MEASURE = """
import sys
import idx, idx.lazy, idx.writing
def peak():  # not getrusage: its peak begins with that of the process that started this one
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
before = peak()
exec(sys.argv[1])
print(peak() - before)
"""


def peak_of(code):
    result = subprocess.run(
        [sys.executable, "-c", MEASURE, code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    return int(result.stdout)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """64 MiB of float32 that compress a little, raw and compressed."""
    folder = tmp_path_factory.mktemp("memory")
    array = np.tile(np.random.default_rng(0).random(1 << 16, np.float32), PAYLOAD >> 18).reshape(-1, 1024)
    idx.write(folder / "raw", array, sync=False)
    idx.write(folder / "x.gz", array, sync=False)
    return folder


@pytest.mark.parametrize("name", ["raw", "x.gz"])
def test_reading_takes_the_payload_and_little_more(files, name):
    peak = peak_of(f"array = idx.read({str(files / name)!r})")
    assert PAYLOAD * 0.9 < peak < PAYLOAD * 1.2


@pytest.mark.parametrize("name", ["raw", "x.gz"])
def test_a_copy_of_a_lazy_array_is_made_once(files, name):
    peak = peak_of(f"import numpy as np; array = np.array(idx.open({str(files / name)!r}))")
    mapped = PAYLOAD if name == "raw" else 0
    assert peak < PAYLOAD * 1.2 + mapped


def test_reading_a_pipe_takes_the_payload_and_little_more(files):
    peak = peak_of(
        "import subprocess; "
        f"array = idx.read(subprocess.Popen(['cat', {str(files / 'raw')!r}], stdout=subprocess.PIPE).stdout)"
    )
    assert PAYLOAD * 0.9 < peak < PAYLOAD * 1.2


def test_writing_swaps_and_packs_in_pieces(files, tmp_path):
    before = f"array = idx.read({str(files / 'raw')!r}); "
    write = f"idx.write({str(tmp_path / 'x')!r}, array.T); idx.write({str(tmp_path / 'x.gz')!r}, array[::-1])"
    assert peak_of(before + write) < PAYLOAD * 1.2


def test_converting_takes_the_result_and_little_more():
    code = f"import numpy as np; array = np.ones({PAYLOAD >> 3}, np.int64); "
    code += "idx.writing.as_storable(array, 'same_value', None)"
    assert peak_of(code) < PAYLOAD * 1.7  # the array, and half of that as int32


def test_opening_verifying_and_iterating_take_no_memory(files):
    for name in ("raw", "x.gz"):
        path = str(files / name)
        code = (
            f"idx.verify({path!r}); total = sum(float(chunk.sum()) for chunk in idx.open({path!r}).chunks())"
        )
        # The pages of a mapped file count as resident while they are in use, but they are the cache's.
        assert peak_of(code) < (PAYLOAD * 1.2 if name == "raw" else 12 << 20)
