"""Images with a mask each: a class for every pixel."""

from orchard.data.kinds import Kind

KIND = Kind(
    name="masks",
    named=("digit-scenes", "camvid"),
    open="orchard.data.masks.sources:open_masks",
    recognise="orchard.data.masks.sources:recognise",
    check="orchard.data.checked:check_masks",
    mosaic="orchard.data.masks.mosaic:draw_mosaic",
)
