"""Every code sample of README.md and docs/ runs, and prints what the page shows.

- ``python`` blocks of a page are run in order, in one namespace; functions named ``test_...`` are called.
- ``console`` blocks, and blocks without a language that begin with ``$``: the commands after ``$`` are run,
  and what the page shows below them is compared. ``...`` stands for any lines, or for the rest of one.
  Numbers may differ by a tenth, seconds by anything.
- ``<!-- file: NAME -->`` above a block of any language: it is written to that file first.
- ``<!-- not run: REASON -->`` above a block: it is not run, for that reason. Its commands are still read.
- Blocks without a language are what is printed, or commands that are only read: does each command have these
  options, each make target and program exist?

Everything happens in an empty folder that has the embedded digits alone.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

from chainrule import cli as chainrule_cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(
    r"^(?:<!-- *(?P<mark>[^\n]*?) *-->\n)?(?P<fence>```+)(?P<language>\w*)\n(?P<text>.*?)^(?P=fence)$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and what the comment above it says."""

    line: int
    language: str
    text: str
    mark: str

    @property
    def is_run(self):
        return self.language in ("python", "console") and not self.mark.startswith("not run")


def blocks(page):
    text = page.read_text("utf-8")
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start("text")) + 1
        mark = match["mark"] or ""
        if not mark.startswith(("not run", "file:")):
            mark = ""
        language = match["language"] or ("console" if match["text"].startswith("$ ") else "")
        yield Block(line, language, match["text"], mark)


