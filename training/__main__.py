"""`python -m training COMMAND`: from data files to a served bundle."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from model.bundle_address import BundleAddress, bundle_address
from model.config import ConfigError, ImageConfig, PriorConfig, config_from_dict, config_to_dict
from training.config import LossConfig, OptimizerConfig, TrainConfig, with_overrides
from training.coupled_pairs import TOP, coupled_pairs
from training.data import DATASETS, DataError, Dataset, Split, load_dataset
from training.presets import PRESETS

if TYPE_CHECKING:
    from model.bundle import Bundle

SECTIONS: dict[str, type[Any]] = {"": TrainConfig, "optimizer.": OptimizerConfig, "loss.": LossConfig}
"""Parts of a TrainConfig whose fields are flags of their own; every other field is reached by --set."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status (1 for a fault that the message explains)."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("training").setLevel(logging.INFO)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns that torchvision is not there
    from model.bundle import BundleError
    from model.official import OfficialCheckpointError
    from training.evaluate import EvaluationError
    from training.export import ExportError
    from training.prior import PriorError
    from training.remeasure import RemeasureError
    from training.trainer import CheckpointError, TrainingDivergedError

    faults = (
        ConfigError, DataError, OfficialCheckpointError, CheckpointError, PriorError, TrainingDivergedError,
        EvaluationError,
        ExportError, RemeasureError, BundleError,
    )  # fmt: skip
    try:
        options.command(options)
    except faults as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _train(options: argparse.Namespace) -> None:
    config = _resolved(options)
    if options.dry_run:
        print(json.dumps(config_to_dict(config, complete=True), indent=2))
        return
    if options.out is None:
        raise ConfigError("--out is needed: it names the run directory")
    from training.devices import make_accelerator
    from training.trainer import CHECKPOINT, Trainer

    accelerator = make_accelerator(options.device)
    with accelerator.main_process_first():  # one process reads and resizes, the others find it done
        dataset = _load(options, config.dataset, "train", config.model.image)
    trainer = Trainer(config, dataset, options.out, accelerator)
    if options.resume:
        trainer.load()
    elif (options.out / CHECKPOINT).exists():
        raise ConfigError(f"{options.out} already holds a run: add --resume or name another --out")
    elif options.init_from:
        trainer.start_from(options.init_from)
    trainer.run()


def _resolved(options: argparse.Namespace) -> TrainConfig:
    """The preset, or the run to resume, with the options' changes."""
    config = PRESETS[options.preset]
    if options.resume and options.out:
        from training.trainer import read_checkpoint

        config = config_from_dict(TrainConfig, read_checkpoint(options.out)["config"])
    overrides: dict[str, Any] = {}
    for section, item in _flags():
        value = getattr(options, item.name, None)
        if value is not None:
            overrides[section + item.name] = value
    for assignment in options.set:
        name, separator, value = assignment.partition("=")
        if not separator:
            raise ConfigError(f"--set takes name=value, not {assignment!r}")
        overrides[name] = value
    config = with_overrides(config, overrides)
    if options.decouple is None:
        return config
    pairs = coupled_pairs(options.decouple, config.model.num_prototypes, top=options.top)
    return with_overrides(config, {"loss.decoupled_pairs": pairs})


def _sweep(options: argparse.Namespace) -> None:
    from training.devices import make_accelerator
    from training.sweep import Axis, configure, plot, points, run_name, sweep, table_of

    base = _resolved(options)
    axes = [Axis.parse(text) for text in options.vary]
    configs = {run_name(point): configure(base, point) for point in points(axes)}
    if options.dry_run:
        resolved = {name: config_to_dict(config, complete=True) for name, config in configs.items()}
        print(json.dumps(resolved, indent=2))
        return
    accelerator = make_accelerator(options.device)
    if accelerator.num_processes > 1:
        raise ConfigError("a sweep runs in one process; start several sweeps into one --out instead")

    def load(config: TrainConfig) -> tuple[Dataset, Dataset]:
        image = config.model.image
        train = _load(options, config.dataset, "train", image)
        return train, _load(options, config.dataset, "test", image)

    records = sweep(base, axes, load, options.out, accelerator)
    table = table_of(records, axes)
    (options.out / "sweep.md").write_text(table)
    (options.out / "sweep.json").write_text(json.dumps(records, indent=1) + "\n")
    plot(records, axes, options.out / "sweep.png")
    print(table)


