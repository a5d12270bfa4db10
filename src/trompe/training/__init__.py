"""Fine-tuning a classifier on an objective of one's own: batches, steps, checkpoints."""

from trompe.training.batch import Batch, Objective
from trompe.training.fit import Epoch, Fitted, Schedule, check_trainable, fit
from trompe.training.labelled import LabelledImages, read_labelled

__all__ = [
    "Batch",
    "Epoch",
    "Fitted",
    "LabelledImages",
    "Objective",
    "Schedule",
    "check_trainable",
    "fit",
    "read_labelled",
]
