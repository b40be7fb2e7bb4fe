"""Classifiers on frozen or fine-tuned features."""
