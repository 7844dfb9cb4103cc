"""Structured pruning: whole channels are left out, and the network really becomes smaller."""

from orchard.compression.record import Method

METHOD = Method(
    name="prune",
    summary="channels that matter least are left out, so that the network is smaller and faster (arXiv:1608.08710)",
    training={"epochs": 10},
    learning_rate=0.5,
)
