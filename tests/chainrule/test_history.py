"""The published record: each entry complete, the known figures in it, and a run beside them."""

import json

import pytest
from PIL import Image

from chainrule import history
from chainrule.cli import run
from chainrule.errors import ChainruleError


@pytest.fixture
def mnist_run(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    layers = [{"name": "fc1", "type": "Linear", "arguments": {}}]
    recipe = {"name": "ann", "summary": "", "layers": layers, "batch_size": 1, "epochs": 3, "seed": 0}
    recipe["optimizer"] = {"type": "Adam", "arguments": {}, "name": ""}
    config = {"recipe": recipe, "engine": "numpy", "dataset": "mnist", "dataset_sha256": {}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "metrics.csv").write_text(
        "epoch,engine,split,loss,accuracy,learning_rate,gradient_norm,seconds\n"
        "1,numpy,train,0.5,0.8,0.001,1.0,1.5\n1,numpy,test,0.5,0.9759,,,\n"
    )
    return folder


# Error in percent, year, kind, distortions, networks: as the MNIST page lists them; from 2013 on, the papers.
KNOWN = [
    (12.0, 1998, "fully-connected", "none", 1),
    (4.7, 1998, "fully-connected", "none", 1),
    (2.95, 1998, "fully-connected", "none", 1),
    (0.95, 1998, "convolutional", "none", 1),
    (0.8, 1998, "convolutional", "affine", 1),
    (1.6, 2003, "fully-connected", "none", 1),
    (0.7, 2003, "fully-connected", "elastic", 1),
    (0.4, 2003, "convolutional", "elastic", 1),
    (0.35, 2010, "fully-connected", "elastic", 1),
    (0.31, 2011, "fully-connected", "elastic", 7),
    (0.27, 2011, "convolutional", "elastic", 7),
    (0.23, 2012, "convolutional", "elastic", 35),
    (0.21, 2013, "convolutional", "affine", 5),
    (0.95, 2014, "fully-connected", "none", 1),
    (0.57, 2015, "fully-connected", "none", 1),
    (0.09, 2020, "convolutional", "affine", 9),
]


def test_the_record_holds_the_known_figures():
    found = {(r.error, r.year, r.kind, r.distortions, r.committee) for r in history.records()}
    assert set(KNOWN) <= found


def test_every_entry_is_complete():
    records = history.records()
    assert [r.error for r in records] == sorted((r.error for r in records), reverse=True)
    for record in records:
        assert record.kind in history.KINDS
        assert record.network
        assert record.source
        assert record.side in ("left", "right")
        assert record.alone == (record.how == "-")
        assert 0 < record.error < 100


@pytest.mark.parametrize(
    ("kind", "error", "expected"),
    [
        (
            "fully-connected",
            2.41,
            ["better than the 2.95 %", "LeCun, 1998", "not yet the 1.6 %", "Simard, 2003"],
        ),
        ("fully-connected", 0.5, ["better than the 0.57 %"]),
        ("convolutional", 1.2, ["not yet the 0.95 % of LeNet-5"]),
    ],
)
def test_a_run_stands_among_its_own_kind(kind, error, expected):
    sentence = history.standing(history.Own("mine", kind, error))
    assert all(part in sentence for part in expected), sentence
    assert ("better" in sentence) == ("better" in expected[0])
    assert ("not yet" in sentence) == any("not yet" in part for part in expected)


def test_the_kind_follows_from_the_layers():
    assert history.own("mine", "mnist", ["Flatten", "Linear"], 0.98).kind == "fully-connected"
    own = history.own("mine", "mnist", ["Conv2d", "Linear"], 0.98)
    assert (own.kind, own.error) == ("convolutional", pytest.approx(2.0))
    with pytest.raises(
        ChainruleError, match="mine was tested on digits: the published record is that of MNIST"
    ):
        history.own("mine", "digits", ["Linear"], 0.98)


def test_the_table_names_sources_and_the_run(mnist_run, capsys):
    assert run(["history"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(history.records()) + 1 + len(history.sources())
    assert "[2] Simard, Steinkraus and Platt, ICDAR, 2003" in lines
    assert run(["history", str(mnist_run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    (place,) = (index for index, line in enumerate(lines) if "> mine" in line)
    assert lines[place].split()[:2] == ["2.41", "%"]
    assert lines[place - 1].startswith(" 2.45 %")
    assert lines[place + 1].startswith(" 1.60 %")


def test_json(mnist_run, capsys):
    assert run(["history", str(mnist_run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["run"] == {"name": "mine", "kind": "fully-connected", "error": pytest.approx(2.41)}
    assert len(found["records"]) == len(history.records())
    assert {"year", "network", "error", "source", "distortions", "committee"} <= found["records"][0].keys()


def test_the_picture(mnist_run, tmp_path, capsys):
    assert run(["history", str(mnist_run), "--picture", str(tmp_path / "record.png")]) == 0
    with Image.open(tmp_path / "record.png") as picture:
        picture.verify()
    assert run(["history", "--picture", str(tmp_path)]) == 1
    assert "is a folder: expected the name of a file" in capsys.readouterr().err


def test_another_data_set_is_one_line(mnist_run, capsys):
    config = json.loads((mnist_run / "config.json").read_text())
    (mnist_run / "config.json").write_text(json.dumps({**config, "dataset": "fashion-mnist"}))
    assert run(["history", str(mnist_run)]) == 1
    assert capsys.readouterr().err == (
        "chainrule: mine was tested on fashion-mnist: the published record is that of MNIST\n"
    )


def test_a_run_without_a_whole_epoch_has_no_error(mnist_run, capsys):
    (mnist_run / "metrics.csv").unlink()
    assert run(["history", str(mnist_run)]) == 1
    assert "was stopped before its first epoch was over" in capsys.readouterr().err
