"""The verbs fit, validate, test and predict: a LightningCLI with this project's defaults."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichModelSummary, RichProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from wavemix_pl import callbacks, data  # noqa: F401  # so that their classes are known by short names
from wavemix_pl.callbacks import EpochLines, MaskWriter, RandomState, TestReport
from wavemix_pl.errors import InputError
from wavemix_pl.models.weights import load_checkpoint
from wavemix_pl.modules import ImageModule
from wavemix_pl.parser import Parser
from wavemix_pl.predictions import print_masks, print_predictions, rank_classes
from wavemix_pl.run_directory import choose_directory, directory_of

_RUN_VARIABLE = (
    "WAVEMIX_PL_RUN"  # tells the processes that Lightning starts for DDP which directory the first one chose
)
_LINKED = ("num_classes", "in_channels")  # from data to model
_WARNINGS_OF_LIGHTNING = (
    "Experiment logs directory .* exists",  # an earlier metrics.csv has been put out of its way
    "`isinstance.treespec, LeafSpec.`",  # its own use of a deprecated call
)


class TrainingCLI(LightningCLI):
    """One run is one directory: `config.yaml`, `metrics.csv`, TensorBoard's events, `checkpoints/{best,last}.ckpt`."""

    @classmethod
    def run(cls, arguments: list[str]) -> None:
        for message in _WARNINGS_OF_LIGHTNING:
            warnings.filterwarnings("ignore", message)
        logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_no_advertisement)
        try:
            cls(
                ImageModule,
                LightningDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                seed_everything_default=0,
                auto_configure_optimizers=False,  # the module makes them: only so can they be made a second time
                save_config_kwargs={"overwrite": True},
                parser_class=Parser,
                args=arguments,
            )
        except MisconfigurationException as error:  # Lightning's name for arguments that do not go together
            raise InputError(" ".join(str(error).split())) from error

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.set_defaults(
            {
                "model": {"class_path": "wavemix_pl.modules.ClassificationModule"},
                "data": {"class_path": "wavemix_pl.data.EmbeddedFashionMNIST"},
            }
        )
        for name in _LINKED:
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")
        # Two callbacks: `save_last` of a monitored one writes nothing in epochs without improvement.
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint_best")
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint_last")
        for kind in ("best", "last"):
            parser.set_defaults(
                {f"checkpoint_{kind}.filename": kind, f"checkpoint_{kind}.enable_version_counter": False}
            )
        parser.set_defaults({"checkpoint_last.save_on_train_epoch_end": True})
        parser.link_arguments("model.monitor", "checkpoint_best.monitor", apply_on="instantiate")
        parser.link_arguments("model.monitor_mode", "checkpoint_best.mode", apply_on="instantiate")

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        parser.set_defaults({"trainer.max_epochs": 300, "trainer.log_every_n_steps": 10})  # 300: Section 4.2
        parser.set_defaults({"weights_only": True})  # a checkpoint may hold values, never code
        if subcommand == "test":
            parser.set_defaults({"verbose": False})  # TestReport says it
        if subcommand == "predict":
            parser.set_defaults({"data": {"class_path": "wavemix_pl.data.ImageFiles"}})
            parser.add_argument("images", nargs="*", help="Image files, or folders of them.")
            parser.add_argument("--top", type=int, default=3, help="How many classes to name for each image.")
            parser.add_argument("--output", type=str, help="Folder for masks; default: masks/ in the run.")
            parser.add_argument("--json", action="store_true", help="Print JSON instead of a table.")
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        assert isinstance(args, list)
        self.config = parser.parse_args(_with_model_of_checkpoint(args))

    def _parse_ckpt_path(self) -> None:
        """Decides on the run's directory and reads the checkpoint, before anything is made.

        Lightning's own way puts the checkpoint's model in place of the one that was asked for, and says nothing.
        """
        verb = self.config.subcommand
        config = self.config[verb]
        trainer = config.trainer
        self._resumed = config.ckpt_path is not None
        if verb == "fit":
            variant = re.sub(r"[^A-Za-z0-9]+", "-", config.model.init_args.variant).strip("-")
            name = f"{config.data.class_path.rpartition('.')[2]}-{variant}"
            trainer.default_root_dir = str(choose_directory(trainer.default_root_dir, name, self._resumed))
        if config.ckpt_path in ("best", "last") and trainer.default_root_dir:
            path = Path(trainer.default_root_dir, "checkpoints", f"{config.ckpt_path}.ckpt")
            config.ckpt_path = None if verb == "fit" and not path.exists() else str(path)  # a run that has not begun
        if verb != "fit" and config.ckpt_path in (None, "best", "last"):
            raise InputError(f"{verb} needs a trained model: pass --ckpt_path=RUN/checkpoints/best.ckpt")
        self._checkpoint = {} if config.ckpt_path in (None, "hpc") else load_checkpoint(config.ckpt_path)
        if verb != "fit" and not trainer.default_root_dir:
            trainer.default_root_dir = str(directory_of(Path(config.ckpt_path)))
        self._take_model_from_checkpoint(config)

    def _take_model_from_checkpoint(self, config: Namespace) -> None:
        """Gives the model the arguments that it was trained with; refuses others that were asked for."""
        saved = dict(self._checkpoint.get("hyper_parameters", {}))
        class_path = saved.pop("_class_path", config.model.class_path)
        if class_path != config.model.class_path:
            raise InputError(f"{config.ckpt_path} holds a {class_path}: pass --model={class_path}")
        defaults = self._subcommand_parsers[self.config.subcommand].get_defaults().model.init_args
        for name in sorted({*saved} & {*defaults.keys()} - {*_LINKED}):
            given = config.model.init_args.get(name)
            if given not in (saved[name], defaults[name]):
                raise InputError(
                    f"{config.ckpt_path} was trained with {name} {saved[name]!r}, not {given!r}: "
                    f"leave --model.{name} out"
                )
            config.model.init_args[name] = saved[name]

    def before_instantiate_classes(self) -> None:
        config = self.config[self.config.subcommand]
        if self.config.subcommand != "fit":
            self.save_config_callback = None  # the run's config.yaml says how it was trained
            # These callbacks are training's: a test does not need them.
            warnings.filterwarnings("ignore", "Be aware that when using `ckpt_path`")
        elif self._resumed and Path(config.trainer.default_root_dir, "config.yaml").exists():
            self.save_config_kwargs["config_filename"] = "config.resumed.yaml"
        if self.config.subcommand == "predict" and config.data.class_path == "wavemix_pl.data.ImageFiles":
            config.data.init_args.preprocessing = self._checkpoint.get("preprocessing")
            config.data.init_args.paths = [*(config.data.init_args.paths or []), *config.images]
        self.trainer_defaults = {"callbacks": self._callbacks(config)}

    def after_instantiate_classes(self) -> None:
        saved = self._checkpoint.get("hyper_parameters", {})
        for name in _LINKED:
            here = getattr(self.datamodule, name)
            if saved.get(name, here) != here:
                kind = type(self.datamodule).__name__
                raise InputError(
                    f"the checkpoint was trained with {name} {saved[name]}, {kind} has {here}: choose other data"
                )

    def _callbacks(self, config: Namespace) -> list[Callback]:
        chosen: list[Callback] = [RandomState(), TestReport()]
        if config.trainer.enable_progress_bar is not False:
            bar = sys.stdout.isatty() and self.config.subcommand != "predict"
            chosen.append(RichProgressBar() if bar else EpochLines())
        if config.trainer.enable_model_summary is not False and self.config.subcommand == "fit":
            chosen.append(RichModelSummary(max_depth=2))
        config.trainer.enable_model_summary = False  # that is: none of Lightning's own beside it
        return chosen

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self.config[self.config.subcommand].trainer
        if config.logger in (None, True):
            directory = config.default_root_dir
            kwargs["logger"] = self.config.subcommand == "fit" and [
                TensorBoardLogger(directory, name="", version="", default_hp_metric=False),
                CSVLogger(directory, name="", version=""),
            ]
        return super().instantiate_trainer(**kwargs)

    # -- predictions ------------------------------------------------------------------------------------------------

    def predict(self, model: LightningModule, datamodule: LightningDataModule, **kwargs: Any) -> None:
        """Prints the most probable classes of each image, or writes its mask."""
        options = self.config.predict
        if getattr(model, "task", None) == "segmentation":
            writer = MaskWriter(options.output or str(Path(options.trainer.default_root_dir, "masks")))
            self.trainer.callbacks.append(writer)  # type: ignore[attr-defined]  # the trainer's list
            self.trainer.predict(model, datamodule, **{**kwargs, "return_predictions": False})
            print_masks(writer.written, as_json=options.json)
            return
        batches = self.trainer.predict(model, datamodule, **{**kwargs, "return_predictions": True})
        probabilities = torch.cat([torch.as_tensor(batch) for batch in batches or []])
        names = datamodule.class_names  # type: ignore[attr-defined]  # our data modules have them
        files = [str(file) for file in getattr(datamodule, "files", range(len(probabilities)))]
        print_predictions(rank_classes(files, probabilities, names, options.top), as_json=options.json)


def _with_model_of_checkpoint(arguments: list[str]) -> list[str]:
    """Puts in front which LightningModule a checkpoint holds; what is said after it has precedence."""
    paths = [value for name, value in zip(arguments, [*arguments[1:], ""], strict=True) if name == "--ckpt_path"]
    paths += [argument.partition("=")[2] for argument in arguments if argument.startswith("--ckpt_path=")]
    if not paths or not Path(paths[-1]).is_file():
        return arguments
    class_path = load_checkpoint(paths[-1]).get("hyper_parameters", {}).get("_class_path")
    return [arguments[0], f"--model={class_path}", *arguments[1:]] if class_path else arguments


def _no_advertisement(record: logging.LogRecord) -> bool:
    return "Tip:" not in record.getMessage()
