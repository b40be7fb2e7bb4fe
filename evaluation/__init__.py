"""What was learnt: features, probes on them, baselines beside them; encoders for other programs; pictures and the report."""
