"""Board games in place of a data set."""

from orchard.data.kinds import Kind

KIND = Kind(
    name="games",
    schemes=("game",),
    open="orchard.data.games:open_game",
    check="orchard.data.checked:check_game",
)
