"""Pictures of two sides, A and B, in two folders, of which none belongs to another."""

from orchard.data.kinds import Kind

KIND = Kind(
    name="unpaired-pictures",
    open="orchard.data.two_sides.sources:open_unpaired",
    recognise="orchard.data.two_sides.check:are_unpaired",
    check="orchard.data.two_sides.check:check_unpaired",
)
