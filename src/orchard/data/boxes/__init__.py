"""Pictures with boxes around their objects."""

from orchard.data.boxes.contracts import DetectionData, DetectionRecord, DetectionSplit, Objects
from orchard.data.boxes.sources import open_boxes

__all__ = ["DetectionData", "DetectionRecord", "DetectionSplit", "Objects", "open_boxes"]
