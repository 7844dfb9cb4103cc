"""Beam search against OpenNMT-py, transformers and brute force; greedy decoding and sampling."""

import itertools

import pytest
import torch
from test_seq2seq import OPENNMT, grown, marian, opennmt, sentences

from orchard.errors import UsageError
from orchard.inference.beam import (
    Beam,
    at_least,
    beam_search,
    gnmt_coverage,
    gnmt_penalty,
    leader_ended,
    mean_penalty,
    never,
    no_penalty,
    no_repeated,
)
from orchard.inference.sampling import Sampling
from orchard.inference.sequences import write_sequences
from orchard.models import create_model
from orchard.weights.reference import randomise

PENALTIES = {"avg": mean_penalty, "wu": gnmt_penalty}
# When a sentence is done, OpenNMT-py does not renumber what is forbidden to whom, so that later ones get others' bans.
RENUMBERED = {("bahdanau_mlp", "b5_min_block"): {1}, ("luong_general_input_feed", "b5_min_block"): {2}}


def summary_coverage(beta):
    """OpenNMT's other coverage penalty: what was read more than once counts against a hypothesis."""
    return lambda coverage: beta * (coverage.clamp(min=1).sum(-1) - coverage.shape[-1])


def ratio_rule(lengths, ratio):
    """OpenNMT's other rule: the best candidate, over the length that is expected, is worse than one that ended."""

    def stop(beam, progress):
        newest = [h.score for h in progress.ended if len(h.tokens) == progress.length]
        leader = max([*newest, progress.running / beam.penalty(progress.length)])
        best = max((h.score / (len(h.tokens) + 2) for h in progress.ended), default=float("-inf"))
        return len(progress.ended) >= beam.count and leader / (lengths[progress.source] * ratio) <= best

    return stop


def opennmt_beam(options, lengths):
    """OpenNMT counts the first token as one of the target's, in penalties and in what may not be repeated."""
    penalty = PENALTIES[options["length_penalty"]](options["alpha"]) if "length_penalty" in options else no_penalty
    restrictions = [at_least(options.get("min_length", 0), end=3)]
    if options.get("ban_unk"):
        restrictions.append(never([0]))
    if "block_ngram" in options:
        repeated = no_repeated(options["block_ngram"])
        restrictions.append(lambda written, logits: repeated(torch.nn.functional.pad(written, (1, 0), value=2), logits))
    coverage = {"wu": gnmt_coverage, "summary": summary_coverage}.get(options.get("coverage_penalty"))
    return Beam(
        options["beam"],
        options["max_length"],
        options["n_best"],
        penalty=lambda length: penalty(length + 1),
        coverage=coverage(options["beta"]) if coverage else None,
        coverage_ranks=options.get("stepwise", False),
        refill=False,
        restrictions=tuple(restrictions),
        stop=ratio_rule(lengths, options["ratio"]) if "ratio" in options else leader_ended,
    )


