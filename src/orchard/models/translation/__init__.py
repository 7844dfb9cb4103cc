"""Landmarks that translate images of one side to the other."""
