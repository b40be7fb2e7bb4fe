"""What was learnt: features, probes on them, baselines beside them, pictures."""
