"""Text in pairs: how it is found, what is refused, and the batches that are made of it."""

import gzip
import json

import numpy as np
import pytest
import torch

from orchard.data.kinds import kind_named
from orchard.data.pairs import PairLoader, open_pairs
from orchard.data.pairs.loader import ROLES, PairEncoder
from orchard.data.settings import TextPairSource
from orchard.data.tokenizers import Characters
from orchard.data.train_tokenizers import train_bpe
from orchard.errors import OrchardError, UsageError

GERMAN = [f"Satz {'sehr ' * (n % 5)}lang {n}" for n in range(40)]
ENGLISH = [f"sentence {'very ' * (n % 5)}long {n}" for n in range(40)]


def settings(**given):
    return TextPairSource(source="", **given)


def write(path, lines, ending="\n"):
    data = "".join(line + ending for line in lines).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def side_by_side(folder, stem="train", lines=(GERMAN, ENGLISH), endings=("de", "en")):
    for side, ending in zip(lines, endings, strict=True):
        write(folder / f"{stem}.{ending}", side)
    return folder


def test_files_side_by_side(tmp_path):
    side_by_side(tmp_path)
    side_by_side(tmp_path, "valid", (GERMAN[:3], ENGLISH[:3]))
    side_by_side(tmp_path, "test", (GERMAN[3:5], ENGLISH[3:5]), ("de.gz", "en.gz"))
    (tmp_path / "README.md").write_text("read me")
    data = open_pairs(str(tmp_path), settings())
    assert (data.name, data.format, data.languages) == ("text-pairs", "parallel files", ("de", "en"))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 40, "validation": 3, "test": 2}
    assert data.splits["train"][7] == (GERMAN[7], ENGLISH[7])
    assert data.splits["test"][1] == (GERMAN[4], ENGLISH[4])
    assert data.splits["validation"].key(2) == f"{tmp_path / 'valid.de'}, line 3"
    turned = open_pairs(str(tmp_path), settings(source_language="en"))
    assert turned.languages == ("en", "de") and turned.splits["train"][7] == (ENGLISH[7], GERMAN[7])
    assert turned.fingerprint != data.fingerprint == open_pairs(str(tmp_path), settings()).fingerprint


def test_line_ends_and_marks_of_other_systems(tmp_path):
    write(tmp_path / "a.de", ["\ufeffeins", "zwei\u2028drei"], "\r\n")
    write(tmp_path / "a.en", ["one", "two three"])
    data = open_pairs(str(tmp_path), settings(validation_fraction=0.5, test_fraction=0))
    found = {data.splits[split][0] for split in ("train", "validation")}
    assert found == {("eins", "one"), ("zwei\u2028drei", "two three")}


def test_what_is_not_given_is_held_out(tmp_path):
    data = open_pairs(str(side_by_side(tmp_path, "corpus")), settings(validation_fraction=0.2, test_fraction=0.1))
    parts = {name: {split[n] for n in range(len(split))} for name, split in data.splits.items()}
    assert sum(map(len, parts.values())) == 40 and 1 <= len(parts["test"]) < len(parts["train"])
    assert set().union(*parts.values()) == set(zip(GERMAN, ENGLISH, strict=True))
    table = write(tmp_path / "pairs.tsv", [f"{a}\t{b}" for a, b in zip(GERMAN[::-1], ENGLISH[::-1], strict=True)])
    same = open_pairs(str(table), settings(validation_fraction=0.2, test_fraction=0.1))
    assert {name: {split[n] for n in range(len(split))} for name, split in same.splits.items()} == parts
    table.unlink()
    side_by_side(tmp_path, "corpus.test")
    side_by_side(tmp_path, "corpus.train")
    (tmp_path / "corpus.de").unlink()
    given = open_pairs(str(tmp_path), settings())
    counts = {name: len(split) for name, split in given.splits.items()}
    assert counts.pop("test") == 40 and sum(counts.values()) == 40 and counts["validation"] >= 1


@pytest.mark.parametrize("kind", ["files", "table"])
def test_lines_that_are_added_move_no_other(tmp_path, kind):
    def parts(pairs):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        if kind == "files":
            side_by_side(folder, lines=tuple(zip(*pairs, strict=True)))
        else:
            write(folder / "pairs.tsv", [f"{a}\t{b}" for a, b in pairs])
        splits = open_pairs(str(folder), settings(validation_fraction=0.2, test_fraction=0.2)).splits
        return {split[n]: name for name, split in splits.items() for n in range(len(split))}

    pairs = list(zip(GERMAN, ENGLISH, strict=True))
    before = parts(pairs)
    after = parts([("neu", "new"), *pairs[3:], *pairs[:2], pairs[7], ("alt", "old")])  # added, moved, removed, twice
    assert set(before.values()) == {"train", "validation", "test"}
    assert all(after[pair] == before[pair] for pair in before if pair != pairs[2])


