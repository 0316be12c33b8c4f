"""Make the pages of the gallery of mistakes, docs/_generated/mistakes/, from the catalogue of mutants.

Each mistake is planted in the engine: its gradient is laid beside the right one, and a small network is
trained with it on the embedded digits. Everything is seeded. Nothing is made anew while the engine, the
catalogue and these files are what they were.

    python docs/make_gallery.py                 # all, one to two minutes
    python docs/make_gallery.py --only Dropout  # some operations, quickly; the others' pages are left out
"""

import argparse
import hashlib
import os
import re
import sys
import time
from html import escape
from pathlib import Path

for _variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")  # what is multiplied here is small

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_gallery"), str(HERE / "_ext")]

import draw  # noqa: E402
import measure  # noqa: E402
import words  # noqa: E402
from formula import NotAFormula, latex  # noqa: E402
from settings import Setting, settings_of  # noqa: E402

from agreement.mutants import ALL, Mutant  # noqa: E402

SEEDS = 3  # of the right training: what another seed changes is no effect of a mistake
EFFECTS = (
    *("stops", "diverges", "learns nothing", "learns badly", "loses a little", "slower", "converges"),
    "no trace",
)


def main() -> None:
    """Make what has changed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", metavar="OPERATION", help="make the pages of these alone")
    parser.add_argument(
        "--out", type=Path, default=HERE / "_generated" / "mistakes", help="folder of the pages"
    )
    options = parser.parse_args()
    stamp = _stamp(options.only)
    kept = options.out / ".made-from"
    if kept.is_file() and kept.read_text() == stamp:
        return
    started = time.perf_counter()
    chosen = [m for m in ALL if not options.only or m.operation in options.only]
    if not chosen:
        parser.error(f"no mistakes in {', '.join(options.only)}")
    options.out.mkdir(parents=True, exist_ok=True)
    kept.unlink(missing_ok=True)
    for old in options.out.glob("*.md"):
        old.unlink()
    entries = [_entry(mutant) for mutant in chosen]
    for operation in dict.fromkeys(mutant.operation for mutant in chosen):
        page = _page(operation, [text for name, _, _, text in entries if name.operation == operation])
        (options.out / f"{_slug(operation)}.md").write_text(page, "utf-8")
    (options.out / "all.md").write_text(_index(entries), "utf-8")
    kept.write_text(stamp)
    size = sum(path.stat().st_size for path in options.out.glob("*.md")) / 2**20
    seconds = time.perf_counter() - started
    print(f"{options.out}: {len(chosen)} mistakes, {size:.1f} MB, {seconds:.0f} s")


def _title(mutant: Mutant) -> str:
    """Return the mistake's name without that of its operation."""
    return mutant.name.partition(": ")[2] or mutant.name.removeprefix(f"{mutant.operation.lower()}-").replace(
        "-", " "
    )


def _formulas(*texts: str) -> list[str]:
    """Return formulas as mathematics, where all of them are; else as they are written."""
    try:
        if any(re.search(r"[A-Za-z]{2,} [a-z]{2,} [a-z]{2,}|[+*]=|;", text) for text in texts):  # words, code
            raise NotAFormula
        return [f"${latex(' '.join(text.split()))}$" for text in texts]
    except NotAFormula:
        return [f"`{text}`" for text in texts]


_RIGHT: dict[str, list[measure.Curve]] = {}


def _right(setting: Setting) -> list[measure.Curve]:
    if setting.key not in _RIGHT:
        curves = [measure.train(setting, seed=seed) for seed in range(SEEDS)]
        worst = min(curve.accuracy[-1] if curve.accuracy else 0.0 for curve in curves)
        if worst < 0.6:  # then nothing could be said of a mistake
            sys.exit(f"the right engine does not learn, {worst:.0%} only: {setting.words}")
        _RIGHT[setting.key] = curves
    return _RIGHT[setting.key]


def _entry(mutant: Mutant) -> tuple[Mutant, str, str, str]:
    """Return the mutant, its effect in a word, its anchor, and its part of the page."""
    tried = []
    for setting in settings_of(mutant):
        wrong = measure.train(setting, mutant)
        tried.append((setting, wrong))
        if not wrong.stopped:
            break
    setting, wrong = tried[-1] if not tried[-1][1].stopped else tried[0]
    right = _right(setting)
    effect, training = words.of_training(wrong, right)
    if len(tried) > 1 and setting is not tried[0][0]:
        training = (
            f"In 196-32-10 it stops: `{words.short(tried[0][1].stopped)}`. Where all layers are equally "
            f"wide it runs. {training}"
        )
    shown = measure.show(setting, mutant)
    anchor = _slug(mutant.name)
    title = _title(mutant)
    lines = [f"({anchor})=", f"## {title[0].upper()}{title[1:]}", "", mutant.mistake, ""]
    right_formula, wrong_formula = _formulas(mutant.right, mutant.wrong)
    lines += ["```{list-table}", ":widths: 1 6", ""]
    lines += [
        f"* - right\n  - {right_formula}",
        f"* - wrong\n  - {wrong_formula}",
        "```",
        "",
    ]
    if shown is not None:
        lines += [f"`{shown.name}` {shown.where}: {words.of_tensor(shown)}.", ""]
        lines += [f'<div class="panels">{draw.arrays(shown)}</div>', ""]
    if not wrong.stopped:
        lines += [f'<div class="panels">{draw.curves(wrong, right)}</div>', ""]
    lines += [f"**What training does.** {training}", ""]
    lines += [f"**How to notice it.** {words.how_to_notice(mutant, shown, effect)}", ""]
    where = f"{escape(setting.words)}; {measure.EPOCHS} epochs, batches of {measure.BATCH}"
    lines += [f'<p class="setting">{where}</p>', ""]
    return mutant, effect, anchor, "\n".join(lines)


def _page(operation: str, entries: list[str]) -> str:
    legend = (
        "Orange is negative, violet positive, white zero. Curves: "
        '<span class="key wrong">with the mistake</span>, <span class="key right">right</span>, '
        "and in grey what other seeds change."
    )
    return f"# {operation}\n\n{legend}\n\n" + "\n".join(entries)


def _index(entries: list[tuple[Mutant, str, str, str]]) -> str:
    counts = {effect: sum(e == effect for _, e, _, _ in entries) for effect in EFFECTS}
    said = ", ".join(f"{effect}: {count}" for effect, count in counts.items() if count)
    lines = ["# All mistakes", "", f"{len(entries)} mistakes, by what training does with them: {said}.", ""]
    lines += ["| operation | mistake | training | wrong |", "| --- | --- | --- | --- |"]
    for mutant, effect, anchor, _ in entries:
        title = _title(mutant)
        wrong = mutant.wrong.replace("|", "\\|")
        lines.append(f"| {mutant.operation} | [{title}](#{anchor}) | {effect} | `{wrong}` |")
    return "\n".join(lines) + "\n"


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _stamp(only: list[str] | None) -> str:
    """Return a digest of all that the pages are made from."""
    digest = hashlib.sha256(repr(only).encode())
    folders = [HERE.parent / "nn_reference", HERE.parent / "agreement", HERE / "_gallery", HERE / "_ext"]
    for path in sorted([Path(__file__), *(p for folder in folders for p in folder.rglob("*.py"))]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    main()
