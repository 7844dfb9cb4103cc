"""Images with captions."""

from orchard.data.kinds import Kind

KIND = Kind(
    name="captions",
    named=("digits", "fashion-mnist"),
    open="orchard.data.captions:open_captions",
    check="orchard.data.check_text:check_captions",
)
