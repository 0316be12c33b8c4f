"""How each reader decides on the generated files of tests/idx/test_corpus.py: a table for docs/idx-format.md.

Each reader has a process of its own with 3 GiB of address space. "right" is the right array, "wrong" another
array, "accepted" an array from a file that is unsound, "refused" any exception, "memory" that 3 GiB did not
do. python-mnist is left out: it reads pairs of three-dimensional uint8 images and labels and nothing else.
"""

import json
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from idx_peers import readers

ROOT = Path(__file__).resolve().parents[1]
ADDRESS_SPACE = 3 << 30


def load_files() -> dict[str, tuple[bytes, object]]:
    return runpy.run_path(str(ROOT / "tests" / "idx" / "test_corpus.py"))["FILES"]


def decide(name: str) -> dict[str, str]:
    """What the reader ``name`` makes of each file."""
    import resource

    import idx

    reader = {"idx": idx.read, **readers()}[name]
    files = load_files()
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    outcomes = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (file, (data, expected)) in enumerate(files.items()):
            suffix = ".gz" if data.startswith(b"\x1f\x8b") else ""
            path = Path(folder) / f"{number}{suffix}"
            path.write_bytes(data)
            try:
                array = np.asarray(reader(str(path)))
            except MemoryError:
                outcomes[file] = "memory"
            except Exception:
                outcomes[file] = "refused"
            else:
                outcomes[file] = "accepted" if isinstance(expected, type) else judge(array, expected)
            path.unlink()
    return outcomes


def judge(array: np.ndarray, expected: np.ndarray) -> str:
    same_type = array.dtype.newbyteorder("=") == expected.dtype.newbyteorder("=")
    return (
        "right"
        if same_type and array.shape == expected.shape and np.array_equal(array, expected)
        else "wrong"
    )


def main() -> None:
    if len(sys.argv) > 1:
        json.dump(decide(sys.argv[1]), sys.stdout)
        return
    decisions = {}
    for name in ("idx", *(name for name in readers() if name != "python-mnist")):
        command = [sys.executable, __file__, name]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        decisions[name] = json.loads(done.stdout)
    print("\n### How each reader decides\n")
    print(f"| file | {' | '.join(decisions)} |")
    print("|---" * (1 + len(decisions)) + "|")
    files = load_files()
    for file in files:
        print(f"| {file} | {' | '.join(outcomes[file] for outcomes in decisions.values())} |")
    unsound = [file for file, (_, expected) in files.items() if isinstance(expected, type)]
    sound = [file for file in files if file not in unsound]
    for title, kind, good in (
        ("sound, read right", sound, "right"),
        ("unsound, refused", unsound, "refused"),
    ):
        counts = [sum(outcomes[file] == good for file in kind) for outcomes in decisions.values()]
        print(f"| **{title}, of {len(kind)}** | {' | '.join(map(str, counts))} |")


if __name__ == "__main__":
    main()
