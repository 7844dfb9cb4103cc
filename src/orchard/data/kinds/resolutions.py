"""Images at high resolution with the same at low resolution, or with references, beside them. Without those, they are
images like others."""

from orchard.data.kinds import Kind

KIND = Kind(
    name="resolutions",
    open="orchard.data.resolutions:open_resolutions",
    recognise="orchard.data.references:recognise",
    check="orchard.data.references:check",
)
