import gzip
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import idx
from idx.cli import run

ROOT = Path(__file__).resolve().parents[2]
IMAGES = np.arange(4 * 6 * 5, dtype=np.uint8).reshape(4, 6, 5)
LABELS = np.array([5, 0, 4, 1], np.uint8)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    idx.write(tmp_path / "images.gz", IMAGES)
    idx.write(tmp_path / "labels", LABELS)
    (tmp_path / "page.gz").write_text("<html>404</html>")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def idx_command(*arguments, encoding="utf-8", **options):
    return subprocess.run(
        [sys.executable, "-m", "idx", *arguments],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding},
        check=False,
        timeout=60,
        **options,
    )


def test_info(folder, capsys):
    assert run(["info", "images.gz", "labels"]) == 0
    assert capsys.readouterr().out == (
        "images.gz: uint8 (4, 6, 5), 120 bytes, compressed with gzip\n"
        "labels: uint8 (4,), 4 bytes, not compressed\n"
    )


def test_info_as_json_goes_on_after_an_error(folder, capsys):
    assert run(["info", "page.gz", "missing", "labels", "--json"]) == 1
    output = capsys.readouterr()
    entries = json.loads(output.out)
    assert "HTML" in entries[0]["error"]
    assert entries[1] == {"file": "missing", "error": "missing: No such file or directory"}
    assert entries[2] == {"file": "labels", "dtype": "uint8", "shape": [4], "nbytes": 4, "compression": None}
    assert len(output.err.splitlines()) == 2


def test_info_of_more_dimensions_than_numpy_has(folder, capsys):
    (folder / "x").write_bytes(b"\0\0\x08\x41" + b"\0\0\0\1" * 65 + b"a")
    assert run(["info", "x"]) == 0
    assert "x: uint8 (1, 1," in capsys.readouterr().out


def test_verify(folder, capsys):
    assert run(["verify", "images.gz"]) == 0
    assert capsys.readouterr().out == "images.gz: in order, uint8 (4, 6, 5)\n"
    data = bytearray((folder / "images.gz").read_bytes())
    data[-6] ^= 1
    (folder / "images.gz").write_bytes(data)
    assert run(["info", "images.gz"]) == 0
    assert run(["verify", "images.gz"]) == 1
    assert "the gzip stream is damaged" in capsys.readouterr().err


class TestShow:
    def test_a_picture(self, folder, capsys):
        idx.write(folder / "x", np.array([[[0, 255], [128, 0]]], np.uint8))
        assert run(["show", "x"]) == 0
        assert capsys.readouterr().out.rstrip("\n") == "0:\n  ██\n▓▓"

    def test_labels(self, folder, capsys):
        assert run(["show", "images.gz", "2", "--labels", "labels"]) == 0
        assert capsys.readouterr().out.startswith("2: 4\n")

    @pytest.mark.parametrize(
        ("which", "lines"),
        [
            ("1", ["1: 0"]),
            ("1:3", ["1: 0", "2: 4"]),
            ("::-2", ["3: 1", "1: 0"]),
            (":", ["0: 5", "1: 0", "2: 4", "3: 1"]),
            ("9:", []),
            ("-1", ["3: 1"]),
            ("-2:", ["2: 4", "3: 1"]),
        ],
    )
    def test_numbers(self, folder, capsys, which, lines):
        assert run(["show", "labels", which]) == 0
        assert capsys.readouterr().out.splitlines() == lines

    def test_one_number_without_dimensions(self, folder, capsys):
        idx.write(folder / "x", np.float32(0.5))
        assert run(["show", "x"]) == 0
        assert capsys.readouterr().out == "0: 0.5\n"
        assert run(["show", "x", "5:7"]) == 0
        assert capsys.readouterr().out == ""

    def test_a_montage(self, folder):
        assert run(["show", "images.gz", ":", "--labels", "labels", "--out", "out.png"]) == 0
        with Image.open(folder / "out.png") as picture:
            assert picture.format == "PNG"
            assert picture.width > 2 * 45

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["images.gz", "4"], "images.gz: found 4 elements, expected one with the index 4"),
            (["images.gz", "--labels", "images.gz"], r"found 3 dimensions (grey images)"),
            (["labels", "--out", "x.png"], "expected pictures (height, width)"),
            (["images.gz", "9:", "--out", "x.png"], "found no elements"),
        ],
    )
    def test_what_does_not_fit(self, folder, capsys, arguments, message):
        assert run(["show", *arguments]) == 1
        assert message in capsys.readouterr().err
        assert not (folder / "x.png").exists()

    def test_labels_of_another_file(self, folder, capsys):
        idx.write(folder / "three", LABELS[:3])
        assert run(["show", "images.gz", "--labels", "three"]) == 1
        assert "three: found 3 labels, expected 4 as in images.gz" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.csv", "x/", "x.xz"])
