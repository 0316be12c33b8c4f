"""How `make docs` builds the pages: `sphinx-build -W docs build/docs`. Nothing here needs a network."""

import re
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE), str(HERE / "_ext")]

import make_api  # noqa: E402

project = "chainrule"
author = "the chainrule authors"
copyright = author
html_title = "chainrule"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "mathml", "derivations"]
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 4
exclude_patterns = ["_static", "_ext"]
highlight_language = "none"  # a block without a language is what a command prints
default_role = "py:obj"

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": False}

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["chainrule.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {"top_of_page_buttons": []}

# Several classes have an attribute `dtype`, and NumPy's is meant; benchmarks print their own headings.
suppress_warnings = ["ref.python", "myst.header"]

make_api.write(HERE / "_generated" / "api")
_mistakes = HERE / "_generated" / "mistakes" / "all.md"
if not _mistakes.exists():
    _mistakes.parent.mkdir(parents=True, exist_ok=True)
    _mistakes.write_text("# All mistakes\n\nNot made yet: `make gallery` makes them, and `make docs` too.\n")


def _contents(app: Any, docname: str, source: list[str]) -> None:
    """Fill in the tables of contents: ``explain*`` are the pages of such names, "% the rest" those of none.

    So a page that is written elsewhere finds its place, and one that is not there yet is not missed.
    """
    text = source[0]
    pages = sorted(str(path.relative_to(HERE).with_suffix("")) for path in HERE.rglob("*.md"))
    listed: set[str] = set()
    named = set(re.findall(r"^[\w/-]+$", text, flags=re.MULTILINE)) | {docname} | WITHIN_OTHERS

    def matching(match: re.Match[str]) -> str:
        found = [page for page in pages if fnmatchcase(page, match.group()) and page not in named]
        listed.update(found)
        return "\n".join(found)

    text = re.sub(r"^[\w/-]+\*$", matching, text, flags=re.MULTILINE)
    if "% the rest" in text:
        rest = [page for page in pages if "/" not in page and page not in named | listed]
        text = text.replace("% the rest", "\n".join(rest))
    source[0] = text


def _accessible(app: Any, pagename: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Give headings in the navigation their level, and let the keyboard scroll wide blocks and tables."""
    if "body" in context:
        body = context["body"].replace("<pre>", '<pre tabindex="0">')
        context["body"] = body.replace('<div class="table-wrapper', '<div tabindex="0" class="table-wrapper')
    tree = context.get("furo_navigation_tree", "")
    context["furo_navigation_tree"] = tree.replace('role="heading"', 'role="heading" aria-level="2"')


def _folder(app: Any, env: Any, node: Any, text: Any) -> Any:
    """Leave a link to a folder of the checkout as text: GitHub shows it, the built pages do not have it."""
    here = Path(env.doc2path(node.get("refdoc", env.docname))).parent
    return text if (here / node["reftarget"]).is_dir() else None


WITHIN_OTHERS = {"benchmarks-idx", "benchmarks-convolution"}


def setup(app: Any) -> None:
    """Let the pages say which others they have below them."""
    app.connect("source-read", _contents)
    app.connect("missing-reference", _folder)
    app.connect("env-get-outdated", lambda *_: ["index", "mistakes"])  # their contents are other files
    app.connect("html-page-context", _accessible, priority=900)  # after the theme's
