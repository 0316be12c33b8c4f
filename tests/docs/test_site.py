"""The documentation as `make docs` builds it: no warning, no network, readable on a phone."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

for _library in ("sphinx", "myst_parser", "furo", "latex2mathml"):
    pytest.importorskip(_library, reason="needs chainrule[docs]: runs where it is installed")

ROOT = Path(__file__).parents[2]
BESIDE = ("idx", "nn_reference", "torch_impl", "agreement", "chainrule", "benchmarks", "data", "lessons")
SHOWN = ("index", "training", "own-layer", "agreement", "_generated/api/nn_reference.linear")
SHOWN += ("_generated/api/nn_reference.batchnorm", "_generated/mistakes/dropout", "_generated/mistakes/all")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built pages, with one operation's mistakes for the gallery, of a copy of docs/."""
    place = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "docs", place / "docs", ignore=shutil.ignore_patterns("_generated", "__pycache__"))
    for name in BESIDE:
        if (ROOT / name).exists():
            (place / name).symlink_to(ROOT / name)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for command in (
        [sys.executable, "docs/make_gallery.py", "--only", "Dropout"],
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", "built"],
    ):
        done = subprocess.run(
            command, cwd=place, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    return place / "built"


def test_nothing_is_fetched_from_elsewhere(site):
    """Neither scripts, styles, fonts nor pictures. Links that a person may follow are no such thing."""
    fetched = re.compile(
        r"<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc=[\"']?((?:https?:)?//[^\"' >]*)"
        r"|<link\b(?=[^>]*\brel=[\"']?(?:stylesheet|preload|icon|preconnect|dns-prefetch))[^>]*\bhref=[\"']?"
        r"((?:https?:)?//[^\"' >]*)"
        r"|url\(\s*[\"']?((?:https?:)?//[^\"')]*)|@import\s+[\"']((?:https?:)?//[^\"']*)"
    )
    found = {
        f"{file.relative_to(site)}: {match.group()}"
        for file in site.rglob("*")
        if file.suffix in (".html", ".css")
        for match in fetched.finditer(file.read_text("utf-8"))
    }
    assert not found


def test_the_check_sees_what_is_fetched(site):
    fetched = '<script src="https://cdn.example/x.js"></script>'
    page = site / "index-with-a-script.html"
    page.write_text(fetched, "utf-8")
    try:
        with pytest.raises(AssertionError, match=r"cdn\.example"):
            test_nothing_is_fetched_from_elsewhere(site)
    finally:
        page.unlink()


def test_derivations_are_mathematics(site):
    text = (site / "_generated" / "api" / "nn_reference.linear.html").read_text("utf-8")
    backward = text.split('id="nn_reference.linear.backward"')[1].split('id="nn_reference.linear.')[0]
    assert backward.count("<math") >= 12, "six formulas with two sides each"
    assert backward.count("<mfrac") == 9, "dL/dx, dL/dy and dy/dx for each of x, weight and bias"
    assert "dL/dx[n, i]" not in backward


def test_the_pages_open_without_a_network(site, page):
    fetched = []
    page.on("request", lambda request: fetched.append(request.url))
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 800})
        for name in SHOWN:
            page.goto((site / f"{name}.html").as_uri())
            wide = page.evaluate(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            assert wide <= 0, f"{name} is {wide} pixels too wide for {width}"
    assert not [url for url in fetched if not url.startswith(("file:", "data:"))]


def test_formulas_have_a_size(site, page):
    """A browser without MathML would show them as running text: a fraction is higher than a letter."""
    page.goto((site / "_generated" / "api" / "nn_reference.linear.html").as_uri())
    fraction, letter = page.evaluate(
        "['mfrac', 'mi'].map(name => document.querySelector(name).getBoundingClientRect().height)"
    )
    assert fraction > 1.5 * letter


def test_the_pages_are_accessible(site, page):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    for name in ("index", "own-layer", "_generated/api/nn_reference.linear", "_generated/mistakes/dropout"):
        page.goto((site / f"{name}.html").as_uri())
        found = axe.Axe().run(page, options={"preload": False}).response["violations"]
        serious = [
            f"{rule['id']}: {node['html'][:200]}"
            for rule in found
            if rule["impact"] in ("serious", "critical")
            for node in rule["nodes"]
        ]
        assert not serious, f"{name}:\n" + "\n".join(serious)


def test_the_gallery_has_every_mistake(site):
    from agreement.mutants import ALL

    mutants = [mutant for mutant in ALL if mutant.operation == "Dropout"]
    text = (site / "_generated" / "mistakes" / "dropout.html").read_text("utf-8")
    assert text.count('class="curve"') == 2 * len(mutants)
    assert text.count('class="panel"') == 3 * len(mutants)
    for mutant in mutants:
        assert mutant.mistake.split("'")[0] in text


def test_a_new_page_is_found(site):
    """index.md names patterns, and what fits none of them is taken in all the same."""
    text = (site / "index.html").read_text("utf-8")
    for path in (ROOT / "docs").glob("*.md"):
        assert f'href="{path.stem}.html"' in text or path.stem in (
            "index",
            "benchmarks-idx",
            "benchmarks-convolution",
        )
