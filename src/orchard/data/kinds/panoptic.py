"""Images whose pixels all belong to segments: things and stuff."""

from orchard.data.kinds import Kind

KIND = Kind(
    name="panoptic",
    named=("digit-scenes",),
    open="orchard.data.panoptic.sources:open_panoptic",
    recognise="orchard.data.panoptic.sources:recognise",
    check="orchard.data.panoptic.check:check_panoptic",
    mosaic="orchard.data.panoptic.mosaic:draw_mosaic",
)