def test_convert_there_and_back(folder, capsys, name):
    assert run(["convert", "images.gz", name]) == 0
    assert run(["convert", name, "back"]) == 0
    assert run(["diff", "images.gz", "back"]) == 0
    assert capsys.readouterr().out == "the same: uint8 (4, 6, 5)\n"


def test_cut(folder):
    assert run(["cut", "images.gz", "1:3", "--out", "x.bz2"]) == 0
    assert np.array_equal(idx.read("x.bz2"), IMAGES[1:3])
    assert (folder / "x.bz2").read_bytes().startswith(b"BZh")


def test_cat(folder, capsys):
    assert run(["cat", "labels", "labels", "--out", "x"]) == 0
    assert idx.read("x").tolist() == [5, 0, 4, 1] * 2
    assert run(["cat", "labels", "images.gz", "--out", "y"]) == 1
    assert "images.gz: found uint8 (4, 6, 5), expected the type of labels" in capsys.readouterr().err
    assert not (folder / "y").exists()


def test_cat_of_a_claim_of_gigabytes(folder, capsys):
    (folder / "x.gz").write_bytes(gzip.compress(bytes.fromhex("00000e02 ffffffff 7fffffff")))
    before = sorted(folder.iterdir())
    assert run(["cat", "x.gz", "--out", "y"]) == 1
    assert capsys.readouterr().err.startswith("idx: x.gz: ")
    assert sorted(folder.iterdir()) == before


def test_cat_to_a_pipe(folder):
    result = idx_command("cat", "images.gz", cwd=folder)
    assert np.array_equal(idx.read(result.stdout), IMAGES)