def _train_prior(options: argparse.Namespace) -> None:
    from training.exemplars import encode_all
    from training.prior import save_prior, train_prior
    from training.trainer import load_averaged_model

    patronus, config = load_averaged_model(options.run)
    prior_config = PriorConfig(
        num_prototypes=patronus.config.num_prototypes, width=options.width, num_layers=options.num_layers
    )
    device = _device(options.device)
    train = _load(options, config.dataset, "train", patronus.config.image)
    activations, _ = encode_all(patronus.to(device), train.pixels)
    prior = train_prior(
        activations, prior_config, num_steps=options.num_steps, seed=options.seed, device=device
    )
    save_prior(prior, options.run, patronus.cpu().encoder)


def _evaluate(options: argparse.Namespace) -> None:
    from training.evaluate import evaluate, weights_digest, write_evaluation
    from training.exemplars import encode_all
    from training.prior import has_prior, load_prior, prior_sampler
    from training.trainer import load_averaged_model

    patronus, config = load_averaged_model(options.run)
    patronus = patronus.to(_device(options.device))
    train = _load(options, config.dataset, "train", patronus.config.image)
    test = _load(options, config.dataset, "test", patronus.config.image)
    sample_s, prior_sha256 = None, None
    if has_prior(options.run):
        prior = load_prior(options.run, patronus.encoder)
        sample_s = prior_sampler(prior, encode_all(patronus, train.pixels)[0])
        prior_sha256 = weights_digest(prior)
    metrics = evaluate(
        patronus,
        train,
        test,
        num_samples=options.num_samples or min(1000, len(train), len(test)),
        dataset_name=config.dataset,
        steps=options.steps,
        sample_s=sample_s,
        prior_sha256=prior_sha256,
        inception_weights=options.inception_weights,
        lpips_weights=options.lpips_weights,
    )
    write_evaluation(options.run, metrics)


def _export(options: argparse.Namespace) -> None:
    from training.export import export_bundle
    from training.trainer import load_averaged_model

    measuring = _measuring(options)
    patronus, config = load_averaged_model(options.run)
    train = _load(options, config.dataset, "train", patronus.config.image)
    test = _load(options, config.dataset, "test", patronus.config.image)
    bundle = export_bundle(
        patronus, config, train, test, run=options.run, out=options.out, name=options.name, **measuring
    )
    _plot_emergence(options, bundle, options.run / "emergence.png")


def _remeasure(options: argparse.Namespace) -> None:
    from model.hub import open_bundle
    from training.remeasure import remeasure

    measuring = _measuring(options)
    out = options.out or options.bundle
    if not isinstance(out, Path):
        raise ConfigError(f"--out is needed: {out} is no directory that could be replaced")
    bundle = open_bundle(options.bundle)
    name = options.dataset or bundle.provenance.get("dataset")
    if not isinstance(name, str):
        raise ConfigError("--dataset is needed: the bundle does not say which one the model was trained on")
    train = _load(options, name, "train", bundle.config.image)
    test = _load(options, name, "test", bundle.config.image)
    bundle = remeasure(bundle.directory, out, train, test, dataset_name=name, **measuring)
    _plot_emergence(options, bundle, None)


def _import_official(options: argparse.Namespace) -> None:
    from model.official import read_official
    from training.import_official import import_official

    measuring = _measuring(options)
    dataset = None
    if options.dataset:
        image = read_official(options.directory).patronus.config.image
        dataset = (
            _load(options, options.dataset, "train", image),
            _load(options, options.dataset, "test", image),
        )
    elif options.data:
        raise ConfigError("--data needs --dataset: it says what the files are")
    elif options.prior_steps:
        raise ConfigError("--prior-steps needs --dataset and --data: a prior is trained on images")
    elif options.emergence_plot:
        raise ConfigError("--emergence-plot needs --dataset and --data: without, emergence is not measured")
    name = options.name or options.directory.resolve().name
    bundle = import_official(
        options.directory,
        options.out,
        name=name,
        dataset=dataset,
        prior_steps=options.prior_steps,
        **measuring,
    )
    _plot_emergence(options, bundle, None)


