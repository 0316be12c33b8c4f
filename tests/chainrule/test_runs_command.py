"""``chainrule runs``: every run in a line, a damaged one named, two compared."""

import json

import pytest

from chainrule.cli import run

LAYERS = [{"name": "fc1", "type": "Linear", "arguments": {"in_features": 784, "out_features": 10}}]


def make(folder, accuracy=0.9, engine="numpy", finished=True, **changes):
    """Write the files of a run that ``chainrule runs`` reads."""
    folder.mkdir(parents=True)
    recipe = {
        "name": "simplenet",
        "summary": "784-10",
        "layers": LAYERS,
        "optimizer": {"type": "Adam", "arguments": {"lr": 0.001}, "name": ""},
        **{"batch_size": 64, "epochs": 3, "seed": 0},
        **changes,
    }
    config = {"recipe": recipe, "engine": engine, "dataset": "mnist", "dataset_sha256": {"a": "1" * 64}}
    (folder / "config.json").write_text(json.dumps(config))
    engines = ["numpy", "torch"] if engine == "both" else [engine]
    rows = ["epoch,engine,split,loss,accuracy,learning_rate,gradient_norm,seconds"]
    for name in engines:
        rows += [f"1,{name},train,0.5,0.8,0.001,1.0,1.5", f"1,{name},test,0.5,{accuracy},,,"]
    (folder / "metrics.csv").write_text("\n".join(rows))
    results = {
        **{"epochs": 3, "seconds": 4.5, "train_loss": 0.1, "train_accuracy": 0.95},
        **{"test_loss": 0.2, "test_accuracy": accuracy},
    }
    if finished:
        summary = {**results, "engines": dict.fromkeys(engines, results)}
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def table(capsys):
    captured = capsys.readouterr()
    return captured.out.splitlines(), captured.err


def test_each_engine_of_each_run_is_a_line(tmp_path, capsys):
    make(tmp_path / "b", 0.9, "both")
    make(tmp_path / "a", 0.95, seed=7)
    make(tmp_path / "c", 0.5, finished=False)
    (tmp_path / "not-a-run").mkdir()
    assert run(["runs", str(tmp_path)]) == 0
    lines, error = table(capsys)
    assert [line.split() for line in lines] == [
        [*["name", "recipe", "engine", "data", "epochs", "seed", "test", "accuracy", "seconds"]],
        ["a", "simplenet", "numpy", "mnist", "3", "7", "95.00%", "4.5"],
        ["b", "simplenet", "numpy", "mnist", "3", "0", "90.00%", "4.5"],
        ["b", "simplenet", "torch", "mnist", "3", "0", "90.00%", "4.5"],
        ["c", "simplenet", "numpy", "mnist", "1", "0", "50.00%", "1.5", "stopped", "before", "its", "end"],
    ]
    assert error == ""


@pytest.mark.parametrize(("sort", "expected"), [("name", "abc"), ("accuracy", "cba"), ("seconds", "bca")])
def test_sorting(tmp_path, capsys, sort, expected):
    make(tmp_path / "a", 0.9)
    make(tmp_path / "b", 0.95, finished=False)
    make(tmp_path / "c", 0.99)
    summary = json.loads((tmp_path / "c" / "summary.json").read_text())
    summary["engines"]["numpy"]["seconds"] = 2.0
    (tmp_path / "c" / "summary.json").write_text(json.dumps(summary))
    assert run(["runs", str(tmp_path), "--sort", sort, "--json"]) == 0
    assert "".join(row["name"] for row in json.loads(capsys.readouterr().out)) == expected


def test_a_run_without_a_whole_epoch_sorts_last(tmp_path, capsys):
    make(tmp_path / "a", finished=False)
    (tmp_path / "a" / "metrics.csv").unlink()
    make(tmp_path / "b", 0.1)
    assert run(["runs", str(tmp_path), "--sort", "accuracy"]) == 0
    lines, _ = table(capsys)
    assert [line.split()[0] for line in lines] == ["name", "b", "a"]
    assert lines[2].split()[4:8] == ["0", "0", "-", "0.0"]


