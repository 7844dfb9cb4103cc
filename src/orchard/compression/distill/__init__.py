"""Distillation (Hinton, Vinyals and Dean 2015, arXiv:1503.02531): another, smaller model learns from this one."""

from orchard.compression.record import Method

METHOD = Method(
    name="distill", summary="another model learns from this one's answers beside the labels (arXiv:1503.02531)"
)
