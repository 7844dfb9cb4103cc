"""Images with or without classes."""

from orchard.data.kinds import Kind

KIND = Kind(
    name="images",
    named=("digits", "mnist", "fashion-mnist", "cifar10", "cifar100"),
    open="orchard.data.sources:open_data",
    objects="orchard.data.picture_objects:take_images",
    check="orchard.data.check:check",
)
