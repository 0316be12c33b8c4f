"""A recipe in both engines on one batch of real images: what ``chainrule compare`` compares."""

import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import nn_reference
from agreement import Report, compare_networks, compare_training
from chainrule import datasets, training
from chainrule import recipe as recipes
from chainrule.errors import ChainruleError


def compare(
    name: str,
    *,
    dtype: str,
    steps: int,
    seed: int | None = None,
    batch_size: int | None = None,
    dataset: str = "auto",
    root: Path | None = None,
) -> tuple[Report, dict[str, str]]:
    """Compare both engines on a batch, after ``steps`` steps of training; returns what it was of as well.

    With ``steps`` the report has rows for the parameters that each engine reached by itself. The batch that
    is looked at in detail is the one after, with the reference's weights in both, and then both take one step
    more. An exception in the engine, which a reader may be changing, is a ChainruleError with the line.
    """
    try:
        return _compare(name, dtype, steps, seed, batch_size, dataset, root)
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        if Path(frame.filename).parent != Path(nn_reference.__file__).parent:
            raise
        place = f"nn_reference/{Path(frame.filename).name}, line {frame.lineno}"
        raise ChainruleError(f"{place}: {type(error).__name__}: {error}") from error


def _compare(
    name: str,
    dtype: str,
    steps: int,
    seed: int | None,
    batch_size: int | None,
    dataset: str,
    root: Path | None,
) -> tuple[Report, dict[str, str]]:
    import torch

    plan = recipes.load(name)
    seed = plan.seed if seed is None else seed
    plan = replace(plan, batch_size=batch_size or plan.batch_size)
    data = datasets.load(dataset, root)
    if data.train_images[0].size != np.prod(plan.input_shape):
        raise ChainruleError(
            f"{plan.source} expects images of {plan.input_shape}, "
            f"{data.title} has {data.train_images.shape[1:]}"
        )
    count = len(data.train_labels)
    if plan.batch_size > count:
        raise ChainruleError(f"--batch-size is {plan.batch_size}, {data.title} has {count} training images")
    batches = list(_batches(plan, data, seed, steps + 1))
    reference = plan.build(nn_reference, generator=np.random.default_rng([seed, 0]))
    for i, module in enumerate(reference.modules()):
        if isinstance(module, nn_reference.Dropout):
            module.generator = np.random.default_rng([seed, 7, i])
    autograd = plan.build(torch.nn)
    losses = plan.build_loss(nn_reference), plan.build_loss(torch.nn)
    optimizers = (
        lambda parameters: plan.build_optimizer(nn_reference.optim, parameters),
        lambda parameters: plan.build_optimizer(torch.optim, parameters),
    )
    trained = None
    if steps:
        trained = compare_training(
            reference, losses[0], autograd, losses[1], optimizers, batches[:-1], dtype=dtype
        )
        reference = trained.reference
    images, labels = batches[-1]
    report = compare_networks(
        reference,
        losses[0],
        autograd,
        losses[1],
        images,
        labels,
        dtype=dtype,
        intermediates=True,
        truth=True,
        optimizers=optimizers,
    )
    if trained is not None:
        report.rows += trained.rows
        report.problems += trained.problems
        report.remarks |= trained.remarks
    report.title = f"{plan.name}: {report.title}" + (f", after {steps} steps of training" if steps else "")
    report.repeat = (
        f"chainrule compare {name} --dtype {dtype} --steps {steps} --seed {seed} "
        f"--batch-size {plan.batch_size} --dataset {dataset}"
    )
    return report, {
        "Data": f"{data.title}, training images; {data.why or data.folder}",
        "Recipe": f"{plan.name}: {plan.summary}",
        "Batch": f"{plan.batch_size} images, seed {seed}, train mode, loss {_loss(report)}",
        "Engines": f"reference (by hand, NumPy {np.__version__}) and autograd (PyTorch {torch.__version__})",
    }


def _batches(plan: Any, data: datasets.Dataset, seed: int, count: int) -> Any:
    """Give so many batches in the order of training: normalised images, and labels."""
    epoch = 1
    while count > 0:
        for batch in training.batches(len(data.train_labels), plan.batch_size, seed, epoch):
            if count > 0 and len(batch) == plan.batch_size:
                images = (data.train_images[batch] / 255 - plan.mean) / plan.std
                yield images.reshape(-1, *plan.input_shape), data.train_labels[batch].astype(np.int64)
                count -= 1
        epoch += 1


def _loss(report: Report) -> str:
    return next((f"{row.reference_value:.4g}" for row in report.rows if row.name == "loss"), "?")
