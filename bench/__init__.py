"""Measurements, one file a question. Each prints what it ran on."""
