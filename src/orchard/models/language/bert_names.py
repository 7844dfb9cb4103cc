"""The names of BERT's tensors in transformers, in the files of its first releases, and in Google's own checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from orchard.errors import OrchardError
from orchard.models import Rule
from orchard.models.attention_names import attention_rules
from orchard.models.config_json import ConfigJson, only

if TYPE_CHECKING:
    from orchard.models.language.bert import BertConfig

Table = list[Rule | tuple[str, str]]
BLOCK = "blocks.{}."
CLASSIFIERS = {  # the layer of a head, by the task
    "text-classification": "classifier",
    "token-classification": "classifier",
    "question-answering": "qa_outputs",
}
FEATURES = "feature-extraction"


def same(tensor: Tensor) -> Tensor:
    return tensor


def hf_names(config: BertConfig) -> Table:
    """The tensors of BertForPreTraining and its kin, whose tied table and bias have two names each."""
    return [
        *tied("cls.predictions.", "bert.embeddings.word_embeddings.weight", config),
        *hf_file_names(config),
    ]


def hf_file_names(config: BertConfig) -> Table:
    """The file that save_pretrained writes: what is tied stands in it once. BertModel has no prefix."""
    return bert_rules(config, "bert.")


def bert_rules(config: BertConfig, prefix: str) -> Table:
    """The names of BERT and of the landmarks that are called like it, behind the prefix of their model."""
    model = "" if config.head == FEATURES else prefix
    return [
        *embedding_rules(model + "embeddings.{}.{}"),
        *block_rules(model + "encoder.layer.{}."),
        ("pooler.dense.{}", model + "pooler.dense.{}"),
        *masked_rules("cls.predictions.", "transform.dense", "transform.LayerNorm"),
        ("head.pair.{}", "cls.seq_relationship.{}"),
        ("head.{}", classifier(config)),
    ]


def classifier(config: BertConfig) -> str:
    """The one layer of a head."""
    return f"{CLASSIFIERS.get(config.head, 'classifier')}.{{}}"


def hf_old_names(config: BertConfig) -> Table:
    """The first files (bert-base-uncased and others): norms have gamma and beta."""
    return [rule for row in hf_file_names(config) for rule in _with_gamma(row)]


def google_names(config: BertConfig) -> Table:
    """google-research/bert's TensorFlow checkpoints: slashes, and matrices (in, out)."""
    output = {"question-answering": "cls/squad/output_"}.get(config.head, "output_")
    own: Table = [
        ("head.tokens.bias", "cls/predictions/output_bias"),
        ("head.pair.weight", "cls/seq_relationship/output_weights"),
        ("head.pair.bias", "cls/seq_relationship/output_bias"),
        ("head.weight", output + "weights"),
        ("head.bias", output + "bias"),
    ]
    return [*own, *(rule for row in hf_old_names(config) for rule in _in_tensorflow(row))]


def tied(head: str, table: str, config: Any) -> Table:
    """The table of tokens and its bias, which a head for masked tokens names again."""
    if config.head != "fill-mask":
        return []
    return [
        Rule("embedding.tokens.weight", (table, head + "decoder.weight"), one_of_two, lambda table: (table, table)),
        Rule("head.tokens.bias", (head + "bias", head + "decoder.bias"), one_of_two, lambda bias: (bias, bias)),
    ]


def embedding_rules(pattern: str) -> Table:
    """`pattern` has the name of a table and then weight or bias."""
    return [
        ("embedding.tokens.{}", pattern.format("word_embeddings", "{}")),
        ("embedding.tables.positions.{}", pattern.format("position_embeddings", "{}")),
        ("embedding.tables.segments.{}", pattern.format("token_type_embeddings", "{}")),
        ("embedding.norm.{}", pattern.format("LayerNorm", "{}")),
    ]


def block_rules(
    layer: str,
    qkv: Sequence[str] = ("attention.self.query", "attention.self.key", "attention.self.value"),
    out: str = "attention.output.dense",
    rest: Sequence[str] = ("attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm"),
) -> Table:
    """A block: the layers of `rest` are the first norm, both layers of the network, and the second norm."""
    return [
        *attention_rules(
            BLOCK + "attention", [layer + name for name in qkv], layer + out, to_matrix=same, from_matrix=same
        ),
        *(
            (f"{BLOCK}{ours}.{{}}", f"{layer}{theirs}.{{}}")
            for ours, theirs in zip(("norm1", "mlp.fc1", "mlp.fc2", "norm2"), rest, strict=True)
        ),
    ]  # fmt: skip


