"""What the report of a detector says where objects have masks."""

from orchard.report.run_page import Curve
from orchard.tasks.object_detection.report import Wording

MASKS = Wording(
    shapes="masks",
    ap="mask AP",
    more_tiles={
        "Box AP": ("box_ap", "of the boxes of the same answers"),
        "Box AP50": ("box_ap50", "an overlap of 0.5 is enough"),
    },
    more_curves=(
        Curve("Proposals: masks", "mask_loss", "cross entropy of pixels", falling=True),
        Curve("Box AP", "box_ap", "average precision", percent=True),
        Curve("Box AP50", "box_ap50", "average precision", percent=True),
    ),
)
