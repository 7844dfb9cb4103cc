"""Pictures with captions: TSVs with pictures in base64, folders, and named sets with wordings."""

from orchard.data.captions.contracts import CaptionData, CaptionSettings, CaptionSplit, Columns
from orchard.data.captions.fields import picture_to_base64, write_row
from orchard.data.captions.pairs import PairBatch, PairLoader
from orchard.data.captions.prompts import read_prompts
from orchard.data.captions.sources import open_captions
from orchard.data.captions.templates import prompts

__all__ = [
    "CaptionData",
    "CaptionSettings",
    "CaptionSplit",
    "Columns",
    "PairBatch",
    "PairLoader",
    "open_captions",
    "picture_to_base64",
    "prompts",
    "read_prompts",
    "write_row",
]
