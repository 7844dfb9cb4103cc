"""Sets of labelled texts that are known by name, in files that a person has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orchard.errors import UsageError


@dataclass(frozen=True)
class Named:
    """The files of a set, by split (the first that is there), and the names of their columns."""

    files: dict[str, tuple[str, ...]]
    columns: tuple[str, ...] = ("label", "text")
    test_columns: tuple[str, ...] = ()  # where the test's file has others


def _splits(name: str, *splits: str) -> dict[str, tuple[str, ...]]:
    words = {"train": "train", "validation": "dev", "test": "test"}
    return {split: (f"{name}.{words[split]}.tsv",) for split in splits}


ALL = ("train", "validation", "test")
NAMED = {
    "trec": Named(_splits("trec", "train", "test")),
    "trec-fine": Named(_splits("trec_fine", "train", "test")),
    "sst2": Named(_splits("sst2", *ALL)),
    "sst5": Named(_splits("sst1", *ALL)),
    "glue-sst2": Named(_splits("glue_sst2", "train", "validation")),
    "mr": Named({"": ("mr.all.tsv",)}),
    "subj": Named({"": ("subj.all.tsv",)}),
    "cr": Named({"": ("cr.all.tsv",)}),
    "mpqa": Named({"": ("mpqa.all.tsv",)}),
    "ag-news": Named({"train": ("ag_news.train.tsv", "ag_news.held10k.tsv"), "test": ("ag_news.test.tsv",)},
                     test_columns=("label", "headline", "text")),
    "snli": Named(
        {"train": ("snli.train.tsv", "snli.dev.tsv"), "test": ("snli.test.tsv",)},
        ("label", "premise", "hypothesis", "explanation"),
    ),
    "sick": Named({"train": ("sick.train.tsv",), "validation": ("sick.trial.tsv",), "test": ("sick.test.tsv",)}, ()),
    "chnsenticorp": Named({"": ("chnsenticorp_hotel.tsv",)}),
    "waimai": Named({"": ("waimai_10k.tsv",)}),
    "thucnews": Named({"train": ("thucnews_titles.train.tsv", "thucnews_titles.dev.tsv"),
                       "test": ("thucnews_titles.test.tsv",)}),
    "lcqmc": Named({"": ("lcqmc.dev.tsv",)}, ("sentence1", "sentence2", "label")),
}  # fmt: skip


def files_of(name: str, root: Path) -> dict[str, Path]:
    """The file of each split; UsageError where one is not there."""
    found = {}
    for split, names in NAMED[name].files.items():
        there = [path for one in names for path in (root / one, root / f"{one}.gz") if path.is_file()]
        if not there:
            raise UsageError(f"{root} has no {' or '.join(names)} (or .gz), a file of {name}")
        found[split] = there[0]
    return found
