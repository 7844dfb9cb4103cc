"""Deep Compression (Han, Mao and Dally 2015, arXiv:1510.00149): pruning, shared weights, Huffman codes."""

from orchard.compression.record import Method

METHOD = Method(
    name="deep-compression",
    summary="most weights become zero, the others share a few values, Huffman codes store them (arXiv:1510.00149)",
    training={"epochs": 5},
    learning_rate=0.5,
)
