"""Models and images: one record per model, pictures in and out."""

from trompe.zoo.load import choose_device, load_model
from trompe.zoo.records import ModelRecord, find_record, model_names
from trompe.zoo.spec import ModelSpec

__all__ = [
    "ModelRecord",
    "ModelSpec",
    "choose_device",
    "find_record",
    "load_model",
    "model_names",
]
