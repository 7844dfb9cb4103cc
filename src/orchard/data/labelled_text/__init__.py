"""Texts with labels: a class, several classes or numbers for each text, or for two texts together."""
