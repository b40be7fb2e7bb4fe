"""Image collections that shards are built from."""
