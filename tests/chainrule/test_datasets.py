import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import idx
from chainrule import cli, datasets
from chainrule.errors import ChainruleError, WrongUsage

MIRROR = "http://mirror.example/"
IMAGES, LABELS, TEST_IMAGES, TEST_LABELS = FILES = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
]


@pytest.fixture
def root(tmp_path, write_manifest):
    write_manifest(MIRROR)
    return tmp_path / "data"


def one_line(error, *parts):
    text = str(error.value)
    assert "\n" not in text
    for part in parts:
        assert str(part) in text


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("place", ["mnist", "MNIST/raw"])
def test_the_layouts_are_found_and_read(place, packed, root, small):
    small.put(root / place, packed)
    mnist = datasets.load("mnist", root)
    assert mnist.train_images.tobytes() == small.raw["train_images"][16:]
    assert mnist.train_images.shape == (120, 28, 28)
    assert mnist.test_labels.tobytes() == small.raw["test_labels"][8:]
    assert {array.dtype for array in (mnist.train_images, mnist.train_labels)} == {np.dtype(np.uint8)}
    assert mnist.folder == root / place
    assert sorted(mnist.sha256) == sorted(f"{name}.gz" if packed else name for name in FILES)


def test_a_verified_copy_is_preferred_to_a_damaged_one(root, small):
    small.put(root / "mnist")
    (root / "mnist" / f"{IMAGES}.gz").write_bytes(b"damaged")
    small.put(root / "MNIST" / "raw", packed=False)
    assert len(datasets.load("mnist", root).train_images) == 120


def test_auto_takes_mnist_when_it_is_here(root, small):
    small.put(root / "mnist")
    found = datasets.load("auto", root)
    assert (found.name, found.title) == ("mnist", "MNIST")
    assert found.why == "verified"


def test_auto_takes_the_digits_when_mnist_is_not_here(root):
    found = datasets.load("auto", root)
    assert found.name == "digits"
    assert found.why == f"MNIST is not in {root / 'mnist'}: `make download` brings it"


@pytest.mark.parametrize("missing", [True, False])
def test_auto_says_plainly_that_mnist_is_damaged(missing, root, small):
    path = small.put(root / "mnist") / f"{TEST_LABELS}.gz"
    path.unlink() if missing else path.write_bytes(path.read_bytes()[:-1])
    found = datasets.load("auto", root)
    assert found.name == "digits"
    assert "cannot be used" in found.why
    assert str(path) in found.why
    assert found.why.endswith(": `make download` brings it" + ("" if missing else " again"))


def test_the_default_root_follows_the_environment(monkeypatch):
    monkeypatch.delenv("CHAINRULE_DATA", raising=False)
    assert datasets.default_root() == Path("data")
    monkeypatch.setenv("CHAINRULE_DATA", "elsewhere")
    assert datasets.default_root() == Path("elsewhere")


@pytest.mark.parametrize("name", FILES)
def test_one_wrong_bit_is_refused(name, root, small):
    path = small.put(root / "mnist", packed=False) / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ChainruleError) as error:
        datasets.load("mnist", root)
    one_line(error, path, "found", "expected", "SHA-256", ": `make download` brings it again")


def test_a_file_under_anothers_name_is_recognised(root, small):
    folder = small.put(root / "mnist")
    shutil.copy(folder / f"{LABELS}.gz", folder / f"{IMAGES}.gz")
    with pytest.raises(ChainruleError) as error:
        datasets.load("mnist", root)
    one_line(error, f"{IMAGES}.gz", f"that is MNIST's {LABELS}.gz")


def test_a_missing_set_says_what_brings_it(root):
    with pytest.raises(ChainruleError) as error:
        datasets.load("kmnist", root)
    one_line(error, root / "kmnist", "`chainrule download kmnist` brings it")


def test_uncompressed_files_without_a_published_sum_cannot_be_verified(root, small):
    small.put(root / "KMNIST" / "raw", packed=False)
    with pytest.raises(ChainruleError) as error:
        datasets.load("kmnist", root)
    one_line(error, "no SHA-256 of the uncompressed file is published", "chainrule download kmnist")
    assert str(error.value).count("chainrule download") == 1


def test_the_digits_come_with_chainrule(small, monkeypatch, tmp_path):
    monkeypatch.setattr(datasets, "embedded", lambda: small.put(tmp_path))
    with pytest.raises(ChainruleError) as error:
        datasets.load("digits")
    one_line(error, "not the published file", ": installing chainrule brings it again")


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(WrongUsage) as error:
        datasets.load("fashion-mnits")
    one_line(error, "auto, mnist, fashion-mnist, kmnist, digits", "Did you mean 'fashion-mnist'?")
    assert datasets.known() == ["mnist", "fashion-mnist", "kmnist", "digits"]