@pytest.mark.parametrize(
    "damage", ["{", "[]", "{}", '{"recipe": {"name": "x"}}', '{"engines": {"numpy": 3}}']
)
@pytest.mark.parametrize("name", ["config.json", "summary.json"])
def test_a_broken_run_is_one_line_and_hides_no_other(tmp_path, capsys, name, damage):
    make(tmp_path / "a")
    make(tmp_path / "broken")
    (tmp_path / "broken" / name).write_text(damage)
    assert run(["runs", str(tmp_path)]) == 0
    lines, error = table(capsys)
    assert [line.split()[0] for line in lines] == ["name", "a"]
    assert str(tmp_path / "broken") in error
    assert error.count("\n") == 1


def test_no_runs(tmp_path, capsys):
    assert run(["runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"no runs in {tmp_path}: `chainrule train` makes one\n"
    assert run(["runs", str(tmp_path / "none")]) == 1
    assert "there is no such folder" in capsys.readouterr().err


def test_a_run_itself_is_listed_too(tmp_path, capsys):
    make(tmp_path / "a")
    assert run(["runs", str(tmp_path / "a")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_comparing_two_says_in_what_they_differ(tmp_path, capsys):
    wide = [{"name": "fc1", "type": "Linear", "arguments": {"in_features": 784, "out_features": 20}}]
    first = make(tmp_path / "a", 0.90, "both")
    second = make(tmp_path / "b", 0.925, layers=wide, seed=3)
    assert run(["runs", "--compare", str(first), str(second)]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[:6] == [
        "How they were trained",
        "a b",
        "recipe.layers.fc1 Linear(in_features=784, out_features=10) Linear(in_features=784, out_features=20)",
        "recipe.seed 0 3",
        "engine both numpy",
        "",
    ]
    assert lines[6] == "What they reached (numpy)"
    assert "test accuracy 90.00% 92.50% +2.50 points" in lines
    assert run(["runs", "--compare", str(first), str(second), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["differences"]["recipe.seed"] == [0, 3]
    assert found["results"]["numpy"]["test_accuracy"] == [0.9, 0.925]


def test_comparing_runs_of_different_engines(tmp_path, capsys):
    pair = [str(make(tmp_path / name, engine=name)) for name in ("numpy", "torch")]
    assert run(["runs", "--compare", *pair]) == 0
    assert "What they reached (numpy and torch)" in capsys.readouterr().out
    assert run(["runs", "--compare", pair[0], pair[0]]) == 0
    assert "Both were trained in the same way." in capsys.readouterr().out


def test_comparing_needs_two_runs(tmp_path, capsys):
    folder = make(tmp_path / "a")
    assert run(["runs", "--compare", str(folder), str(tmp_path / "none")]) == 1
    assert "there is no such run" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [None, "x", [], float("inf"), float("nan")])
@pytest.mark.parametrize(
    ("file", "key"),
    [
        *(("config.json", key) for key in ("recipe", "engine", "dataset_sha256")),
        *(("config.json", f"recipe.{key}") for key in ("seed", "epochs", "batch_size")),
        ("config.json", "recipe.optimizer.arguments"),
        *(("summary.json", f"engines.numpy.{key}") for key in ("epochs", "seconds", "test_accuracy")),
    ],
)
def test_a_value_of_the_wrong_kind_is_named_with_its_file(tmp_path, capsys, file, key, wrong):
    folder = make(tmp_path / "a")
    content = json.loads((folder / file).read_text())
    *parents, last = key.split(".")
    table = content
    for parent in parents:
        table = table[parent]
    table[last] = wrong
    (folder / file).write_text(json.dumps(content))
    assert run(["history", str(folder)]) == 1
    found = f"{last} is {wrong!r}"
    assert capsys.readouterr().err == f"chainrule: {folder / file}: not what a run writes: {found}\n"
