"""What a command costs before it does anything, and how much memory a training takes at most.

    python benchmarks/startup.py [--rounds 11]

Each command's ``--help`` is started in turns, as a process of its own; medians of the wall clock and of the
processor time, which other programs disturb less. Then one epoch of each engine on 60,000 random images, in
a process of its own: the largest resident memory.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

EPOCH = """
import sys
sys.path[:0] = [{benchmarks!r}, {root!r}]
import numpy as np
from training_speed import engine_epoch
rng = np.random.default_rng(0)
images = rng.integers(0, 256, (60_000, 784), np.uint8)
epoch, close = engine_epoch({engine!r}, [784, 512, 256, 128, 10], 512, images, rng.integers(0, 10, 60_000), 1)
epoch()
"""


def started(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Return the wall clock and the processor time of one run, in seconds."""
    before, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - clock, processor


def peak_memory(code: str, environment: dict[str, str]) -> int:
    """Return the largest resident memory of a Python process that runs ``code``, in MB."""
    child = subprocess.Popen([sys.executable, "-c", code], env=environment)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"the process ended with {child.returncode}")
    return usage.ru_maxrss // (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    from chainrule.cli import app

    commands = ["", *sorted(info.callback.__name__ for info in app.registered_commands)]
    commands += sorted(group.name for group in app.registered_groups)
    lines = {f"chainrule {c}".strip(): ["-m", "chainrule", *c.split(), "--help"] for c in commands}
    lines |= {"idx": ["-m", "idx", "--help"], "python (nothing)": ["-c", ""]}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in lines}
    for _ in range(rounds):
        for name, arguments in lines.items():
            times[name].append(started([sys.executable, *arguments], environment))
    print("| --help of | wall clock, s | processor, s |\n| --- | --- | --- |")
    for name, found in times.items():
        wall, processor = (statistics.median(each) for each in zip(*found, strict=True))
        print(f"| `{name}` | {wall:.3f} | {processor:.3f} |")
    print("\n| one epoch of 784-512-256-128-10, batch 512, 60,000 images | peak memory, MB |\n| --- | --- |")
    for engine in ("numpy", "torch"):
        code = EPOCH.format(benchmarks=str(Path(__file__).parent), root=str(root), engine=engine)
        print(f"| {engine} | {peak_memory(code, environment)} |", flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main()
