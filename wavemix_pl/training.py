"""The verbs fit, validate, test and predict: a LightningCLI with this project's defaults."""

from __future__ import annotations

import logging
import re
import sys
import threading
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichModelSummary, RichProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from torch.multiprocessing.spawn import ProcessExitedException

from wavemix_pl import callbacks, data  # noqa: F401  # imported whole: so their classes are known by short names
from wavemix_pl.allocator import keep_freed_memory
from wavemix_pl.callbacks import (
    EpochLines,
    ExactResume,
    FiniteLoss,
    LastCheckpoint,
    OptimizerEvents,
    Preemption,
    RandomState,
    TestReport,
    TrainingPictures,
)
from wavemix_pl.errors import InputError
from wavemix_pl.metrics_file import MetricsFile
from wavemix_pl.model_arguments import ModelArguments, read_run_checkpoint, with_module_of_weights
from wavemix_pl.models.published_weights import refuse_no_weights
from wavemix_pl.modules import ImageModule
from wavemix_pl.parser import Parser
from wavemix_pl.predictions import predict
from wavemix_pl.refusal import refusal, refuse_resume_without_switch, refuse_told_by_data, refuse_trainer, thread_error
from wavemix_pl.run_directory import RunDirectory, choose_directory, directory_of

_IMAGE_FILES = "wavemix_pl.data.ImageFiles"
_LINKED = ("num_classes", "in_channels")  # from data to model
_WARNINGS_OF_LIGHTNING = (
    "`isinstance.treespec, LeafSpec.`",  # its own use of a deprecated call
)


class _TrainingParser(Parser, LightningArgumentParser):
    """Lightning's parser with this project's errors."""