def with_blocks(chosen):
    pages = [page for page in PAGES if any(chosen(block) for block in blocks(page))]
    return pytest.mark.parametrize("page", pages, ids=[str(page.relative_to(ROOT)) for page in pages])


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The folder in which the samples run."""
    pytest.importorskip("torch", reason="needs PyTorch: runs where chainrule[torch] is installed")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "digits").symlink_to(ROOT / "data" / "digits")
    monkeypatch.delenv("CHAINRULE_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@with_blocks(lambda block: block.is_run)
def test_the_samples_run(page, place, capsys):
    names = {"__name__": page.stem}
    for block in blocks(page):
        where = f"{page.relative_to(ROOT)}:{block.line}"
        if block.mark.startswith("file:"):
            (place / block.mark.removeprefix("file:").strip()).write_text(block.text, "utf-8")
        if not block.is_run:
            continue
        if block.language == "python":
            # Tracebacks name the page and its line.
            exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), names)
        else:
            for command, shown in commands(block.text):
                capsys.readouterr()
                assert run(command, where) == 0, f"{where}: {command}: {capsys.readouterr().err}"
                compare(shown, capsys.readouterr().out.replace(f"{ROOT}/", ""), f"{where}: {command}")
    for name, value in list(names.items()):
        if name.startswith("test_") and callable(value):
            value()


def commands(text):
    """The commands of a console block, each with the output that is shown."""
    found = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif found:
            found[-1][1].append(line)
        else:
            pytest.fail(f"a console block begins with output: {line}")
    return found


def words_of(command):
    words = shlex.split(command, comments=True)
    if words[:2] in (["python", "-m"], [".venv/bin/python", "-m"]):
        words = words[2:]
    if words:
        words[0] = words[0].removeprefix(".venv/bin/")
    return words


def run(command, where):
    program, *arguments = words_of(command)
    if program == "chainrule":
        return chainrule_cli.run(arguments)
    if program == "idx":
        from idx import cli

        return cli.run(arguments)
    return pytest.fail(f"{where}: {program} cannot be run here: mark the block <!-- not run: reason -->")


# -- what is shown, and what is printed -------------------------------------------------------------------

_NUMBER = r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?(?: s\b)?"


def compare(shown, printed, where):
    """Find the shown lines in the printed ones, in order, with others between them only where ``...`` is."""
    lines = [line.rstrip() for line in printed.splitlines()]
    shown = [line.rstrip() for line in shown]
    while shown and not shown[-1]:
        shown.pop()
    if not shown:
        return
    at, free = 0, False
    for line in shown:
        if line == "...":
            free = True
            continue
        found = next((i for i in range(at, len(lines)) if same(line, lines[i])), None)
        assert found is not None, f"{where}: not printed: {line}\n{printed}"
        assert free or found == at, f"{where}: printed before {line!r}: {lines[at]!r}"
        at, free = found + 1, False
    assert free or not any(lines[at:]), f"{where}: printed too: {lines[at]!r}"


def same(shown, printed):
    """Whether two lines are the same but for spaces and the last digits of numbers."""
    begin = " ".join(shown.removesuffix("...").split())
    parts = re.split(f"({_NUMBER})", begin)
    pattern = "".join(f"({_NUMBER})" if at % 2 else re.escape(part) for at, part in enumerate(parts))
    match = (re.match if shown.endswith("...") else re.fullmatch)(pattern, " ".join(printed.split()))
    return match is not None and all(map(near, parts[1::2], match.groups()))


def near(shown, printed):
    if shown.endswith(" s") and printed.endswith(" s"):
        return True
    a, b = (float(number.replace(",", "").removesuffix(" s")) for number in (shown, printed))
    return abs(a - b) <= 0.1 * max(abs(a), abs(b))


@pytest.mark.parametrize(
    ("shown", "printed", "agrees"),
    [
        ("accuracy 86.2%", "accuracy 86.9%", True),
        ("accuracy 86.2%", "accuracy 76.0%", False),
        ("accuracy 86.2%", "loss 86.2%", False),
        ("took 0.1 s in all", "took 7.3 s in all", True),
        ("They agree: each of 20 tensors is ...", "They agree: each of 20 tensors is within", True),
        ("They agree: each of 20 tensors is ...", "They DISAGREE: each of 20 tensors is within", False),
        ("They agree: each of 20 ...", "They agree: each of 28 tensors", False),
    ],
)
def test_the_comparison_sees_what_differs(shown, printed, agrees):
    assert same(shown, printed) == agrees


def test_the_comparison_wants_every_line():
    compare(["a", "...", "d"], "a\nb\nc\nd\n", "here")
    for shown in (["a", "d"], ["a", "...", "c"], ["b", "..."], ["d", "...", "a"]):
        with pytest.raises(AssertionError):
            compare(shown, "a\nb\nc\nd\n", "here")


# -- what is only read ------------------------------------------------------------------------------------


def lines_of_commands():
    for page in PAGES:
        for block in blocks(page):
            where = f"{page.relative_to(ROOT)}:{block.line}"
            for line in block.text.splitlines() if block.language in ("", "console") else ():
                line = line.removeprefix("$ ")
                if re.match(r"(\.venv/bin/)?(chainrule|idx|python|make|python -m \w+) ", line + " "):
                    yield where, line


def test_commands_that_are_only_read_exist():
    from idx import cli as idx_cli

    apps = {"chainrule": chainrule_cli.app, "idx": idx_cli.app}
    makefile = (ROOT / "Makefile").read_text("utf-8")
    wrong, seen = [], 0
    for where, line in lines_of_commands():
        program, *arguments = words_of(line.split(" | ")[0].split(" > ")[0])
        seen += 1
        if program in apps:
            problem = problem_of(apps[program], program, arguments)
        elif program == "make":
            targets = [word for word in arguments if "=" not in word and not word.startswith("-")]
            missing = [t for t in targets if not re.search(rf"^{t}:", makefile, flags=re.MULTILINE)]
            problem = f"no target {missing[0]}" if missing else ""
        else:
            file = next((word for word in arguments if word.endswith(".py")), None)
            problem = f"no file {file}" if file and not (ROOT / file).is_file() else ""
        if problem:
            wrong.append(f"{where}: {line}: {problem}")
    assert not wrong, "\n".join(wrong)
    assert seen > 40


def problem_of(app, program, arguments):
    """What the command line says of these arguments, without running anything."""
    group = typer.main.get_command(app)
    try:
        context = group.make_context(program, list(arguments) or ["--help"], resilient_parsing=not arguments)
        while hasattr(group, "resolve_command") and arguments:
            rest = [*getattr(context, "_protected_args", []), *context.args]
            if not rest:
                break
            name, group, rest = group.resolve_command(context, rest)
            context = group.make_context(name, list(rest), parent=context)
    except typer.TyperException as error:
        return error.format_message()
    except SystemExit:
        return ""
    return ""


@pytest.mark.parametrize("arguments", [["trian"], ["train", "--epoch", "3"], ["recipes", "shw"]])
def test_a_command_that_does_not_exist_is_seen(arguments):
    assert problem_of(chainrule_cli.app, "chainrule", arguments)


def test_what_is_not_run_says_why():
    marks = [block.mark for page in PAGES for block in blocks(page) if block.mark.startswith("not run")]
    assert marks
    for mark in marks:
        assert len(mark.removeprefix("not run").strip(": ")) > 10, mark
