"""Pictures alone, of which what a model is given is made."""

from orchard.data.kinds import Kind

KIND = Kind(
    name="pictures",
    open="orchard.data.two_sides.alone:open_alone",
    check="orchard.data.two_sides.check:check_alone",
)
