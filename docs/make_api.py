"""The pages of the API reference: one for each module that is there, from its docstrings."""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Of these packages every public module has its page; of the others those that are named.
WHOLE = ("nn_reference",)
NAMED = {
    "agreement": (
        *("compare", "gradients", "numerical", "training", "exact", "bisect", "report", "measures", "causes"),
        *("limits", "truth", "checks", "table", "mutants", "mutants.mutant", "diagnose"),
    ),
    "torch_impl": ("engine", "distributed"),
    "chainrule": (
        *("datasets", "download", "normalisation", "torch_dataset", "recipe", "engines", "training"),
        *("evaluating", "exporting", "runs", "saved", "checkpoints", "metrics", "pictures", "report"),
        *("predicting", "explaining", "grading"),
    ),
}
PACKAGES = {
    "idx": "The IDX file format",
    "nn_reference": "Forward and backward by hand",
    "torch_impl": "The same in PyTorch",
    "agreement": "Do the two agree?",
    "chainrule": "Data sets, recipes, runs",
}


def write(folder: Path) -> None:
    """Write ``index.rst`` and a page for each package and module; what is unchanged is left alone."""
    pages: dict[str, str] = {"index": _index()}
    for package, title in PACKAGES.items():
        modules = list(modules_of(package))
        names = "\n".join(f"   {package}.{module}" for module in modules)
        contents = f"\n.. toctree::\n   :maxdepth: 1\n\n{names}\n" if names else ""
        pages[package] = f"{_heading(f'{package}: {title}')}\n{_package(package)}\n{contents}"
        for module in modules:
            name = f"{package}.{module}"
            pages[name] = f"{_heading(name)}\n.. automodule:: {name}\n"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.rst"):
        if old.stem not in pages:
            old.unlink()
    for name, text in pages.items():
        path = folder / f"{name}.rst"
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def modules_of(package: str) -> Iterator[str]:
    """Give the modules that have a page, in the order in which the package's docstring names them."""
    folder = ROOT / package
    if package in WHOLE:
        found = {
            ".".join(path.relative_to(folder).with_suffix("").parts)
            for path in folder.rglob("*.py")
            if not any(part.startswith("_") for part in path.relative_to(folder).parts)
        }
        found |= {path.parent.name for path in folder.glob("*/__init__.py")}
        words = re.findall(r"\w+", importlib.import_module(package).__doc__ or "")
        yield from sorted(found, key=lambda name: (words.index(name) if name in words else 999, name))
        return
    for name in NAMED.get(package, ()):
        path = folder.joinpath(*name.split("."))
        if path.with_suffix(".py").is_file() or (path / "__init__.py").is_file():
            yield name


def _package(package: str) -> str:
    """Return the page of a package: its docstring, and what one imports from it where that has no page."""
    if package in WHOLE:
        return f".. automodule:: {package}\n   :no-members:\n"
    members = "" if package == "idx" else "   :no-members:\n"
    extra = "   :imported-members:\n" if package == "idx" else ""
    return f".. automodule:: {package}\n{members}{extra}"


def _index() -> str:
    names = "\n".join(f"   {package}" for package in PACKAGES)
    text = (
        "Each function and class, with the derivation of its formulas. They are those of the docstrings,\n"
        "set as mathematics; names are those of the code, and *x y* is the product that the shapes beside\n"
        "it say. The modules of ``nn_reference`` are made to be read from the first line to the last:\n"
        "*[source]* is beside each function.\n"
    )
    return f"{_heading('API reference')}\n{text}\n.. toctree::\n   :maxdepth: 2\n\n{names}\n"


def _heading(text: str) -> str:
    return f"{text}\n{'=' * len(text)}\n"
