"""How large the pages are, and how long the browser takes for a frame, a slider and a stroke.

    python benchmarks/page_speed.py [RUN ...]

Without a run: 2-3-2 and the untrained recipes. Each figure is the median of 20 in headless Chromium, from the
call to the end of layout; in milliseconds.
"""

import contextlib
import io
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from chainrule.cli import run

# Time WORK, 20 times with another k, until the browser has laid the page out.
TIME = """() => {
  const times = [];
  for (let k = 0; k < 20; k++) {
    const start = performance.now();
    WORK;
    document.body.getBoundingClientRect();
    times.push(performance.now() - start);
  }
  return times;
}"""
MEASURED = {
    "forward frame": "go(1 + (k % Math.max(1, net.steps.length)))",
    "backward frame": "go(view.frames.length - 1 - (k % Math.max(1, net.steps.length)))",
    "neuron frame": "(k || setLevel('neuron'), go(1 + k * 7))",
    "choose": "choose({ of: 'gradient', l: 0, u: k % ofOne(net.steps[0].x) })",
    "recompute": "recompute(net)",
}
DRAWN = {
    "stroke": "(drawn.strokes = EXAMPLES[k % 10].map((s) => s.map(([x, y]) => [2.8 * x, 2.8 * y])), update())"
}


def measure(page, path: Path, work: dict[str, str]) -> dict[str, float]:
    page.goto(path.as_uri())
    found = {}
    for name, code in work.items():
        timed = TIME.replace("WORK", code)
        found[name] = statistics.median(page.evaluate(timed))
    return found


def main(runs: list[str]) -> None:
    browser = next(path for name in ("chromium", "google-chrome") if (path := shutil.which(name)))
    subjects = [[name] for name in runs] or [["--net", "2-3-2"], ["simplenet"], ["mlp"], ["cnn"]]
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1280, "height": 800})
        for subject in subjects:
            path = Path(folder) / "explain.html"
            with contextlib.redirect_stdout(io.StringIO()):
                assert run(["explain", *subject, "--html", str(path)]) == 0
            print(f"{' '.join(subject)}: explain, {path.stat().st_size:,} bytes")
            print("  ".join(f"{k} {v:.1f}" for k, v in measure(page, path, MEASURED).items()))
            if subject[0] in runs:
                path = Path(folder) / "draw.html"
                with contextlib.redirect_stdout(io.StringIO()):
                    assert run(["draw", *subject, "--html", str(path)]) == 0
                print(f"{' '.join(subject)}: draw, {path.stat().st_size:,} bytes")
                print("  ".join(f"{k} {v:.1f}" for k, v in measure(page, path, DRAWN).items()))


if __name__ == "__main__":
    main(sys.argv[1:])
