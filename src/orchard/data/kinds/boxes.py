"""Images with boxes around their objects."""

from orchard.data.kinds import Kind

KIND = Kind(
    name="boxes",
    named=("digit-scenes",),
    open="orchard.data.boxes.sources:open_boxes",
    recognise="orchard.data.boxes.sources:recognise",
    check="orchard.data.boxes.check:check_boxes",
    mosaic="orchard.data.boxes.mosaic:draw_mosaic",
)
