"""``chainrule train``: a recipe, a data set, one engine or both, and the files of the run."""

import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chainrule.commands.options import (
    Device,
    EngineChoice,
    Precision,
    check_least,
    check_precision,
    engine_names,
)
from chainrule.errors import ChainruleError, Stopped, WrongUsage

if TYPE_CHECKING:
    from chainrule.datasets import Dataset
    from chainrule.distributed import World
    from chainrule.engines import TorchOptions
    from chainrule.recipe import Recipe
    from chainrule.runs import RunFolder
    from chainrule.saved import SavedRun
    from chainrule.screen import Screen
    from chainrule.training import Course


# What may be given together with --resume: the rest is what the run began with.
_WITH_RESUME = {"resume", "root", "checkpoint_every", "tensorboard", "as_json", "rank_timeout"}


def train(
    context: typer.Context,
    recipe: Annotated[
        str, typer.Argument(help="A recipe's name, or a recipe file of your own.")
    ] = "simplenet",
    engine: Annotated[
        EngineChoice | None,
        typer.Option(help="What to train with.", show_default="both, or numpy where PyTorch is missing"),
    ] = None,
    dataset: Annotated[
        str, typer.Option(help="auto (MNIST if it is here, else digits), a name, or a folder of IDX files.")
    ] = "auto",
    device: Annotated[Device, typer.Option(help="Where PyTorch computes.")] = Device.cpu,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the training images.", show_default="the recipe's")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Images per step; with torchrun, of each rank.", show_default="the recipe's"),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change the recipe: training.optimizer.lr=0.01. Repeatable."
        ),
    ] = None,
    validation: Annotated[
        int | None,
        typer.Option(
            help="Training images kept back to find the best epoch.", show_default="the recipe's: none"
        ),
    ] = None,
    early_stopping: Annotated[
        int | None,
        typer.Option(
            metavar="PATIENCE", help="Stop after this many epochs without a better one.", show_default="never"
        ),
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads of either engine on the CPU.")] = 1,
    workers: Annotated[
        int, typer.Option(help="Processes that share each step of the NumPy engine (a quiet machine: 2).")
    ] = 1,
    precision: Annotated[
        Precision,
        typer.Option(help="Of PyTorch's products: tf32 (on CUDA) and bf16 keep 11 and 8 bits of a factor."),
    ] = Precision.float32,
    compile: Annotated[
        bool, typer.Option("--compile", help="Put PyTorch's step through torch.compile.")
    ] = False,
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="Keep PyTorch's images in memory pixel by pixel.")
    ] = False,
    cuda_graphs: Annotated[
        bool, typer.Option("--cuda-graphs", help="Record a step on CUDA once, and replay it.")
    ] = False,
    rank_timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="With torchrun: how long a rank waits for another.")
    ] = 120.0,
    seed: Annotated[
        int | None,
        typer.Option(help="Decides weights and order, to the bit.", show_default="the recipe's"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run.", show_default="runs/RECIPE-DATASET")
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Log for TensorBoard too: tensorboard --logdir runs.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that --out holds.")] = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN", help="Continue the run in this folder, to the same bits.", show_default="a new run"
        ),
    ] = None,
    checkpoint_every: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="Save what --resume needs this often within an epoch."),
    ] = 30.0,
    root: Annotated[
        Path | None, typer.Option(help="Folder of the data sets.", show_default="$CHAINRULE_DATA or data")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the summary, as JSON.")] = False,
) -> None:
    """Train a network by hand (NumPy), with PyTorch, or both side by side, and compare them.

    Example: chainrule train ann --engine both --epochs 3 --out runs/first

    In several processes: torchrun --nproc-per-node 2 -m chainrule train ann --engine torch
    """
    check_least(("--epochs", epochs, 1), ("--batch-size", batch_size, 1), ("--seed", seed, 0))
    check_least(("--threads", threads, 1), ("--workers", workers, 1), ("--validation", validation, 0))
    check_least(("--early-stopping", early_stopping, 1))
    if not checkpoint_every >= 0:
        raise WrongUsage(f"--checkpoint-every must be at least 0 seconds, found {checkpoint_every:g}")
    if not 1 <= rank_timeout <= 1e6:
        raise WrongUsage(f"--rank-timeout must be from 1 to 1,000,000 seconds, found {rank_timeout:g}")
    root = root and root.expanduser()

    from chainrule import distributed

    world = distributed.from_environment()
    if not world.first:
        with world.one_voice():
            _follow(world, root, rank_timeout)
        return

    from chainrule.engines import TorchOptions
    from chainrule.runs import RunFolder
    from chainrule.saved import open_run
    from chainrule.screen import Screen
    from chainrule.tensorboard import check_installed

    if tensorboard:
        check_installed()
    screen = Screen(quiet=as_json)
    if resume is not None:
        _refuse_beside_resume(context)
        saved = open_run(resume)
        folder = RunFolder(saved.path, resume=True)
        job = _job_of(saved, root)
        if world.size != (ranks := job.config.get("ranks", 1)):
            _warn(f"{saved.path} was begun with {ranks} ranks, now {world.size}: the bits may differ")
    else:
        options = {"epochs": epochs, "batch_size": batch_size, "seed": seed}
        options |= {"validation": validation, "early_stopping": early_stopping}
        given = {f"training.{key}": value for key, value in options.items() if value is not None}
        how = TorchOptions(str(precision), compile, channels_last, cuda_graphs)
        job = _new_job(
            recipe,
            settings or [],
            given,
            engine,
            dataset,
            root,
            device,
            threads,
            workers,
            how,
            world.size,
        )
        path = out.expanduser() if out else Path("runs") / f"{job.plan.name}-{job.data.name}"
        folder = RunFolder(path, overwrite=overwrite, numbered=out is None)
    _check_ranks(job, world)
    with world.one_voice(), folder:
        world.how_to_resume = folder.how_to_resume
        try:
            agree = _run(
                job, folder, screen, checkpoint_every, tensorboard, resume is not None, world, rank_timeout
            )
        except KeyboardInterrupt:
            kept = folder.how_to_resume if folder.worth_keeping else "nothing was written"
            raise Stopped(f"stopped: {kept}") from None
    if not agree:
        raise ChainruleError("the two engines disagree: see the table above")