@pytest.mark.parametrize("case", OPENNMT)
def test_hypotheses_are_opennmt_s(golden, case):
    model, stored, args = opennmt(golden, case)
    source = stored["in.src"][..., 0]
    for name, options in args["beams"].items():
        beam = opennmt_beam(options, stored["in.src_len"].tolist())
        state = model.start(len(source), beam.longest, source=source)
        found = beam_search(model, state, torch.full((len(source),), 2), end=3, beam=beam)
        predictions, scores = stored[f"out.beam.{name}.predictions"], stored[f"out.beam.{name}.scores"]
        for row in set(range(len(source))) - RENUMBERED.get((case, name), set()):
            expected = [tuple(t for t in line if t != -1) for line in predictions[row].tolist()]
            assert [hypothesis.tokens for hypothesis in found[row]] == expected, (name, row)
            if scores[row].isfinite().all():  # its "wu" coverage penalty is infinite for padded sources
                assert [hypothesis.score for hypothesis in found[row]] == pytest.approx(scores[row].tolist(), abs=1e-4)


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_hypotheses_are_transformers_s(alpha, early_stopping):
    theirs, ours = marian()
    source = sentences()["source"]
    stored = theirs.generate(
        input_ids=source, attention_mask=source != 0, num_beams=4, num_return_sequences=4, max_length=11,
        length_penalty=alpha, early_stopping=early_stopping, do_sample=False, return_dict_in_generate=True,
        output_scores=True,
    )  # fmt: skip

    def stop(beam, progress):
        if len(progress.ended) < 4 or early_stopping is True:
            return len(progress.ended) >= 4
        length = beam.longest if early_stopping == "never" and alpha else progress.length
        return progress.running / beam.penalty(length) <= progress.ended[3].score

    beam = Beam(4, 10, 4, penalty=mean_penalty(alpha), stop=stop)
    found = beam_search(ours, ours.start(3, 10, source=source), torch.zeros(3, dtype=torch.int64), end=1, beam=beam)
    lines = [hypothesis for hypotheses in found for hypothesis in hypotheses]
    assert (
        len({len(line.tokens) for line in lines}) > 1 or alpha == 2.0
    )  # which makes all of them as long as they may be
    for line, sequence, score in zip(lines, stored.sequences.tolist(), stored.sequences_scores, strict=True):
        assert list(line.tokens) == sequence[1 : 1 + len(line.tokens)]
        assert set(sequence[1 + len(line.tokens) :]) <= {0, 1}
        assert line.score == pytest.approx(float(score), abs=1e-4)


@pytest.mark.parametrize("name", ["transformer_nano", "rnnsearch_nano", "luong_nano"])
@pytest.mark.parametrize("penalty", [no_penalty, mean_penalty(1.0), gnmt_penalty(0.6)], ids=["none", "mean", "gnmt"])
def test_a_wide_beam_finds_the_best_of_all_texts(name, penalty):
    model, longest, end = grown(name, vocabulary=4), 4, 1
    source = sentences()["source"] % 4
    by_length = {
        length: [
            text
            for text in itertools.product(range(4), repeat=length)
            if end not in text[:-1] and (length == longest or text[-1] == end)
        ]
        for length in range(1, longest + 1)
    }
    beam = Beam(64, longest, 3, penalty=penalty)
    state = model.start(3, longest, source=source)
    found = beam_search(model, state, torch.zeros(3, dtype=torch.int64), end=end, beam=beam)
    for row, hypotheses in enumerate(found):
        scores = {}
        for length, texts in by_length.items():
            target = torch.tensor([(0, *text) for text in texts])
            with torch.no_grad():
                log_probs = model(source[[row] * len(texts)], target[:, :-1]).log_softmax(-1)
            sums = log_probs.gather(2, target[:, 1:, None]).sum((1, 2)) / penalty(length)
            scores |= dict(zip(texts, sums.tolist(), strict=True))
        best = sorted(scores, key=scores.__getitem__, reverse=True)[:3]
        assert [hypothesis.tokens for hypothesis in hypotheses] == best
        assert [hypothesis.score for hypothesis in hypotheses] == pytest.approx(
            [scores[text] for text in best], abs=1e-4
        )


class Steps:
    """A model that only reads what it has written itself, as the contract has it."""

    def __init__(self, model):
        self.model, self.config = model, model.config

    def start(self, batch, length):
        self.caches, self.length = self.model.make_cache(batch, length), 0
        return self

    def step(self, tokens, state):
        positions = torch.arange(self.length, self.length + tokens.shape[1])
        for cache in self.caches:
            cache.positions = positions
        self.length += tokens.shape[1]
        return self.model(tokens, cache=self.caches)

    def reorder(self, rows):
        for cache in self.caches:
            cache.keys, cache.values = cache.keys[rows], cache.values[rows]


