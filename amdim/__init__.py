"""AMDIM pretraining: images to shards, two augmented views, an encoder trained by multi-scale InfoNCE, and probes.

In a checkout this directory holds links to the packages next to it; in an installed package it holds the packages themselves.
"""