def _measuring(options: argparse.Namespace) -> dict[str, Any]:
    """What export, remeasure and import-official pass on to the measurement."""
    samples = options.emergence_samples
    if samples < 0:
        raise ConfigError(f"--emergence-samples must be >= 0, not {samples}")
    if options.emergence_plot and not samples:
        raise ConfigError("--emergence-plot needs --emergence-samples above 0")
    if options.effect_samples < 0 or options.effect_samples == 1:
        raise ConfigError(f"--effect-samples must be 0 or >= 2, not {options.effect_samples}")
    return {
        "emergence_samples": samples,
        "effect_samples": options.effect_samples,
        "device": _device(options.device),
    }


def _plot_emergence(options: argparse.Namespace, bundle: Bundle, default: Path | None) -> None:
    path = options.emergence_plot or default
    if path is not None and options.emergence_samples:
        from training.emergence_plot import plot_emergence

        plot_emergence(bundle, path)


def _load(options: argparse.Namespace, name: str, split: Split, image: ImageConfig) -> Dataset:
    return load_dataset(name, options.data, split, image, cache=options.cache, download=options.download)


def _device(name: str) -> str:
    from training.devices import resolve_device

    return resolve_device(name)


def _flags() -> list[tuple[str, dataclasses.Field[Any]]]:
    """(section, field) of every training option that has a flag of its own."""
    return [
        (section, item)
        for section, cls in SECTIONS.items()
        for item in dataclasses.fields(cls)
        if not dataclasses.is_dataclass(hint := get_type_hints(cls)[item.name])
        and get_origin(hint) is not tuple
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    data = argparse.ArgumentParser(add_help=False)
    data.add_argument("--data", type=Path, help="directory with the data set's official files")
    data.add_argument(
        "--download", action="store_true", help="fetch missing Fashion-MNIST files first, checksums verified"
    )
    data.add_argument("--cache", type=Path, help="where resized pixels are kept (default: the user's cache)")
    data.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")

    measuring = argparse.ArgumentParser(add_help=False)
    measuring.add_argument(
        "--emergence-samples",
        type=int,
        default=256,
        metavar="N",
        help="generate N images, 50 steps each, to see when each prototype emerges; 0: do not (default: 256)",
    )
    measuring.add_argument(
        "--effect-samples",
        type=int,
        default=32,
        metavar="N",
        help="generate N images twice for each prototype, 10 steps each, to see what driving it does to the "
        "others; 0: do not (default: 32)",
    )
    measuring.add_argument("--emergence-plot", type=Path, metavar="PNG", help="draw what was found")

    recipe = argparse.ArgumentParser(add_help=False)
    recipe.add_argument("--preset", choices=sorted(PRESETS), default="small", help="default: small")
    recipe.add_argument("--dry-run", action="store_true", help="print the resolved configuration and stop")
    recipe.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any field by its dotted name, such as model.encoder.num_prototypes=100 (repeatable)",
    )
    recipe.add_argument(
        "--decouple",
        metavar="REPORT|PAIRS",
        help="loss.decoupled_pairs, driving the first prototype of each is to leave the second: such as "
        "3:7,4:9, or the .json file of a POST /diagnose answer",
    )
    recipe.add_argument(
        "--top", type=_positive, default=TOP, metavar="N", help=f"pairs of a report (default: {TOP})"
    )
    for section, item in _flags():
        _add_flag(recipe, section, item)

    train = commands.add_parser(
        "train",
        parents=[data, recipe],
        help="train encoder and denoiser",
        description="Train encoder and denoiser. Processes that torchrun starts share every batch.",
    )
    train.set_defaults(command=_train)
    train.add_argument("--out", type=Path, help="run directory (needed without --dry-run)")
    train.add_argument("--resume", action="store_true", help="continue the run in --out")
    train.add_argument("--init-from", type=Path, help="begin at the averaged weights of this other run")

    sweep = commands.add_parser(
        "sweep",
        parents=[data, recipe],
        help="train and measure every combination of some fields' values",
        description="Train and measure every combination of the values of --vary; finished runs are kept.",
    )
    sweep.set_defaults(command=_sweep, resume=False)
    sweep.add_argument(
        "--out", type=Path, required=True, help="directory of the runs, the table and the plot"
    )
    sweep.add_argument(
        "--vary",
        action="append",
        required=True,
        metavar="NAME=VALUE,VALUE",
        help="m, D, or a field by its dotted name, and its values (repeatable)",
    )

    prior = commands.add_parser(
        "train-prior", parents=[data], help="train the latent prior of a run, from which s is sampled"
    )
    prior.set_defaults(command=_train_prior)
    prior.add_argument("--run", type=Path, required=True, help="run directory; its encoder stays as it is")
    prior.add_argument("--num-steps", type=int, default=10_000, help="default: 10000")
    prior.add_argument("--width", type=int, default=PriorConfig().width)
    prior.add_argument("--num-layers", type=int, default=PriorConfig().num_layers)
    prior.add_argument("--seed", type=int, default=0)

    evaluate = commands.add_parser("evaluate", parents=[data], help="measure a run on the test split")
    evaluate.set_defaults(command=_evaluate)
    evaluate.add_argument("--run", type=Path, required=True, help="run directory")
    evaluate.add_argument(
        "--num-samples", type=int, help="for sample quality (default: 1000, or a smaller split's all)"
    )
    evaluate.add_argument(
        "--steps",
        type=int,
        nargs="+",
        default=[10, 20, 50],
        help="numbers of sampling steps to compare (default: 10 20 50)",
    )
    evaluate.add_argument(
        "--inception-weights",
        type=Path,
        help="TorchScript or .pth file of the standard Inception network, for FID",
    )
    evaluate.add_argument("--lpips-weights", type=Path, help="TorchScript file, for LPIPS")

    export = commands.add_parser(
        "export",
        parents=[data, measuring],
        help="write a run as a bundle",
        description="Write a run as a bundle, and RUN/emergence.png, or what --emergence-plot names.",
    )
    export.set_defaults(command=_export)
    export.add_argument("--run", type=Path, required=True, help="run directory")
    export.add_argument("--out", type=Path, required=True, help="bundle directory")
    export.add_argument("--name", required=True, help="name of the model in the manifest")

    again = commands.add_parser(
        "remeasure",
        parents=[data, measuring],
        help="measure anew what a bundle says of its prototypes",
        description="Measure statistics, patches, attributes, emergence and effects of a bundle anew. "
        "Weights, graphs, names and other metrics stay; the bundle gets a new digest.",
    )
    again.set_defaults(command=_remeasure)
    again.add_argument("bundle", type=_address, help="bundle directory, or hf://ORGANISATION/NAME[@REVISION]")
    again.add_argument("--out", type=Path, help="bundle directory (default: the bundle is replaced)")
    again.add_argument("--dataset", help="default: the one that the model was trained on")

    official = commands.add_parser(
        "import-official", parents=[data, measuring], help="write the authors' checkpoint as a bundle"
    )
    official.set_defaults(command=_import_official)
    official.add_argument("directory", type=Path, help="holds ckpt.tar and config.pickle")
    official.add_argument("--out", type=Path, required=True, help="bundle directory")
    official.add_argument("--name", help="name of the model in the manifest (default: the directory's)")
    official.add_argument(
        "--prior-steps",
        type=int,
        default=0,
        help="with a data set, train a latent prior for so many steps, such as 10000 (default: 0, none)",
    )
    official.add_argument("--dataset", help=f"measure s on it: {', '.join(DATASETS)}")
    return parser


def _address(text: str) -> BundleAddress:
    try:
        return bundle_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {number}")
    return number


def _add_flag(parser: argparse.ArgumentParser, section: str, item: dataclasses.Field[Any]) -> None:
    flag = "--" + item.name.replace("_", "-")
    where = f"{section}{item.name}, default of the preset"
    hint = get_type_hints(SECTIONS[section])[item.name]
    if hint is bool:
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=where)
    elif get_args(hint):
        parser.add_argument(flag, choices=get_args(hint), default=None, help=where)
    else:
        parser.add_argument(flag, type=hint, default=None, help=where)


if __name__ == "__main__":
    sys.exit(main())
