"""Pictures: read as what they hold, checked, and encoded for a shard."""
