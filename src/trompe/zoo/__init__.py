"""Models and images: one record per model, pictures in and out."""

from trompe.zoo.load import choose_device, load_model
from trompe.zoo.record import ModelRecord
from trompe.zoo.records import find_record, is_function, model_names, models
from trompe.zoo.spec import ModelSpec

__all__ = [
    "ModelRecord",
    "ModelSpec",
    "choose_device",
    "find_record",
    "is_function",
    "load_model",
    "model_names",
    "models",
]
