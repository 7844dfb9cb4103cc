"""Speed of text-to-image models beside their peers: as sequence models, which they are."""

from orchard.tasks.text_generation.peers import bench as bench
