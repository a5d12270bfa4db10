"""Models and images: one record per model, the embedded default, pictures in and out."""

from trompe.zoo.load import choose_device, load_model
from trompe.zoo.records import ModelRecord, find_record, model_names

__all__ = ["ModelRecord", "choose_device", "find_record", "load_model", "model_names"]