@dataclass(frozen=True)
class _Job:
    """What is to be trained with what; ``config`` is the run's config.json."""

    plan: "Recipe"
    data: "Dataset"
    engines: list[str]
    device: str
    threads: int
    workers: int
    config: dict[str, Any]
    options: "TorchOptions"


def _new_job(
    recipe: str,
    settings: list[str],
    given: dict[str, Any],
    engine: EngineChoice | None,
    dataset: str,
    root: Path | None,
    device: Device,
    threads: int,
    workers: int,
    options: "TorchOptions",
    ranks: int,
) -> _Job:
    names = engine_names(engine, device)
    _check_options(options, names, device, ranks)

    from chainrule import datasets, records
    from chainrule import recipe as recipes

    plan = recipes.load(recipe, recipes.changes(settings) | given)
    plan = replace(plan, batch_size=plan.batch_size * ranks)  # what one step learns from
    data = datasets.load(dataset, root)
    _check_fit(plan, data)
    config = records.config(plan, names, data, device, threads, workers)
    if "torch" in names:
        config |= {"torch": asdict(options), "ranks": ranks}
    return _Job(plan, data, names, device, threads, workers, config, options)


def _job_of(run: "SavedRun", root: Path | None) -> _Job:
    """Return what a run that is there was begun with. The data set must be the one of then, to the byte."""
    from chainrule import records
    from chainrule.saved import is_data_of

    try:
        device, threads = run.config["device"], run.config["threads"]
        workers = run.config.get("workers", 1)
        names = engine_names(EngineChoice(run.config["engine"]), Device(device))
        then, options = run.config["versions"], _options_in(run.config)
        _ = run.config["dataset"], run.config["dataset_folder"]
    except (KeyError, TypeError, ValueError) as error:
        raise ChainruleError(f"{run.path / 'config.json'}: not what chainrule wrote: {error}") from None
    data = _data_of(run.config, root)
    if not is_data_of(run, data):
        raise ChainruleError(
            f"{data.folder}: not the files that {run.path} was begun with, by their SHA-256: "
            "--root FOLDER says where those are"
        )
    now = records.versions(names)
    changed = [f"{name} {then.get(name)}, now {now[name]}" for name in now if then.get(name) != now[name]]
    if changed:
        what = "; ".join(changed)
        _warn(f"{run.path} was begun with {what}: the bits may differ from those of an unbroken run")
    return _Job(run.recipe, data, names, device, threads, workers, run.config, options)