def masked_rules(head: str, dense: str, norm: str) -> Table:
    """The head for masked tokens."""
    return [
        ("head.tokens.transform.dense.{}", f"{head}{dense}.{{}}"),
        ("head.tokens.transform.norm.{}", f"{head}{norm}.{{}}"),
        ("head.tokens.bias", head + "bias"),
    ]


def one_of_two(first: Tensor, second: Tensor) -> Tensor:
    """The one tensor behind two names; zeros say that the second has no entry."""
    if not first.is_meta and second.any() and not torch.equal(first, second):
        raise OrchardError(
            "the head's table or bias differs from the one that it is tied to; this model has one of each"
        )
    return first


def _with_gamma(row: Rule | tuple[str, str]) -> Table:
    """A norm's gain and bias as gamma and beta."""
    if isinstance(row, Rule) or "LayerNorm" not in row[1]:
        return [row]
    ours, theirs = (name.removesuffix("{}") for name in row)
    return [(ours + "weight", theirs + "gamma"), (ours + "bias", theirs + "beta")]


def _in_tensorflow(row: Rule | tuple[str, str]) -> Table:
    """Names with slashes; a layer's matrix is its kernel, and a table has its own name alone."""
    if isinstance(row, Rule):
        names = tuple(_slashes(name) for name in row.theirs)
        return [_turned(row, names) if row.ours.endswith("weight") else Rule(row.ours, names, row.join, row.split)]
    if not row[1].endswith("{}"):
        return [(row[0], _slashes(row[1]))]
    ours, theirs = (name.removesuffix("{}") for name in row)
    if theirs.endswith("_embeddings."):
        return [(ours + "weight", _slashes(theirs.removesuffix(".")))]
    return [
        _turned(Rule(ours + "weight", (theirs,)), (_slashes(theirs) + "kernel",)),
        (ours + "bias", _slashes(theirs) + "bias"),
    ]


def _turned(rule: Rule, names: tuple[str, ...]) -> Rule:
    """The rule for the same matrices, transposed."""
    return Rule(
        rule.ours,
        names,
        lambda *kernels: rule.join(*(kernel.T for kernel in kernels)),
        lambda matrix: tuple(piece.T for piece in rule.split(matrix)),
    )


def _slashes(name: str) -> str:
    return name.replace("layer.{}", "layer_{}").replace(".", "/").replace("/weight", "/kernel")


def _head_of(names: Any, table: Any) -> dict[str, Any]:
    """The head by transformers' class: BertForMaskedLM, RobertaForTokenClassification, ..."""
    head = ARCHITECTURES[str(names[0]).partition("For")[2]]
    return {"head": head}


ARCHITECTURES = {
    "": FEATURES,
    "PreTraining": "fill-mask",
    "MaskedLM": "fill-mask",
    "SequenceClassification": "text-classification",
    "TokenClassification": "token-classification",
    "QuestionAnswering": "question-answering",
}
ACTIVATIONS = {
    "gelu": "gelu", "gelu_python": "gelu", "gelu_new": "tanh-gelu", "gelu_pytorch_tanh": "tanh-gelu", "relu": "relu",
}  # fmt: skip
CONFIG_JSON: ConfigJson = {
    "hidden_size": "width",
    "num_hidden_layers": "depth",
    "num_attention_heads": "heads",
    "intermediate_size": "hidden",
    "vocab_size": "vocabulary",
    "max_position_embeddings": "context",
    "pad_token_id": "pad",
    "type_vocab_size": "segments",
    "layer_norm_eps": "norm_eps",
    "hidden_act": {theirs: {"activation": ours} for theirs, ours in ACTIVATIONS.items()},
    "position_embedding_type": only("absolute"),
    "is_decoder": only(False),
    "add_cross_attention": only(False),
    "architectures": _head_of,
}
# Buffers of older versions, from which nothing is learned, and the tied table, which these files name twice.
NOT_WEIGHTS = {
    "hf_file": ("*.position_ids",),
    "hf": ("*.position_ids",),
    "hf_old": ("*.position_ids", "cls.predictions.decoder.weight"),
    "google": ("*/adam_m", "*/adam_v", "global_step"),
}
NAMES = {  # a file is taken for the first of those that know most of its names
    "hf_file": hf_file_names,
    "hf": hf_names,
    "hf_old": hf_old_names,
    "google": google_names,
}