def test_an_empty_name_is_not_the_current_folder(small, tmp_path, monkeypatch):
    monkeypatch.chdir(small.put(tmp_path))
    with pytest.raises(WrongUsage) as error:
        datasets.load("")
    one_line(error, "is empty: expected auto, mnist")
    assert datasets.load(".").folder == Path()


def test_qmnist_says_why_it_cannot_be_trained_on():
    with pytest.raises(ChainruleError) as error:
        datasets.load("qmnist")
    one_line(error, "no verified SHA-256 of its images")


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("place", ["", "raw", "mnist", "MNIST/raw", "FashionMNIST/raw"])
def test_a_folder_of_ones_own(place, packed, small, tmp_path):
    small.put(tmp_path / "own" / place, packed)
    own = datasets.load(str(tmp_path / "own"))
    assert own.name == "own"
    assert own.train_images.tobytes() == small.raw["train_images"][16:]
    assert len(own.sha256) == 4
    assert "no published one" in own.why


def test_a_folder_of_ones_own_may_have_kaggles_names(small, tmp_path):
    small.put(tmp_path, packed=False)
    for name in FILES:
        (tmp_path / name).rename(tmp_path / name.replace("-idx", ".idx"))
    assert len(datasets.load(str(tmp_path)).train_images) == 120


def test_a_folder_with_the_published_files_is_recognised(root, small, tmp_path):
    own = datasets.load(str(small.put(tmp_path / "copy")))
    assert (own.name, own.title) == ("mnist", "MNIST")


def test_a_folder_with_two_sets_asks_for_one(small, tmp_path):
    small.put(tmp_path / "mnist")
    small.put(tmp_path / "KMNIST" / "raw")
    with pytest.raises(ChainruleError) as error:
        datasets.load(str(tmp_path))
    one_line(error, "several data sets: name one of", tmp_path / "mnist", tmp_path / "KMNIST" / "raw")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("./nosuch", ["no such folder"]),
        (__file__, ["is a file"]),
        (str(Path(__file__).parent), ["holds no data set", IMAGES]),
    ],
)
def test_a_folder_that_is_none(name, parts):
    with pytest.raises(ChainruleError) as error:
        datasets.load(name)
    one_line(error, name, *parts)


@pytest.mark.parametrize(
    ("name", "array", "parts"),
    [
        (IMAGES, np.zeros(120, np.uint8), ["expected images", "(120,), which look like labels"]),
        (LABELS, np.zeros((120, 28, 28), np.uint8), ["expected labels", "which look like images"]),
        (IMAGES, np.zeros((120, 32, 32), np.uint8), ["(N > 0, 28, 28)", "(120, 32, 32)"]),
        (IMAGES, np.zeros((120, 28, 28), np.float32), ["uint8", "float32"]),
        (LABELS, np.zeros(120, np.int32), ["uint8", "int32"]),
        (IMAGES, np.zeros((0, 28, 28), np.uint8), ["(0, 28, 28)"]),
        (LABELS, np.zeros(119, np.uint8), ["found 119 labels", "120 images"]),
        (TEST_LABELS, np.arange(40, dtype=np.uint8), ["label 10 is 10, expected 0 to 9"]),
    ],
)
def test_what_is_no_set_of_digits_is_refused(name, array, parts, small, tmp_path):
    small.put(tmp_path, packed=False)
    idx.write(tmp_path / name, array)
    with pytest.raises(ChainruleError) as error:
        datasets.load(str(tmp_path))
    one_line(error, tmp_path / name, *parts)


def test_a_set_in_the_manifest_is_checked_for_its_shape_too(small, write_manifest, root):
    small.raw["train_labels"] = small.raw["test_labels"]
    small.packed["train_labels"] = gzip.compress(small.raw["train_labels"])
    write_manifest(MIRROR)
    small.put(root / "mnist")
    with pytest.raises(ChainruleError) as error:
        datasets.load("mnist", root)
    one_line(error, "found 40 labels", "120 images")


@pytest.mark.parametrize("data", [b"", b"<html>", b"\x1f\x8b\x08damaged", b"\0\0\x08\x03\0\0"])
def test_a_file_that_is_no_idx_is_refused(data, small, tmp_path):
    path = small.put(tmp_path, packed=False) / IMAGES
    path.write_bytes(data)
    with pytest.raises(ChainruleError) as error:
        datasets.load(str(tmp_path))
    one_line(error, f"{path}: ")
    assert "<bytes>" not in str(error.value)


