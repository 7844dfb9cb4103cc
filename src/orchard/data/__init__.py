"""Data: files and named sets into a task's batches."""

from orchard.data.augment import mix
from orchard.data.contracts import AugmentSettings, DataSettings, ImageData, ImageSplit, Preprocess
from orchard.data.loader import Loader
from orchard.data.preprocess import default_preprocess
from orchard.data.sources import canonical_name, open_data

__all__ = [
    "AugmentSettings",
    "DataSettings",
    "ImageData",
    "ImageSplit",
    "Loader",
    "Preprocess",
    "canonical_name",
    "default_preprocess",
    "mix",
    "open_data",
]
