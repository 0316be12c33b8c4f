"""One page of HTML with everything that a run left: it needs no network and no other file."""

import base64
import shlex
from collections.abc import Iterable, Iterator
from html import escape
from importlib import resources
from string import Template
from typing import Any

from chainrule import history
from chainrule.errors import ChainruleError
from chainrule.evidence import Evidence
from chainrule.metrics import in_words

# The file of each picture, its heading, and how to read it.
_PICTURES = (
    (
        "mistakes.png",
        "The mistakes it was surest of",
        "Wrongly read test images, with the answer, the probability that the network gave it, and the truth. "
        "Would you have known better?",
    ),
    (
        "samples.png",
        "The first test images",
        "Above each image what the network read; in red a mistake, and what it is.",
    ),
    (
        "weights.png",
        "What the first layer looks for",
        "The weights of each unit, laid out as the pixels they belong to: ink on red raises its output, ink "
        "on blue lowers it.",
    ),
    (
        "features.png",
        "What the layers make of an image",
        "Each convolution answers to its own pattern; ReLU keeps what is above zero, and pooling the largest "
        "of its neighbours.",
    ),
    (
        "reliability.png",
        "How far to believe its probabilities",
        "On the dotted line 80 % means that 80 in 100 of the answers are right; below it the network is too "
        "sure of itself. The calibration error is the mean distance from that line. Few answers have a low "
        "probability, so their points scatter.",
    ),
    ("classes.png", "The classes", "How often each class occurs. The dotted line is an equal share of all."),
)


def page(run: Evidence) -> str:
    """Return the page of a run; of one that was stopped, with what is there.

    Raises ChainruleError if what its summary says is not what a run writes.
    """
    try:
        body = "\n".join(part for section in _SECTIONS for part in section(run))
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise ChainruleError(
            f"{run.path}: config.json or summary.json is not what a run writes: {error!r}"
        ) from None
    template = Template(resources.files("chainrule").joinpath("report.html").read_text("utf-8"))
    return template.substitute(title=escape(f"{run.name}: {run.config['recipe']['name']}"), body=body)


def _head(run: Evidence) -> Iterator[str]:
    recipe = run.config["recipe"]
    yield f"<h1>{escape(run.name)}</h1>"
    yield f"<p>{escape(recipe['name'])}, {escape(recipe['summary'])}, on {escape(run.config['dataset'])}</p>"
    if run.summary is None:
        epochs = f"{int(run.results(run.engines[0])['epochs'])} of {int(recipe['epochs'])}"
        yield (
            f'<p class="note">This run was stopped after {epochs} epochs: it has no '
            "summary. Below is what its files hold.</p>"
        )
    for engine in run.engines:
        results = run.results(engine)
        if "test_accuracy" in results:
            yield f'<p class="big">{results["test_accuracy"]:.2%}</p>'
            yield f"<p>of the test images read correctly by {escape(engine)}{_best(results)}</p>"


def _best(results: dict[str, Any]) -> str:
    best = results.get("best")
    if not best:
        return ""
    return f"; {best['test_accuracy']:.2%} after epoch {int(best['epoch'])}, the best by validation"


def _facts(run: Evidence) -> Iterator[str]:
    recipe, summary = run.config["recipe"], run.summary or {}
    results = {engine: run.results(engine) for engine in run.engines}
    interval = f", stepped every {'batch' if recipe.get('interval') == 'step' else 'epoch'}"
    scheduler = recipe.get("scheduler")
    facts = {
        "Network": " → ".join(f"{layer['name']} ({layer['type']})" for layer in recipe["layers"]),
        "Parameters": f"{summary['parameters']:,}" if summary else "",
        "Input": f"(pixel / 255 - {recipe['mean']:g}) / {recipe['std']:g}" if "mean" in recipe else "",
        "Loss": _called(recipe["loss"]) if "loss" in recipe else "",
        "Optimizer": _called(recipe["optimizer"]),
        "Scheduler": _called(scheduler) + interval if scheduler else "",
        "Batches": f"of {recipe['batch_size']}",
        "Epochs": ", ".join(f"{result['epochs']} ({engine})" for engine, result in results.items()),
        "Seed": str(recipe["seed"]),
        "Validation": f"{recipe['validation']:,} training images" if recipe.get("validation") else "",
        "Training took": ", ".join(
            f"{result['seconds']:.1f} s ({engine})" for engine, result in results.items()
        ),
        "Device": str(run.config.get("device", "")),
    }
    yield _list(facts)


