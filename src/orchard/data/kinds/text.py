"""Text."""

from orchard.data.kinds import Kind

KIND = Kind(
    name="text",
    named=("ptb", "shakespeare", "wikitext-2"),
    open="orchard.data.text:open_text",
    objects="orchard.data.text_objects:take_texts",
    check="orchard.data.check_text:check_text",
)
