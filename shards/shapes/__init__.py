"""The generated data set ``shapes``."""