def _called(part: dict[str, Any]) -> str:
    return f"{part['type']}({', '.join(f'{key}={value}' for key, value in part['arguments'].items())})"


def _curves(run: Evidence) -> Iterator[str]:
    if not run.metrics:
        return
    yield "<h2>How it learnt</h2>"
    picture = run.path / "curves.png"
    if picture.is_file():
        yield _figure(picture.read_bytes(), "Loss, accuracy and learning rate over the epochs")
    else:  # a run that was stopped has no pictures, but this one needs nothing else
        from chainrule import plots

        yield _figure(plots.curves(run.metrics, run.name), "Loss, accuracy and learning rate over the epochs")
    yield (
        "<p>While the loss on the training images falls and that on the others rises, the network learns by "
        "heart. The training figures are means over an epoch in which it was still learning.</p>"
    )


def _classes(run: Evidence) -> Iterator[str]:
    engine = run.engines[0]
    results = run.results(engine)
    confusion = run.path / "confusion.png"
    if not confusion.is_file() and "per_class" not in results:
        return
    yield "<h2>What it takes for what</h2>"
    if confusion.is_file():
        yield _figure(confusion.read_bytes(), "Confusion matrix")
    if results.get("most_confused"):
        yield f"<p>Most often ({escape(engine)}):</p><ul>"
        yield from (f"<li>{escape(in_words(pair))}</li>" for pair in results["most_confused"])
        yield "</ul>"
    if "per_class" in results:
        rows = [
            [name, *(_percent(row[key]) for key in ("precision", "recall", "f1")), f"{row['support']:,}"]
            for name, row in results["per_class"].items()
        ]
        yield _table(["class", "precision", "recall", "F1", "images"], rows, text=(0,))
        yield (
            "<p>Of what it read as a class, precision is the share that is one; of the images of a class, "
            "recall is the share that it found; F1 is their harmonic mean.</p>"
        )


def _pictures(run: Evidence) -> Iterator[str]:
    for file, heading, words in _PICTURES:
        picture = run.path / file
        if picture.is_file():
            yield f"<h2>{heading}</h2>"
            yield _figure(picture.read_bytes(), heading)
            yield f"<p>{words}</p>"


def _calibration(run: Evidence) -> Iterator[str]:
    rows = []
    for engine in run.engines:
        found = run.results(engine).get("calibration")
        if found:
            temperature = found["temperature"]
            after = found.get("after", {}).get("ece")
            told = "none kept back" if temperature is None else f"{found['validation_images']:,} images"
            rows.append(
                [engine, _number(temperature), told, _percent(found["before"]["ece"]), _percent(after)]
            )
    if rows:
        yield "<h2>Calibration</h2>"
        yield _table(["engine", "temperature", "found by", "error before", "after"], rows, text=(0, 2))
        yield (
            "<p>The outputs are divided by the temperature before they become probabilities; the images that "
            "tell it are those of <code>--validation</code>. The expected calibration error is of the test "
            "images, in 15 bins.</p>"
        )


def _agreement(run: Evidence) -> Iterator[str]:
    agreement = (run.summary or {}).get("agreement")
    if not agreement:
        return
    yield "<h2>Do the two engines agree?</h2>"
    verdict = "They agree" if agreement["agrees"] else "They DISAGREE"
    yield (
        f"<p>{verdict}: one batch of {int(agreement['images'])} test images in {escape(agreement['dtype'])}, "
        f"with the trained weights; the largest difference of each tensor is compared with its largest "
        f"value, and "
        f"the limit is {agreement['limit']:g}.</p>"
    )
    rows = [
        [name, "x".join(map(str, row["shape"])) or "scalar", f"{row['error']:.1e}"]
        for name, row in agreement["tensors"].items()
    ]
    yield _table(["tensor", "shape", "error"], rows, text=(0,))


