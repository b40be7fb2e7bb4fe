"""Emergent segmentation by the mixture features."""