def test_what_cannot_be_read_is_said(root, small, capsys):
    path = small.put(root / "mnist") / f"{IMAGES}.gz"
    path.unlink()
    path.mkdir()
    with pytest.raises(ChainruleError) as error:
        datasets.load("mnist", root)
    one_line(error, f"{path}: cannot be read: Is a directory")
    assert datasets.load("auto", root).name == "digits"
    assert cli.run(["datasets", "--root", str(root)]) == 0


def test_a_missing_file_is_named(small, tmp_path):
    (small.put(tmp_path) / f"{TEST_LABELS}.gz").unlink()
    with pytest.raises(ChainruleError) as error:
        datasets.load(str(tmp_path))
    one_line(error, tmp_path / TEST_LABELS, "missing")


@pytest.mark.parametrize("installed", [True, False])
def test_the_digits_are_found_in_a_checkout_and_in_an_installed_package(installed, tmp_path, monkeypatch):
    package = tmp_path / "chainrule"
    package.mkdir()
    digits = package / "digits" if installed else tmp_path / "data" / "digits"
    shutil.copytree(datasets.embedded(), digits)
    monkeypatch.setattr(datasets, "__file__", str(package / "datasets.py"))
    assert datasets.load("digits").folder == digits
    assert datasets.command() == ("chainrule download" if installed else "make download")


def test_real_mnist(shared):
    mnist = datasets.load("mnist", shared)
    assert mnist.train_images.shape == (60000, 28, 28)
    assert mnist.test_images.shape == (10000, 28, 28)
    assert mnist.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert datasets.load("fashion-mnist", shared).class_names[9] == "Ankle boot"


def test_the_list_says_what_is_here(root, small, capsys):
    small.put(root / "mnist")
    small.put(root / "kmnist")
    (root / "kmnist" / f"{IMAGES}.gz").write_bytes(b"damaged")
    assert cli.run(["datasets", "--root", str(root)]) == 0
    text = capsys.readouterr().out
    assert "mnist          verified" in text
    assert "kmnist         damaged (3 of 4 files verified)" in text
    assert "comes with chainrule" in text
    assert MIRROR.rstrip("/") in text


@pytest.mark.parametrize("states", [["verified"] * 2, ["damaged (3 of 4 files verified)", "not here"]])
def test_the_sizes_in_the_list_are_aligned(states, root, small, capsys):
    small.put(root / "mnist")
    if "damaged" in states[0]:
        (root / "mnist" / f"{IMAGES}.gz").write_bytes(b"damaged")
    else:
        small.put(root / "kmnist")
    assert cli.run(["datasets", "--root", str(root)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    assert [line[15:].split("  ")[0].rstrip() for line in lines[:2]] == states
    assert len({line.index(" MB") for line in lines}) == 1


def test_a_healthy_file_without_a_published_sum_is_unverified_not_damaged(root, small, capsys):
    folder = small.put(root / "KMNIST" / "raw", packed=False)
    assert cli.run(["datasets", "--root", str(root)]) == 0
    text = capsys.readouterr().out
    assert "kmnist         unverified " in text
    assert "cannot be verified" in text
    small.put(root / "kmnist")
    assert cli.run(["datasets", "--root", str(root)]) == 0
    assert "kmnist         verified " in capsys.readouterr().out
    (root / "kmnist" / f"{IMAGES}.gz").write_bytes(b"damaged")
    (folder / IMAGES).unlink()
    assert cli.run(["datasets", "--root", str(root)]) == 0
    assert "kmnist         damaged " in capsys.readouterr().out


def test_the_list_as_json(root, small, capsys):
    (small.put(root / "mnist") / f"{IMAGES}.gz").unlink()
    assert cli.run(["datasets", "--root", str(root), "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert {name: row["state"] for name, row in rows.items()} == {
        "mnist": "partly here",
        "kmnist": "not here",
        "digits": "verified",
    }
    assert [file["verified"] for file in rows["mnist"]["files"]] == [False, True, True, True]
    assert rows["mnist"]["mirrors"] == [MIRROR]


def test_starting_the_command_line_loads_nothing_heavy():
    heavy = "{'torch', 'matplotlib', 'sklearn', 'pooch', 'requests'}"
    program = f"import sys, chainrule.cli; print({heavy} & set(sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert found.stdout == "set()\n"
