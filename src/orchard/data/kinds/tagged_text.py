"""Text whose words have tags: entities, parts of speech."""

from orchard.data.kinds import Kind

KIND = Kind(
    name="tagged-text",
    named=("wnut17", "resume-ner"),
    open="orchard.data.tagged_text:open_tagged",
    recognise="orchard.data.tagged_text.sources:recognise",
    objects="orchard.data.tagged_text.objects:take_tagged",
    check="orchard.data.tagged_text.checked:check_tagged",
)
