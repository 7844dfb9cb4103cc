"""int8 weights and activations (Jacob et al. 2018, arXiv:1712.05877): rounded after training, or learned so."""

from orchard.compression.record import Method

METHOD = Method(
    name="quantize",
    summary="int8 weights and activations, calibrated on training images or learned (arXiv:1712.05877)",
    training={"epochs": 3},
    learning_rate=0.1,
)