def _history(run: Evidence) -> Iterator[str]:
    accuracy = run.results(run.engines[0]).get("test_accuracy")
    if run.config["dataset"] != "mnist" or accuracy is None:
        return
    own = history.own(run.name, "mnist", run.layers, accuracy)
    yield "<h2>Beside the published record</h2>"
    picture = run.path / "history.png"
    if picture.is_file():
        yield _figure(picture.read_bytes(), "Published test errors on MNIST over the years")
    yield f"<p>{escape(history.standing(own))}</p>"
    rows: list[tuple[float, list[Any]]] = [
        (r.error, [r.network, r.year, r.how, history.cite(r)]) for r in history.records()
    ]
    this: tuple[float, list[Any]] = (own.error, [own.name, "", "", "this run"])
    rows = sorted([*rows, this], key=lambda row: -row[0])
    yield _table(
        ["test error", "network", "year", "with the help of", "source"],
        [[f"{error:.2f} %", *row] for error, row in rows],
        text=(1, 3, 4),
        own=rows.index(this),
    )
    yield f"<ol>{''.join(f'<li>{escape(source)}</li>' for source in history.sources())}</ol>"


def _epochs(run: Evidence) -> Iterator[str]:
    if not run.metrics:
        return
    yield "<h2>Every epoch</h2>"
    splits = [
        name for name in ("train", "validation", "test") if any(row["split"] == name for row in run.metrics)
    ]
    found = {(row["epoch"], row["engine"], row["split"]): row for row in run.metrics}
    rows = []
    for epoch, engine in dict.fromkeys((row["epoch"], row["engine"]) for row in run.metrics):
        of = [found.get((epoch, engine, split), {}) for split in splits]
        cells = [text for row in of for text in (_number(row.get("loss")), _percent(row.get("accuracy")))]
        train = found.get((epoch, engine, "train"), {})
        cells += [_number(train.get(key)) for key in ("learning_rate", "gradient_norm")]
        rows.append([epoch, engine, *cells])
    heads = [head for split in splits for head in (f"{split} loss", "accuracy")]
    yield _table(["epoch", "engine", *heads, "learning rate", "|gradient|"], rows, text=(1,))


def _repeat(run: Evidence) -> Iterator[str]:
    yield "<h2>To repeat it</h2>"
    command = run.config.get("command") or []
    yield f"<p><code>{escape(shlex.join(map(str, command)))}</code></p>"
    versions = run.config.get("versions") or {}
    yield _list(
        {
            "Versions": ", ".join(f"{name} {value}" for name, value in versions.items()),
            "Machine": str(run.config.get("platform", "")),
            "Data": str(run.config.get("dataset_folder", "")),
        }
    )
    rows = [[name, value] for name, value in run.config["dataset_sha256"].items()]
    yield _table(["file", "SHA-256"], rows, text=(0, 1), code=True)


_SECTIONS = (
    *(_head, _facts, _curves, _classes, _pictures, _calibration, _agreement, _history, _epochs, _repeat),
)


def _figure(picture: bytes, alt: str) -> str:
    source = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    return f'<figure><img src="{source}" alt="{escape(alt)}"></figure>'


def _list(facts: dict[str, str]) -> str:
    entries = (f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in facts.items() if value)
    return f"<dl>{''.join(entries)}</dl>"


def _table(
    heads: list[str],
    rows: Iterable[list[Any]],
    *,
    text: tuple[int, ...] = (),
    own: int | None = None,
    code: bool = False,
) -> str:
    """Return a table whose columns ``text`` are words, the others numbers; the row ``own`` stands out."""

    def line(tag: str, cells: list[Any]) -> str:
        texts = [f"<code>{escape(str(cell))}</code>" if code else escape(str(cell)) for cell in cells]
        return "".join(
            f"<{tag}{' class=text' if index in text else ''}>{cell}</{tag}>"
            for index, cell in enumerate(texts)
        )

    body = "".join(
        f"<tr{' class=own' if index == own else ''}>{line('td', row)}</tr>" for index, row in enumerate(rows)
    )
    head = f"<thead><tr>{line('th', heads)}</tr></thead>"
    return f'<div class="wide"><table>{head}<tbody>{body}</tbody></table></div>'


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