def _data_of(config: dict[str, Any], root: Path | None) -> "Dataset":
    """Return the data set that config.json names."""
    from chainrule import datasets

    dataset, folder = config["dataset"], config["dataset_folder"]
    by_name = dataset in datasets.known() and (root is not None or dataset == "digits")
    return datasets.load(dataset, root) if by_name else datasets.load(str(root or folder))


def _options_in(config: dict[str, Any]) -> "TorchOptions":
    from chainrule.engines import TorchOptions

    return TorchOptions(**config.get("torch", {}))


def _run(
    job: _Job,
    folder: "RunFolder",
    screen: "Screen",
    checkpoint_every: float,
    tensorboard: bool,
    resume: bool,
    world: "World",
    rank_timeout: float,
) -> bool:
    """Train, or train on, and write the run's files; returns whether the engines agree."""
    from chainrule import checkpoints, engines, records, training
    from chainrule.runs import CHECKPOINTS
    from chainrule.tensorboard import Log

    plan, data, names = job.plan, job.data, job.engines
    state, problems = checkpoints.newest(folder.path, job.config) if resume else (None, [])
    for problem in problems:
        _warn(f"{folder.path}: {problem}; going on from {CHECKPOINTS[1]}")
    screen.data(data)
    for name in names:
        steps = training.steps_per_epoch(len(data.train_labels), plan)
        engines.rehearse(plan, name, job.device, steps)
    if not resume:
        folder.write_json("config.json", job.config)
    if world.size > 1:
        world.join(rank_timeout)
        world.broadcast({"plan": plan, "config": job.config, "state": state, "how": world.how_to_resume})
    built = [
        engines.build(
            plan,
            name,
            seed=plan.seed,
            device=job.device,
            workers=job.workers,
            options=job.options,
            parallel=world.size > 1,
        )
        for name in names
    ]

    with engines.threads(job.threads):
        courses = [training.begin(engine, plan, data) for engine in built]
        metrics = checkpoints.restore(state, courses) if state else []
        if resume:
            screen.line(f"Resume   {folder.path}: {_where(courses) if state else 'from the beginning'}")
        if world.size > 1:
            share = plan.batch_size / world.size
            screen.line(f"Ranks    {world.size} processes, each with {share:g} images of every batch")
        screen.plan(plan, names, job.device)
        keeper = checkpoints.Keeper(folder, courses, metrics, job.config, checkpoint_every)
        log = Log(folder.path / "tensorboard" if tensorboard else None)
        log.begin(metrics)

        def after_epoch(course: "Course", rows: list[dict[str, Any]], best: bool) -> None:
            # The first engine's model is the run's; the other one's lies beside it.
            name = course.engine.name
            suffix = "" if name == names[0] else f"-{name}"
            model = course.engine.state_dict()
            folder.write_model(f"model{suffix}.safetensors", model)
            if best:
                folder.write_model(f"best{suffix}.safetensors", model)
            metrics.extend(rows)
            folder.write_metrics(metrics)
            log.add(rows)
            screen.epoch(rows, best)
            keeper.save()  # last: whatever of this epoch's is not written yet is then written again

        def between_batches() -> None:
            keeper.between_batches()
            if folder.worth_keeping:
                world.note_saved()

        with screen.progress(), keeper.finishing_on_ctrl_c(), log:
            results = training.train(
                courses,
                plan,
                report=screen.report,
                after_epoch=after_epoch,
                between_batches=between_batches,
            )
    if world.size > 1:
        built[0].part()  # type: ignore[attr-defined]
    comparison = records.compare(plan, data, built[0].state_dict()) if len(built) > 1 else None
    records.draw(folder, metrics, data, results[0], plan, built[0].state_dict())
    # A run that has a summary is a whole one: all else is there, and there is nothing left to resume.
    summary = records.summary(plan, data, results, comparison)
    folder.write_json("summary.json", summary)
    folder.remove_checkpoints()
    if screen.quiet:
        print(json.dumps(summary, indent=2))
    screen.results(results, comparison, folder)
    screen.mistakes(summary["most_confused"], folder)
    return comparison is None or all(row.agrees for row in comparison)


