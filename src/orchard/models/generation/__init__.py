"""Landmarks that make images out of noise."""