def test_diff(folder, capsys):
    idx.write("other", np.array([5, 0, 9, 1], np.uint8))
    assert run(["diff", "labels", "other"]) == 1
    assert (
        capsys.readouterr().out == "different: 1 of 4 elements, the first at [2] (4 and 9), by at most 5.0\n"
    )
    assert run(["diff", "labels", "other", "--json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert (data["differ"], data["count"], data["first"], data["values"]) == (True, 1, [2], [4, 9])


def test_json_has_no_nan(folder, capsys):
    def refuse(constant):
        raise AssertionError(constant)

    idx.write("a", np.array([1, np.nan], np.float32))
    idx.write("b", np.array([1, -np.inf], np.float32))
    assert run(["diff", "a", "b", "--json"]) == 1
    data = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert (data["values"], data["largest"]) == (["nan", "-inf"], "nan")


@pytest.mark.parametrize(
    "arguments",
    [
        ["bogus"],
        ["show", "labels", "--bogus"],
        ["info"],
        ["show", "labels", "x"],
        ["show", "labels", "0:1:0"],
        ["show", "labels", ""],
        ["show", "labels", "1:2:3:4"],
        ["cut", "labels", "0:1"],
    ],
)
def test_wrong_usage_is_status_2(folder, capsys, arguments):
    assert run(arguments) == 2
    output = capsys.readouterr()
    assert output.err.startswith("idx: ")
    assert len(output.err.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["info", "page.gz"],
        ["verify", "missing"],
        ["show", "."],
        ["convert", "page.gz", "x.npy"],
        ["convert", "images.gz", "missing/x.npy"],
        ["convert", "labels", "x/"],
        ["cut", "labels", "9", "--out", "x"],
        ["cat", "missing", "--out", "x"],
        ["diff", "labels", "page.gz"],
    ],
)
def test_every_failure_is_one_line_and_status_1(folder, capsys, arguments):
    before = sorted(folder.iterdir())
    assert run(arguments) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("idx: ")
    assert len(output.err.splitlines()) == 1
    assert sorted(folder.iterdir()) == before


def test_no_arguments_print_the_help(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["idx"])
    assert run() == 0
    output = capsys.readouterr()
    assert output.out.startswith("Usage: idx")
    assert "\n  verify " in output.out
    assert output.err == ""


def test_file_names_that_no_terminal_can_show(folder):
    names = ["\u00e9", os.fsdecode(b"\xff"), "a\nb", "\x1b[31m"]
    for name in names:
        idx.write(name, LABELS)
    result = idx_command("info", *names, "--", "\x1b[1m-missing", cwd=folder, encoding="ascii")
    assert result.returncode == 1
    lines = result.stdout.decode("ascii").splitlines()
    shown = ["\\xe9", "\\udcff", "a\\nb", "\\x1b[31m"]
    assert [line.partition(":")[0] for line in lines] == shown
    assert result.stderr.decode("ascii") == "idx: \\x1b[1m-missing: No such file or directory\n"


@pytest.mark.parametrize("command", ["info labels", "show labels", "cat labels", "--help"])
def test_standard_output_that_is_closed(folder, command):
    result = subprocess.run(
        f"{sys.executable} -m idx {command} >&-",
        shell=True,
        cwd=folder,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, b"")


def test_an_exit_for_another_reason_is_not_success(folder, monkeypatch):
    def leave(path):
        raise SystemExit(3)

    monkeypatch.setattr(idx, "verify", leave)
    with pytest.raises(SystemExit):
        run(["verify", "labels"])


def test_version_and_help(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("idx ")
    for command in ("info", "verify", "show", "convert", "cut", "cat", "diff"):
        assert run([command, "--help"]) == 0
        assert f"Example:\n    idx {command} " in capsys.readouterr().out


def test_a_reader_that_goes_away_is_no_error(folder):
    idx.write("many", np.zeros(200_000, np.uint8))
    with subprocess.Popen(
        [sys.executable, "-m", "idx", "show", "many", ":"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout.readline() == b"0: 0\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


def test_standard_input_is_a_file(folder):
    result = idx_command("info", "/dev/stdin", cwd=folder, input=(folder / "images.gz").read_bytes())
    assert result.stdout.decode() == "/dev/stdin: uint8 (4, 6, 5), 120 bytes, compressed with gzip\n"


def test_help_waits_for_nothing_heavy():
    code = (
        "import sys, idx.cli; idx.cli.run(['--help']); "
        "print(sorted({'numpy', 'rich', 'PIL', 'torch'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "[]"


def test_the_library_needs_numpy_alone():
    code = (
        "import sys, idx; idx.open(b'\\0\\0\\x08\\1\\0\\0\\0\\1a'); idx.read(b'\\0\\0\\x08\\0a'); idx.write; "
        "print(sorted({'typer', 'rich', 'PIL', 'torch', 'chainrule', 'matplotlib'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_progress_in_a_log_is_a_line_now_and_then(monkeypatch, capsys):
    from idx import progress

    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", -1.0)
    with progress.progress("Working") as track:
        assert list(track([1, 2])) == [1, 2]
    assert capsys.readouterr().err == "Working: 50%\nWorking: 100%\n"


def test_progress_on_a_terminal_is_a_bar_unless_the_work_is_quick(monkeypatch):
    from idx import progress

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for seconds, shown in ((0.0, True), (600.0, False)):
        monkeypatch.setattr(sys, "stderr", Terminal())
        monkeypatch.setattr(progress, "_SECONDS_BEFORE_BAR", seconds)
        with progress.progress("Working") as track:
            assert list(track([1, 2])) == [1, 2]
            while shown and "Working" not in sys.stderr.getvalue():
                time.sleep(0.001)
        assert bool(sys.stderr.getvalue()) is shown
