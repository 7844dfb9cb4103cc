"""Pictures in pairs, A and B: side by side in one file, or in two folders under the same names."""

from orchard.data.kinds import Kind

KIND = Kind(
    name="picture-pairs",
    open="orchard.data.two_sides.sources:open_pairs",
    recognise="orchard.data.two_sides.check:are_pairs",
    check="orchard.data.two_sides.check:check_pairs",
)
