"""Callbacks; none of them imports the LightningModules."""

from wavemix_pl.callbacks.epoch_lines import EpochLines
from wavemix_pl.callbacks.exact_resume import ExactResume
from wavemix_pl.callbacks.finite_loss import FiniteLoss
from wavemix_pl.callbacks.focal_loss import FocalLossCallback
from wavemix_pl.callbacks.gradual_unfreezing import GradualUnfreezing
from wavemix_pl.callbacks.last_checkpoint import LastCheckpoint
from wavemix_pl.callbacks.masks import MaskPicture, MaskWriter
from wavemix_pl.callbacks.optimizer_events import OptimizerEvents
from wavemix_pl.callbacks.optimizer_switch import OptimizerSwitch
from wavemix_pl.callbacks.prediction_picture import PredictionPicture
from wavemix_pl.callbacks.preemption import Preemption
from wavemix_pl.callbacks.random_state import RandomState
from wavemix_pl.callbacks.resources import Resources
from wavemix_pl.callbacks.test_report import TestReport
from wavemix_pl.callbacks.training_pictures import TrainingPictures

__all__ = [
    "EpochLines",
    "ExactResume",
    "FiniteLoss",
    "FocalLossCallback",
    "GradualUnfreezing",
    "LastCheckpoint",
    "MaskPicture",
    "MaskWriter",
    "OptimizerEvents",
    "OptimizerSwitch",
    "PredictionPicture",
    "Preemption",
    "RandomState",
    "Resources",
    "TestReport",
    "TrainingPictures",
]
