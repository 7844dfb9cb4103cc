"""Environments in place of a data set."""

from orchard.data.kinds import Kind

KIND = Kind(
    name="environments",
    schemes=("gym", "python"),
    open="orchard.data.environments:open_environment",
    check="orchard.data.checked:check_environment",
)
