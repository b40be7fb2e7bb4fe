"""Ranks: launch, rendezvous, agreement, signals."""
