"""Data: files and named sets into a task's batches."""

from orchard.data.contracts import AugmentSettings, DataSettings, ImageData, ImageSplit, Preprocess
from orchard.data.loader import Loader
from orchard.data.preprocess import default_preprocess
from orchard.data.sources import open_data

__all__ = [
    "AugmentSettings",
    "DataSettings",
    "ImageData",
    "ImageSplit",
    "Loader",
    "Preprocess",
    "default_preprocess",
    "open_data",
]
