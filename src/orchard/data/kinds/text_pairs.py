"""Text in pairs, such as sentences and their translations."""

from orchard.data.kinds import Kind

KIND = Kind(
    name="text-pairs",
    named=("multi30k",),
    open="orchard.data.pairs:open_pairs",
    recognise="orchard.data.pairs.sources:recognise",
    check="orchard.data.checked:check_pairs",
)