def test_a_language_model_is_searched_by_the_same_contract():
    torch.manual_seed(0)
    model = create_model("gpt2_nano", width=16, depth=2, heads=2, vocabulary=4, context=8).eval()
    randomise(model, lambda: model(torch.tensor([[0, 1, 2, 3]])), seed=1)
    steps = Steps(model)
    state = steps.start(2, 6)
    with torch.no_grad():
        steps.step(torch.tensor([[2, 3], [3, 0]]), state)  # prompts but for their last tokens
        found = beam_search(steps, state, torch.tensor([0, 2]), end=1, beam=Beam(64, 4, 2))
        for prompt, hypotheses in zip(([2, 3, 0], [3, 0, 2]), found, strict=True):
            scores = {}
            for length in range(1, 5):
                for text in itertools.product(range(4), repeat=length):
                    if 1 not in text[:-1] and (length == 4 or text[-1] == 1):
                        log_probs = model(torch.tensor([[*prompt, *text]]))[0].log_softmax(-1)
                        scores[text] = sum(float(log_probs[2 + n, token]) for n, token in enumerate(text))
            best = sorted(scores, key=scores.__getitem__, reverse=True)[:2]
            assert [hypothesis.tokens for hypothesis in hypotheses] == best


@pytest.mark.parametrize("name", ["transformer_nano", "rnnsearch_nano", "luong_nano"])
def test_greedy_is_a_beam_of_one_and_argmax(name):
    model, source = grown(name), sentences()["source"]
    first = torch.full((3,), 2)
    texts = write_sequences(
        model, model.start(3, 8, source=source), first, end=3, longest=8, sampling=Sampling(temperature=0)
    )
    beam = Beam(1, 8)
    found = beam_search(model, model.start(3, 8, source=source), first, end=3, beam=beam)
    assert [list(hypotheses[0].tokens) for hypotheses in found] == texts
    for row, text in enumerate(texts):
        target = torch.tensor([[2, *text]])
        assert model(source[row : row + 1], target)[0, : len(text)].argmax(-1).tolist() == text
        assert text[-1] == 3 or len(text) == 8


def test_samples_depend_on_seed_and_candidate_alone():
    model, source = grown("rnnsearch_nano"), sentences()["source"]

    def sample(rows, candidates, seed=0):
        state = model.start(len(rows), 8, source=source[rows])
        first = torch.full((len(rows),), 2)
        options = dict(end=3, longest=8, sampling=Sampling(), seed=seed)
        return write_sequences(model, state, first, candidates=candidates, **options)

    texts = sample([0, 1, 1, 2], [0, 0, 1, 0])
    assert texts[1] != texts[2]
    assert sample([1], [1]) == texts[2:3] and sample([2, 0], [0, 0]) == [texts[3], texts[0]]
    assert sample([0, 1, 1, 2], [0, 0, 1, 0], seed=1) != texts


def test_restrictions_hold():
    model, source = grown("luong_nano"), sentences()["source"]
    first = torch.full((3,), 2)
    rules = (at_least(4, end=3), never([0, 5]), no_repeated(2))
    beam = Beam(4, 9, 4, restrictions=rules)
    found = beam_search(model, model.start(3, 9, source=source), first, end=3, beam=beam)
    for hypothesis in itertools.chain(*found):
        text = hypothesis.tokens
        pairs = list(itertools.pairwise(text))
        assert len(text) >= 5 and not {0, 5} & set(text) and len(set(pairs)) == len(pairs)


def test_coverage_needs_a_model_that_attends_in_the_open():
    model, source = grown("transformer_nano"), sentences()["source"]
    beam = Beam(2, 4, coverage=gnmt_coverage(0.2))
    with pytest.raises(UsageError, match="attention weights"):
        beam_search(model, model.start(3, 4, source=source), torch.full((3,), 2), end=3, beam=beam)
    with pytest.raises(UsageError, match="a beam of 2 for 3"):
        Beam(2, 4, 3)