class TrainingCLI(LightningCLI):
    """One run is one directory: `config.yaml`, `metrics.csv`, TensorBoard's events, `checkpoints/{best,last}.ckpt`."""

    # of the run in progress; the run happens within __init__, so that nothing else could tell
    _directory: RunDirectory | None = None
    _running: Trainer | None = None  # None until the verb begins

    @classmethod
    def run(cls, arguments: list[str]) -> None:
        """Runs a command line; what is wrong with it before the verb begins, whoever finds it, is an InputError."""
        for message in _WARNINGS_OF_LIGHTNING:
            warnings.filterwarnings("ignore", message)
        logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_no_advertisement)
        cls._directory, cls._running = None, None
        keep_freed_memory()
        hook, threading.excepthook = threading.excepthook, thread_error
        try:
            cls(
                ImageModule,
                LightningDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                seed_everything_default=0,
                auto_configure_optimizers=False,  # the module makes them: only so can they be made a second time
                save_config_kwargs={"overwrite": True},
                parser_class=_TrainingParser,
                args=arguments,
            )
        except ProcessExitedException as error:  # one of several, such as by Preemption
            raise SystemExit(error.exit_code) from error
        except Exception as error:
            trained = cls._running is not None and cls._running.global_step > 0
            where = cls._directory.path if cls._directory else Path()
            refused = refusal(error, begun=cls._running is not None, trained=trained, directory=where)
            if refused is None:
                raise
            if cls._directory and not trained:
                cls._directory.discard()
            raise refused from error
        finally:
            threading.excepthook = hook
            if cls._directory and cls._directory.lock:
                cls._directory.lock.release()

    def _run_subcommand(self, subcommand: str) -> None:
        type(self)._running = self.trainer
        super()._run_subcommand(subcommand)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.set_defaults(
            {
                "model": {"class_path": "wavemix_pl.modules.ClassificationModule"},
                "data": {"class_path": "wavemix_pl.data.EmbeddedFashionMNIST"},
            }
        )
        for name in (*_LINKED, "void_index"):
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")
        # Two callbacks: `save_last` of a monitored one writes nothing in epochs without improvement.
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint_best")
        parser.add_lightning_class_args(LastCheckpoint, "checkpoint_last")
        parser.add_lightning_class_args(FiniteLoss, "finite_loss")
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
            parser.set_defaults({"data": {"class_path": _IMAGE_FILES}})
            parser.add_argument("images", nargs="*", help="Image files, or folders of them.")
            parser.add_argument("--top", type=int, default=3, help="How many classes to name for each image.")
            parser.add_argument("--output", type=str, help="Folder for masks (default: masks/ in the run) or overlays.")
            parser.add_argument("--overlay", action="store_true", help="Also write images with their classes on them.")
            parser.add_argument("--json", action="store_true", help="Print JSON instead of a table.")
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        assert isinstance(args, list)
        self._arguments = args
        self.config = parser.parse_args(with_module_of_weights(args))

    def _parse_ckpt_path(self) -> None:
        """Decides on the run's directory and reads the checkpoint, before anything is made.

        Lightning's own way puts the checkpoint's model in place of the one that was asked for, and says nothing.
        """
        verb = self.config.subcommand
        config = self.config[verb]
        trainer, weights = config.trainer, config.model.init_args.get("weights")
        refuse_told_by_data(self._arguments, (*_LINKED, "void_index"))
        refuse_trainer(trainer)
        defaults = self._subcommand_parsers[verb].get_defaults().model
        arguments = ModelArguments(config.model, defaults, self._arguments)
        self._of_weights = arguments.take_from_known_weights()
        if verb == "fit":
            self._choose_directory(config, config.model.init_args.variant)
        elif config.ckpt_path in ("best", "last") and trainer.default_root_dir:
            root = Path(trainer.default_root_dir).expanduser()
            config.ckpt_path = str(root / "checkpoints" / f"{config.ckpt_path}.ckpt")
        elif config.ckpt_path is None and weights and verb == "test":
            self._choose_directory(config, f"weights-{Path(weights).stem}")  # another name than that of runs to go on
        if verb != "fit" and (config.ckpt_path in ("best", "last", "hpc") or not (config.ckpt_path or weights)):
            instead = "" if verb == "predict" else ", or --model.weights=FILE_OR_NAME"
            raise InputError(f"{verb} needs a trained model: pass --ckpt_path=RUN/checkpoints/best.ckpt{instead}")
        self._checkpoint = {} if config.ckpt_path in (None, "hpc") else read_run_checkpoint(config.ckpt_path)
        if not trainer.default_root_dir:
            trainer.default_root_dir = str(directory_of(Path(config.ckpt_path)) if config.ckpt_path else Path())
        arguments.take_from_run(self._checkpoint, config.ckpt_path, {*_LINKED})
        if verb == "fit":
            refuse_resume_without_switch(self._checkpoint, config)

    def _choose_directory(self, config: Namespace, name: str) -> None:
        name = re.sub(r"[^A-Za-z0-9]+", "-", f"{config.data.class_path.rpartition('.')[2]}-{name}").strip("-")
        chosen = choose_directory(config.trainer.default_root_dir, name, config.ckpt_path)
        type(self)._directory = chosen
        config.trainer.default_root_dir, config.ckpt_path = str(chosen.path), chosen.checkpoint

    def before_instantiate_classes(self) -> None:
        config = self.config[self.config.subcommand]
        if self.config.subcommand != "fit":
            self.save_config_callback = None  # the run's config.yaml says how it was trained
            # These callbacks are training's: a test does not need them.
            warnings.filterwarnings("ignore", "Be aware that when using `ckpt_path`")
            warnings.filterwarnings("ignore", "You're using the WeightAveraging callback")
        elif config.ckpt_path and Path(config.trainer.default_root_dir, "config.yaml").exists():
            self.save_config_kwargs["config_filename"] = "config.resumed.yaml"
        if self.config.subcommand == "predict" and (config.images or config.data.class_path == _IMAGE_FILES):
            self._predict_files(config)
        self.trainer_defaults = {"callbacks": self._callbacks(config)}

    def _predict_files(self, config: Namespace) -> None:
        """Files that are named are what is predicted, whatever data a config speaks of."""
        preprocessing = self._checkpoint.get("preprocessing") or self._of_weights
        if not config.ckpt_path and preprocessing is None:
            refuse_no_weights(str(config.model.init_args.weights))
            raise InputError(
                "weights alone do not say how image files are prepared, and what the classes are: pass --ckpt_path of "
                "a run, or --data"
            )
        if preprocessing is None:
            raise InputError(f"{config.ckpt_path} does not say how images were prepared: it is no checkpoint of 'fit'")
        if config.data.class_path != _IMAGE_FILES:
            config.data = Namespace(class_path=_IMAGE_FILES, init_args=Namespace(batch_size=64, num_workers=0))
        paths = [*(config.data.init_args.get("paths") or []), *config.images]
        config.data.init_args["paths"], config.data.init_args["preprocessing"] = paths, preprocessing

    def after_instantiate_classes(self) -> None:
        task, masks = getattr(self.model, "task", None), getattr(self.datamodule, "colors", None) is not None
        if self.config.subcommand != "predict" and task is not None and masks != (task == "segmentation"):
            kind, has = type(self.datamodule).__name__, "masks, not classes" if masks else "classes, not masks"
            raise InputError(f"{kind} has {has}: choose other --data, or another --model than for {task}")
        saved = self._checkpoint.get("hyper_parameters", {})
        for name in _LINKED:
            here = getattr(self.datamodule, name)
            if saved.get(name, here) != here:
                kind = type(self.datamodule).__name__
                raise InputError(
                    f"the checkpoint was trained with {name} {saved[name]}, {kind} has {here}: choose other data"
                )

    def _callbacks(self, config: Namespace) -> list[Callback]:
        chosen: list[Callback] = [RandomState(), ExactResume(), TestReport()]
        if self.config.subcommand == "fit":
            chosen += [Preemption(), OptimizerEvents()]
            if find_spec("matplotlib") and "TrainingPictures" not in str(config.trainer.callbacks):
                chosen.append(TrainingPictures())
        if config.trainer.enable_progress_bar is not False:
            bar = sys.stdout.isatty() and self.config.subcommand != "predict"
            chosen.append(RichProgressBar() if bar else EpochLines())
        if config.trainer.enable_model_summary is not False and self.config.subcommand == "fit":
            chosen.append(RichModelSummary(max_depth=2))
        return chosen

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self.config[self.config.subcommand].trainer
        for kind in ("best", "last"):  # not in the config, which another run may repeat elsewhere
            checkpoints = self._get(self.config_init, f"checkpoint_{kind}")
            checkpoints.dirpath = checkpoints.dirpath or str(Path(config.default_root_dir, "checkpoints"))
        kwargs["enable_model_summary"] = False  # none of Lightning's own beside ours
        if config.logger in (None, True):
            directory = config.default_root_dir
            step = self._checkpoint.get("global_step")  # hides what was logged after it, and is logged again
            kwargs["logger"] = self.config.subcommand == "fit" and [
                TensorBoardLogger(directory, name="", version="", default_hp_metric=False, purge_step=step),
                MetricsFile(directory),
            ]
        return super().instantiate_trainer(**kwargs)

    def predict(self, model: LightningModule, datamodule: LightningDataModule, **kwargs: Any) -> None:
        """Prints the most probable classes of each image, or writes its mask."""
        predict(self.trainer, model, datamodule, self.config.predict, **kwargs)


def _no_advertisement(record: logging.LogRecord) -> bool:
    return "Tip:" not in record.getMessage()
