"""Speed of Mask R-CNN beside torchvision's: a detector's, with masks drawn for the answers on both sides."""

from orchard.tasks.object_detection.peers import bench

__all__ = ["bench"]
