"""`python -m training train | evaluate | export`: from data files to a served bundle."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from pathlib import Path

from model.config import ConfigError, ModelConfig, paper_config, small_config
from training.config import TrainConfig
from training.data import DataError, Dataset, download_fashion_mnist, load_fashion_mnist

PRESETS = {
    "small": small_config(),
    "paper-fashion-mnist": paper_config(channels=1, size=32, num_prototypes=30),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status (1 for a fault that the message explains)."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from model.bundle import BundleError
    from training.evaluate import EvaluationError
    from training.export import ExportError
    from training.trainer import CheckpointError

    faults = (ConfigError, DataError, CheckpointError, EvaluationError, ExportError, BundleError)
    try:
        options.command(options)
    except faults as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _train(options: argparse.Namespace) -> None:
    from training.trainer import Trainer

    overrides = {
        item.name: getattr(options, item.name)
        for item in dataclasses.fields(TrainConfig)
        if getattr(options, item.name, None) is not None
    }
    config = TrainConfig(model=PRESETS[options.preset], **overrides)
    dataset = _load(options, "train", config.model)
    trainer = Trainer(config, dataset, options.out, _device(options.device))
    if options.resume:
        trainer.load()
    elif (options.out / "checkpoint.pt").exists():
        raise ConfigError(f"{options.out} already holds a run: add --resume or name another --out")
    elif options.init_from:
        trainer.start_from(options.init_from)
    trainer.run()


def _evaluate(options: argparse.Namespace) -> None:
    from training.evaluate import evaluate, write_evaluation
    from training.trainer import load_averaged_model

    patronus, _ = load_averaged_model(options.run)
    train = _load(options, "train", patronus.config)
    test = _load(options, "test", patronus.config)
    metrics = evaluate(patronus.to(_device(options.device)), train, test, num_samples=options.num_samples)
    write_evaluation(options.run, metrics)


def _export(options: argparse.Namespace) -> None:
    from training.export import export_bundle
    from training.trainer import load_averaged_model

    patronus, config = load_averaged_model(options.run)
    train = _load(options, "train", patronus.config)
    test = _load(options, "test", patronus.config)
    export_bundle(patronus, config, train, test, run=options.run, out=options.out, name=options.name)


def _load(options: argparse.Namespace, split: str, config: ModelConfig) -> Dataset:
    if options.download:
        download_fashion_mnist(options.data)
    return load_fashion_mnist(options.data, split, config.image)


def _device(name: str) -> str:
    import torch

    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    data = argparse.ArgumentParser(add_help=False)
    data.add_argument(
        "--data", type=Path, required=True, help="directory with the four Fashion-MNIST idx .gz files"
    )
    data.add_argument(
        "--download", action="store_true", help="fetch missing data files first, checksums verified"
    )
    data.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")

    train = commands.add_parser("train", parents=[data], help="train encoder and denoiser")
    train.set_defaults(command=_train)
    train.add_argument("--out", type=Path, required=True, help="run directory")
    train.add_argument("--preset", choices=sorted(PRESETS), default="small")
    train.add_argument("--resume", action="store_true", help="continue the run in --out")
    train.add_argument("--init-from", type=Path, help="begin at the averaged weights of this other run")
    for item in dataclasses.fields(TrainConfig):
        if item.name not in ("model", "dataset", "horizontal_flip"):
            kind = {"int": int, "float": float}.get(str(item.type), str)
            flag = "--" + item.name.replace("_", "-")
            train.add_argument(flag, type=kind, default=None, help=f"default: {item.default}")
    train.add_argument(
        "--horizontal-flip", action=argparse.BooleanOptionalAction, default=None, help="default: off"
    )

    evaluate = commands.add_parser("evaluate", parents=[data], help="measure a run on the test split")
    evaluate.set_defaults(command=_evaluate)
    evaluate.add_argument("--run", type=Path, required=True, help="run directory")
    evaluate.add_argument("--num-samples", type=int, default=1000, help="for sample quality")

    export = commands.add_parser("export", parents=[data], help="write a run as a bundle")
    export.set_defaults(command=_export)
    export.add_argument("--run", type=Path, required=True, help="run directory")
    export.add_argument("--out", type=Path, required=True, help="bundle directory")
    export.add_argument("--name", required=True, help="name of the model in the manifest")
    return parser


if __name__ == "__main__":
    sys.exit(main())
