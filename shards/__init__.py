"""Image collections in, checked and shuffled WebDataset shards out: ``python -m shards --help``."""
