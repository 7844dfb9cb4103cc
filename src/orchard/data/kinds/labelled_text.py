"""Texts with labels: classes, several classes or numbers, of one text or of two."""

from orchard.data.kinds import Kind

KIND = Kind(
    name="labelled-text",
    named=(
        "trec", "trec-fine", "sst2", "sst5", "glue-sst2", "mr", "subj", "cr", "mpqa", "ag-news", "snli", "sick",
        "chnsenticorp", "waimai", "thucnews", "lcqmc",
    ),
    open="orchard.data.labelled_text.sources:open_labelled_texts",
    recognise="orchard.data.labelled_text.sources:recognise",
    objects="orchard.data.labelled_text.objects:take_labelled_texts",
    check="orchard.data.labelled_text.check:check_labelled_texts",
)  # fmt: skip