def test_the_first_pair_is_kept_however_short(tmp_path):
    rest = [f"a{n}\tb{n}" for n in range(20)]
    for first, taken in (("cat\tkat", False), ("hi\thallo", False), ("source\ttarget", True), ("src\tTGT", True)):
        data = open_pairs(str(write(tmp_path / "t.tsv", ["", first, *rest])), settings())
        texts = {split[n] for split in data.splits.values() for n in range(len(split))}
        assert (tuple(first.split("\t")) not in texts) == taken and not data.problems
    data = open_pairs(str(write(tmp_path / "t.tsv", ["no\tnl", *rest])), settings())
    assert "line 1" in data.problems[0].key and "names of the columns, no and nl, not" in data.problems[0].what


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl", "a.tsv.gz"])
def test_tables(tmp_path, name):
    rows = list(zip(GERMAN, ENGLISH, strict=True))
    lines = {
        "tsv": ["\t".join((*row, "extra")) for row in rows],
        "csv": ["de,en", *(f'"{source}, ja","{target}"' for source, target in rows)],
        "jsonl": [json.dumps({"id": 3, "translation": {"de": source, "en": target}}) for source, target in rows],
    }[name.split(".")[1]]
    data = open_pairs(str(write(tmp_path / name, [*lines, ""])), settings())
    assert data.format == "table" and sum(len(split) for split in data.splits.values()) == 40
    assert data.languages == (("source", "target") if "tsv" in name else ("de", "en"))
    source, target = data.splits["train"][0]
    number = int(target.split()[-1])
    assert source == GERMAN[number] + (", ja" if name.endswith("csv") else "") and target == ENGLISH[number]
    if name == "a.csv":
        turned = open_pairs(str(tmp_path / name), settings(source_language="en"))
        assert turned.languages == ("en", "de") and turned.splits["train"][0] == (target, source)


def test_a_folder_of_tables(tmp_path):
    for split, part in (("train", slice(0, 30)), ("dev", slice(30, 40))):
        write(tmp_path / f"{split}.tsv", [f"{a}\t{b}" for a, b in zip(GERMAN[part], ENGLISH[part], strict=True)])
    data = open_pairs(str(tmp_path), settings())
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 30, "validation": 10}


def test_multi30k(tmp_path):
    for stem in ("train", "val", "test_2016_flickr", "test_2017_flickr"):
        for language, lines in (("de", GERMAN), ("en", ENGLISH), ("fr", ENGLISH)):
            write(tmp_path / f"{stem}.{language}.gz", lines)
    data = open_pairs(f"multi30k:{tmp_path}", settings())
    assert (data.name, data.languages, data.format) == ("multi30k", ("de", "en"), "named set")
    assert set(data.splits) == {"train", "validation", "test", "test_2017_flickr"}
    french = open_pairs("multi30k", settings(root=str(tmp_path), source_language="fr"))
    assert french.languages == ("fr", "en")
    (tmp_path / "val.en.gz").unlink()
    with pytest.raises(OrchardError, match=r"val\.en is missing"):
        open_pairs(f"multi30k:{tmp_path}", settings())
    with pytest.raises(UsageError, match="needs a folder"):
        open_pairs("multi30k", settings())
    assert kind_named("text-pairs").named == ("multi30k",)


def test_bad_pairs_are_named_or_skipped(tmp_path):
    write(tmp_path / "train.de", [*GERMAN, "", ""])
    write(tmp_path / "train.en", [*ENGLISH, "alone", ""])
    with pytest.raises(OrchardError, match=r"train\.de, line 41: it is empty \(1 lines"):
        open_pairs(str(tmp_path), settings())
    data = open_pairs(str(tmp_path), settings(bad_records="skip", test_fraction=0))
    assert sum(map(len, data.splits.values())) == 40 and len(data.problems) == 1
    table = write(tmp_path / "t.tsv", ["a\tb", "only one"])
    with pytest.raises(OrchardError, match=r"line 2: it has 1 columns, where there should be 2"):
        open_pairs(str(table), settings())
    broken = write(tmp_path / "t.csv", ['"a","b"', '"c\n', '",d'])
    with pytest.raises(OrchardError, match="no line of a CSV by itself"):
        open_pairs(str(broken), settings())
    lines = write(tmp_path / "t.jsonl", ['{"de": "a", "en": "b"}', '{"de": "a"}'])
    with pytest.raises(OrchardError, match="line 2: it has no text under 'de' or 'en'"):
        open_pairs(str(lines), settings())


