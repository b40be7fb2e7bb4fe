"""Run the command line of the shard sets: ``python -m shards``."""

from amdim.shards.cli import main

main()