def _follow(world: "World", root: Path | None, rank_timeout: float) -> None:
    """Train in step with rank 0, as another rank: with what it says, silently, writing nothing."""
    import signal

    from chainrule import checkpoints, engines, training
    from chainrule.saved import SavedRun, is_data_of

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # rank 0 saves first, and ends the training for all
    world.join(rank_timeout)
    given = world.broadcast()
    plan, config, state = given["plan"], given["config"], given["state"]
    world.how_to_resume = given["how"]
    world.check_device(config["device"])
    data = _data_of(config, root)
    if not is_data_of(SavedRun(Path(), plan, config), data):
        raise ChainruleError(
            f"{data.folder}, on rank {world.rank}: not the files that rank 0 has, by SHA-256"
        )
    with engines.threads(config["threads"]):
        engine = engines.build(
            plan,
            "torch",
            seed=plan.seed,
            device=config["device"],
            options=_options_in(config),
            parallel=True,
        )
        course = training.begin(engine, plan, data)
        if state:
            checkpoints.restore(state, [course])
        training.train([course], plan, report=lambda _: None, after_epoch=lambda *_: None)


def _where(courses: list["Course"]) -> str:
    """Say where courses stand."""
    places = []
    for course in courses:
        epoch, batches = course.trained.epochs, course.running.batches
        within = f"in epoch {epoch + 1} after {batches} batches"
        places.append(f"{course.engine.name} {within if batches else f'after epoch {epoch}'}")
    return ", ".join(places)


def _warn(message: str) -> None:
    print(f"chainrule: {message}", file=sys.stderr)


def _refuse_beside_resume(context: typer.Context) -> None:
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        given = source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT")
        if given and parameter.name not in _WITH_RESUME:
            found = parameter.opts[0]
            raise WrongUsage(f"--resume continues the run as it was begun: it takes no {found}")


def _check_options(options: "TorchOptions", names: list[str], device: Device, ranks: int) -> None:
    for given, option in (
        (options.precision != "float32", f"--precision {options.precision}"),
        (options.compile, "--compile"),
        (options.channels_last, "--channels-last"),
        (options.cuda_graphs, "--cuda-graphs"),
    ):
        if given and "torch" not in names:
            raise WrongUsage(f"{option} is for PyTorch: use --engine torch or both")
    check_precision(Precision(options.precision), device)
    if options.cuda_graphs and device is not Device.cuda:
        raise WrongUsage("--cuda-graphs is for CUDA: use --device cuda")
    if options.cuda_graphs and ranks > 1:
        raise WrongUsage("--cuda-graphs is for one process: a recorded step does not wait for other ranks")


def _check_ranks(job: _Job, world: "World") -> None:
    if world.size > 1 and job.engines != ["torch"]:
        raise WrongUsage(
            f"torchrun has started {world.size} processes: only --engine torch trains in several"
        )


def _check_fit(plan: "Recipe", data: "Dataset") -> None:
    count = len(data.train_labels)
    if plan.validation >= count:
        raise ChainruleError(
            f"a validation split of {plan.validation:,} images leaves none to learn from: "
            f"{data.title} has {count:,} training images"
        )
    if (count - plan.validation) % plan.batch_size == min(1, plan.batch_size - 1) and any(
        layer.type == "BatchNorm1d" for layer in plan.layers
    ):
        raise ChainruleError(
            f"batches of {plan.batch_size} leave a last one of a single image, which has no variance for "
            "BatchNorm1d: give another --batch-size"
        )
    if plan.input_shape not in (data.train_images.shape[1:], (1, *data.train_images.shape[1:])):
        raise ChainruleError(
            f"{plan.source} expects images of {plan.input_shape}, "
            f"{data.title} has {data.train_images.shape[1:]}"
        )
    if plan.shapes[-1] != (len(data.class_names),):
        raise ChainruleError(
            f"{plan.source} ends with {plan.shapes[-1]} outputs, "
            f"{data.title} has {len(data.class_names)} classes"
        )