def test_what_is_no_pairs_is_refused(tmp_path):
    def refused(error, words, **given):
        with pytest.raises(error, match=words):
            open_pairs(str(tmp_path), settings(**given))

    refused(UsageError, "has no pairs; expected files such as train.de")
    side_by_side(tmp_path, lines=(GERMAN, ENGLISH[:-1]))
    refused(OrchardError, "has 40 lines, .* 39; line by line")
    side_by_side(tmp_path)
    refused(UsageError, "no training file in 'fr'; it has de, en", source_language="fr")
    refused(UsageError, "one language to read and another to write", source_language="de", target_language="de")
    write(tmp_path / "train.fr", ENGLISH)
    refused(UsageError, "has de, en, fr; name two")
    assert open_pairs(str(tmp_path), settings(source_language="fr", target_language="en")).languages == ("fr", "en")
    side_by_side(tmp_path, "test.b")
    side_by_side(tmp_path, "test.a")
    refused(UsageError, "several files of .* are test", source_language="fr")
    for side in ("de", "en"):
        (tmp_path / f"test.a.{side}").unlink()
    (tmp_path / "train.de").write_bytes(b"good\nb\xe4d\n")
    with pytest.raises(OrchardError, match=r"train\.de, line 2 is not UTF-8"):
        open_pairs(str(tmp_path), settings(source_language="de", target_language="en"))
    with pytest.raises(UsageError, match="there is no file or folder"):
        open_pairs("nowhere", settings())


# Batches


@pytest.fixture
def pairs(tmp_path):
    side_by_side(tmp_path, "valid", (GERMAN[:3], ENGLISH[:3]))
    return open_pairs(str(side_by_side(tmp_path)), settings()).splits["train"]


def encoder(length=64):
    return PairEncoder(train_bpe(GERMAN + ENGLISH, 300, ROLES), length)


def loader(pairs, **options):
    return PairLoader(pairs, encoder(), **{"batch_size": 4, "seed": 1, "training": True} | options)


def test_a_batch_says_what_its_pairs_say(pairs):
    found, tokenizer = loader(pairs), encoder().tokenizer
    seen = []
    for batch in found.batches(0):
        for row, index in enumerate(batch.indices.tolist()):
            source, target = pairs[index]
            assert tokenizer.decode(batch.source.values[row].tolist()) == source
            ids = batch.targets[row][batch.weights[row]].tolist()
            assert tokenizer.decode(ids) == target and ids[-1] == tokenizer.specials["end"]
            assert batch.inputs[row, 0] == tokenizer.specials["begin"]
            assert set(batch.targets[row][~batch.weights[row]].tolist()) <= {tokenizer.specials["pad"]}
        seen += batch.indices.tolist()
    assert len(seen) == len(set(seen)) == 40


def test_pairs_of_like_lengths_come_together(pairs):
    batches = list(loader(pairs).batches(3))
    padding = 1 - float(np.mean([batch.target.mask.float().mean() for batch in batches]))
    lengths = [len(encoder().target(pairs[n][1])) for n in range(40)]
    assert padding < 0.12 and max(lengths) > 1.5 * min(lengths)
    means = [batch.target.mask.float().sum(1).mean() for batch in batches]
    assert means != sorted(means)  # the batches themselves come in any order


def test_a_batch_is_a_function_of_its_number(pairs):
    batches = list(loader(pairs).batches(2))
    again = loader(pairs).batch(2, 5)
    assert torch.equal(again.indices, batches[5].indices) and torch.equal(again.source.values, batches[5].source.values)
    assert not torch.equal(loader(pairs).batch(3, 5).indices, again.indices)
    shared = [loader(pairs, rank=rank, world=2).batch(2, 5) for rank in range(2)]
    assert torch.equal(torch.cat([one.indices for one in shared]), again.indices)
    workers = list(loader(pairs, workers=2).batches(2))
    assert all(torch.equal(a.indices, b.indices) for a, b in zip(workers, batches, strict=True))


def test_evaluation_takes_every_pair_once_in_order(pairs):
    found = [batch.indices for batch in loader(pairs, training=False, batch_size=3).batches(0)]
    assert torch.cat(found).tolist() == list(range(40)) and len(found[-1]) == 1


def test_long_texts_are_cut_and_do_not_end():
    short = encoder(6)
    words = "sehr " * 30
    source, target = short.source(words), short.target(words)
    assert len(source) == 6 and source[-1] == short.end
    assert len(target) == 7 and target[0] == short.begin and short.end not in target
    with pytest.raises(OrchardError, match="no token for 'pad'"):
        PairEncoder(Characters("abc", "unknown"), 6)
