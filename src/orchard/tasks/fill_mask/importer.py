"""Official text encoders, whatever head they have, with their tokenizer."""

from __future__ import annotations

from orchard.tasks.importing import Checkpoint, Imported
from orchard.tasks.text_generation.importer import complete as complete_with_tokenizer


def complete(wanted: Checkpoint) -> Imported:
    """Write the model, and the tokenizer where its files are there."""
    return complete_with_tokenizer(wanted)
