"""Questions about texts."""

from orchard.data.kinds import Kind

KIND = Kind(
    name="questions",
    named=("xquad", "cmrc2018"),
    open="orchard.data.questions:open_questions",
    recognise="orchard.data.questions.sources:recognise",
    objects="orchard.data.questions.sources:take_questions",
    check="orchard.data.questions.checked:check_questions",
)
