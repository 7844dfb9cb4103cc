"""Speed beside transformers: that of the same encoder as a classifier of texts."""

from orchard.tasks.text_classification.peers import bench as bench
