"""``chainrule predict`` and ``inspect``: answers in every form, and hostile pictures in a line each."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from chainrule.cli import run

sys.path.insert(0, str(Path(__file__).parent))
from drawn import draw
from PIL import Image

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def reader(make_run, tmp_path_factory):
    """A run that has learnt for a few steps from the embedded digits."""
    return make_run(tmp_path_factory.mktemp("runs") / "little", "simplenet", steps=46)


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for digit in (7, 5, 2):
        draw(digit).save(folder / f"{digit}.png")
    (folder / "notes.txt").write_text("not a picture, and nobody asked")
    return folder


def predict(*arguments, status=0):
    assert run(["predict", *map(str, arguments)]) == status


def as_json(capsys, *arguments, status=0):
    capsys.readouterr()
    predict(*arguments, "--json", status=status)
    return json.loads(capsys.readouterr().out)["pictures"]


def test_help_has_an_example(capsys):
    for command in ("predict", "inspect"):
        assert run([command, "--help"]) == 0
        assert f"Example: chainrule {command}" in " ".join(capsys.readouterr().out.split())


def test_help_is_quick():
    code = "import sys; from chainrule.cli import run; run(['predict', '--help'])"
    code += "; assert not {'PIL', 'scipy', 'torch', 'matplotlib'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True).returncode == 0


def test_what_is_printed(reader, pictures, capsys):
    predict(reader, pictures / "7.png")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{pictures / '7.png'}: ")
    assert lines[0].endswith("%")
    assert len([line for line in lines if " % " in line or line.endswith(" %")]) == 6, (
        "and the five likeliest"
    )
    shares = [float(line.split()[1]) for line in lines[1:6]]
    assert shares == sorted(shares, reverse=True)
    assert "█" in lines[1]


def test_files_folders_and_patterns_say_the_same(reader, pictures, capsys):
    (one,) = as_json(capsys, reader, pictures / "5.png")
    by_folder = as_json(capsys, reader, pictures)
    by_pattern = as_json(capsys, reader, pictures / "[25].png")
    assert [Path(each["file"]).name for each in by_folder] == ["2.png", "5.png", "7.png"]
    assert by_folder[1]["digits"][0]["probabilities"] == pytest.approx(one["digits"][0]["probabilities"])
    assert [Path(each["file"]).name for each in by_pattern] == ["2.png", "5.png"]
    digit = one["digits"][0]
    assert sum(digit["probabilities"].values()) == pytest.approx(1)
    assert digit["probability"] == digit["probabilities"][digit["digit"]]


def test_csv_has_a_row_for_each(reader, pictures, capsys):
    expected = [each["digits"][0]["digit"] for each in as_json(capsys, reader, pictures)]
    predict(reader, pictures, "--csv")
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["digit"] for row in rows] == expected
    assert all(0 < float(row["probability"]) <= 1 and float(row["distance"]) > 0 for row in rows)


def test_standard_input(reader, pictures, monkeypatch, capsys):
    class Input:
        buffer = io.BytesIO((pictures / "5.png").read_bytes())

    (from_file,) = as_json(capsys, reader, pictures / "5.png")
    monkeypatch.setattr(sys, "stdin", Input)
    (found,) = as_json(capsys, reader, "-")
    assert found["file"] == "standard input"
    assert found["digits"] == from_file["digits"]


def test_many_digits(reader, tmp_path, capsys):
    page = Image.new("RGB", (600, 200), (240, 240, 235))
    for i, digit in enumerate((7, 5, 2)):
        page.paste(draw(digit).crop((40, 30, 160, 175)), (30 + 190 * i, 20))
    page.save(tmp_path / "three.png")
    (found,) = as_json(capsys, reader, tmp_path / "three.png", "--many")
    lefts = [digit["box"]["left"] for digit in found["digits"]]
    assert len(lefts) == 3
    assert lefts == sorted(lefts)
    predict(reader, tmp_path / "three.png", "--many")
    digits = [digit["digit"] for digit in found["digits"]]
    assert capsys.readouterr().out.splitlines()[0] == f"{tmp_path / 'three.png'}: {' '.join(digits)}"


def test_pictures_of_the_answers_and_of_the_steps(reader, pictures, tmp_path, capsys):
    predict(reader, pictures, "--out", tmp_path / "grid.png", "--show-steps", tmp_path / "a" / "steps")
    with Image.open(tmp_path / "grid.png") as grid:
        grid.load()
        assert grid.width > 700
    names = sorted(file.name for file in (tmp_path / "a" / "steps").iterdir())
    assert names == ["2-steps.png", "5-steps.png", "7-steps.png"]
    with Image.open(tmp_path / "a" / "steps" / names[0]) as steps:
        steps.load()
        assert np.asarray(steps.convert("L")).std() > 20


def test_hostile_pictures_are_a_line_each_and_the_others_are_read(reader, pictures, capsys):
    Image.new("1", (20_000, 20_000)).save(pictures / "bomb.png")
    (pictures / "cut.png").write_bytes((pictures / "7.png").read_bytes()[:300])
    (pictures / "text.png").write_text("I am no picture")
    (pictures / "nothing.png").write_bytes(b"")
    Image.new("L", (100, 100), 255).save(pictures / "page.png")
    Image.new("L", (100, 100), 0).save(pictures / "black.png")
    draw(5).save(pictures / "moves.gif", save_all=True, append_images=[draw(2)])
    (pictures / "secret.png").symlink_to(pictures / "gone.png")
    capsys.readouterr()
    predict(reader, pictures, pictures / "no-such.png", "--json", status=1)
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)["pictures"]) == 4, "three drawings and the animation's first frame"
    lines = captured.err.splitlines()
    bad = ("black", "bomb", "cut", "nothing", "page", "secret", "text", "no-such")
    assert len(lines) == len(bad) + 1
    for name, line in zip(bad, lines, strict=False):
        assert line.startswith(f"chainrule: {pictures / name}.png: "), line
    assert lines[-1] == "chainrule: 8 pictures were not read: see above"
    assert "Traceback" not in captured.err


def test_no_permission(reader, pictures, capsys, monkeypatch):
    """As an administrator every file can be read, so the refusal is made."""
    real = Path.read_bytes

    def refuse(path):
        if path.name == "7.png":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    predict(reader, pictures, "--csv", status=1)
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 3
    assert captured.err.splitlines()[0] == f"chainrule: {pictures / '7.png'}: Permission denied"


def test_nothing_to_read_is_said(reader, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    predict(reader, tmp_path / "empty", tmp_path / "*.png", status=1)
    lines = capsys.readouterr().err.splitlines()
    assert "a folder without pictures" in lines[0]
    assert "no file is called like that" in lines[1]


def test_wrong_usage(reader, pictures):
    predict(reader, pictures, "--json", "--csv", status=2)
    predict(reader, pictures, "--preprocess", "naive", "--many", status=2)
    predict(reader, "-", "-", status=2)
    predict(reader, pictures, "--out", pictures / "grid.jpg", status=2)
    assert run(["inspect", str(pictures / "7.png"), "--run", str(reader), "--out", "why.gif"]) == 2


@pytest.mark.parametrize("option", ["--out", "--show-steps"])
def test_what_cannot_be_written_is_said_before_the_work(
    reader, pictures, tmp_path, option, capsys, monkeypatch
):
    (tmp_path / "folder.png").mkdir()
    file = tmp_path / "file"
    file.write_text("mine")
    capsys.readouterr()
    for where in (file / "a.png", tmp_path / "folder.png" if option == "--out" else file):
        predict(reader, pictures, option, where, status=1)
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith(f"chainrule: {'' if where.exists() else 'cannot write '}{where}")
        assert "expected the name" in captured.err or "is a file" in captured.err
    monkeypatch.setattr(
        os, "access", lambda _, mode: mode != os.W_OK
    )  # an administrator may write everywhere
    predict(reader, pictures, option, tmp_path / "new" / "a.png", status=1)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith(f"no permission to write in {tmp_path}\n")
    assert file.read_text() == "mine"
    assert not (tmp_path / "new").exists()


def test_steps_of_files_called_alike_are_all_kept(reader, tmp_path, capsys):
    for name in ("a/x.png", "b/x.png", "c/x-2.png"):
        (tmp_path / name).parent.mkdir()
        draw(7).save(tmp_path / name)
    predict(reader, tmp_path / "a", tmp_path / "b", tmp_path / "c", "--show-steps", tmp_path / "steps")
    assert len(list((tmp_path / "steps").iterdir())) == 3


def test_a_folder_and_a_pipe_in_a_folder_are_no_pictures(reader, pictures, capsys):
    (pictures / "more.png").mkdir()
    os.mkfifo(pictures / "pipe.png")
    assert len(as_json(capsys, reader, pictures)) == 3


def test_one_argument_that_makes_no_sense_leaves_the_others(reader, pictures, capsys, monkeypatch):
    real = Path.iterdir

    def refuse(path):
        if path.name == "secret":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    (pictures / "secret").mkdir()
    bad = (pictures / "secret", "~no-such-user/x.png", "a" * 300 + ".png")
    capsys.readouterr()
    predict(reader, *bad, pictures / "7.png", "--csv", status=1)
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 2
    lines = captured.err.splitlines()
    assert lines[0] == f"chainrule: {pictures / 'secret'}: Permission denied"
    assert "File name too long" in lines[1] + lines[2]
    assert any(line.startswith("chainrule: ~no-such-user/x.png: No such file") for line in lines)


def test_a_run_of_other_things_than_digits_says_so(reader, pictures, tmp_path, capsys):
    for name, notes in (("fashion-mnist", 1), ("qmnist", 0)):
        other = tmp_path / name
        shutil.copytree(reader, other)
        config = json.loads((other / "config.json").read_text())
        (other / "config.json").write_text(json.dumps({**config, "dataset": name}))
        found = as_json(capsys, other, pictures / "7.png")[0]["digits"][0]
        said = [warning for warning in found["warnings"] if "not on handwritten digits" in warning]
        assert len(said) == notes
        assert len(found["probabilities"]) == 10


def test_what_is_unlike_the_training_images_is_said_in_words(reader, tmp_path, capsys):
    draw(5, page=(170, 170, 170)).save(tmp_path / "grey.png")
    (found,) = as_json(capsys, reader, tmp_path / "grey.png", "--preprocess", "naive")
    assert found["digits"][0]["warnings"][0].startswith("unlike the training images: distance ")
    assert "grey paper (background 0.33" in found["digits"][0]["warnings"][0]
    (all_steps,) = as_json(capsys, reader, tmp_path / "grey.png")
    assert all_steps["digits"][0]["distance"] < found["digits"][0]["distance"]
    assert not any("paper" in warning for warning in all_steps["digits"][0]["warnings"])


def test_the_rule_calls_one_in_a_hundred_of_new_images_unlike():
    from chainrule import datasets
    from chainrule.predicting import likeness

    data = datasets.load("digits")
    rule = likeness.fit_split(data.train_images, 300, 0)
    assert (rule.distance(data.test_images) > rule.limit).mean() < 0.05
    assert (rule.distance(255 - data.test_images) > rule.limit).all()
    assert (rule.distance(np.maximum(data.test_images, 69)) > rule.limit).mean() > 0.95


def test_the_rule_is_kept_with_the_run(reader, tmp_path):
    import shutil

    from chainrule import saved
    from chainrule.errors import ChainruleError
    from chainrule.predicting.likeness import FILE, Likeness

    copy = shutil.copytree(reader, tmp_path / "run")
    made = Likeness.of_run(saved.open_run(copy))
    (copy / FILE).write_bytes(made.to_bytes())
    kept = Likeness.of_run(saved.open_run(copy))
    image = np.random.default_rng(0).integers(0, 256, (1, 28, 28), np.uint8)
    assert kept.distance(image) == made.distance(image)
    assert kept.limits() == made.limits()
    (copy / FILE).write_bytes(b"junk")
    with pytest.raises(ChainruleError, match="damaged"):
        Likeness.of_run(saved.open_run(copy))


def test_the_temperature_of_the_run_is_used(reader, pictures, tmp_path, capsys):
    import shutil

    copy = shutil.copytree(reader, tmp_path / "run")
    (cold,) = as_json(capsys, copy, pictures / "5.png")
    (copy / "summary.json").write_text(
        json.dumps({"engines": {"numpy": {"calibration": {"temperature": 4.0}}}})
    )
    (warm,) = as_json(capsys, copy, pictures / "5.png")
    assert warm["digits"][0]["digit"] == cold["digits"][0]["digit"]
    assert warm["digits"][0]["probability"] < cold["digits"][0]["probability"]
    (copy / "summary.json").write_text(
        json.dumps({"engines": {"numpy": {"calibration": {"temperature": -1}}}})
    )
    predict(copy, pictures / "5.png", status=1)
    assert "a temperature of -1" in capsys.readouterr().err


# -- inspect --------------------------------------------------------------------------------------------


def test_inspect_names_what_is_off(reader, tmp_path, capsys):
    draw(5, page=(186, 186, 186)).save(tmp_path / "grey.png")
    assert (
        run(["inspect", str(tmp_path / "grey.png"), "--run", str(reader), "--out", str(tmp_path / "why.png")])
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    (naive,) = (line for line in lines if line.startswith("Naive "))
    assert "grey paper (background 0.27, training 0.00 to 0.00)" in naive
    (end,) = (line for line in lines if line.startswith("At the end"))
    assert "paper" not in end
    with Image.open(tmp_path / "why.png") as page:
        page.load()
    assert run(["inspect", str(tmp_path / "grey.png"), "--run", str(reader), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["naive"]["measures"]["background"] == pytest.approx(69 / 255, abs=0.01)
    assert found["steps"][-1]["measures"]["background"] == 0
    assert found["steps"][-1]["name"] == "centred"


def test_inspect_says_what_it_cannot_read(reader, tmp_path, capsys):
    Image.new("L", (50, 50), 200).save(tmp_path / "page.png")
    assert run(["inspect", str(tmp_path / "page.png"), "--run", str(reader)]) == 1
    assert capsys.readouterr().err == (
        f"chainrule: {tmp_path / 'page.png'}: an empty page: no ink stands out from the paper\n"
    )


# -- Real pictures --------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def own_digits():
    folder = ROOT.parent / "shared" / "own-digits"
    if not folder.is_dir():
        pytest.skip("needs real drawings: runs where ../shared/own-digits lies beside the checkout")
    return folder


def test_real_drawings_are_read(own_digits, shared, tmp_path, capsys):
    """Two epochs read nearly all of them, as docs/pictures.md has it for whole runs; the naive way half."""
    options = [
        "--engine",
        "numpy",
        "--epochs",
        "2",
        "--seed",
        "0",
        "--dataset",
        str(shared / "mnist"),
        "--json",
    ]
    assert run(["train", "ann", *options, "--validation", "5000", "--out", str(tmp_path / "ann")]) == 0
    with (own_digits / "labels.csv").open() as file:
        truth = {row["file"]: row["label"] for row in csv.DictReader(file)}

    def right(*more):
        found = as_json(capsys, tmp_path / "ann", own_digits, *more)
        assert len(found) == len(truth)
        return np.mean([each["digits"][0]["digit"] == truth[Path(each["file"]).name] for each in found])

    assert right() > 0.92
    assert right("--preprocess", "naive") < 0.6
