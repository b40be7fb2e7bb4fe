"""A Dask cluster as the team that builds a set: ``--dask tcp://scheduler:8786``. Needs the package ``distributed``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from amdim.errors import UsageError, UserError, first_line
from amdim.shards.worker_pool import Team

PATIENCE = 10  # seconds for the scheduler to answer


@contextmanager
def team(address: str) -> Iterator[Team]:
    """The workers of the cluster, as an executor; they need this directory's code, its packages, and the same files.

    Raises UsageError without the package, UserError when there is no such cluster, or one that does not do.
    """
    try:
        from distributed import Client, KilledWorker
    except ImportError:
        raise UsageError(
            "--dask needs a package that is not there; install it with `.venv/bin/pip install distributed`"
        ) from None
    try:
        client = Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{address}: no Dask scheduler answers ({first_line(error)}); is it running?") from None
    with client:
        size = sum(client.nthreads().values())
        if not size:
            raise UserError(f"{address}: the Dask cluster has no workers; start some with `dask worker {address}`")
        try:
            yield Team(client.get_executor(pure=False), size)
        except KilledWorker:
            raise UserError(f"{address}: a Dask worker died, perhaps for want of memory; what is done is kept") from None
        except ModuleNotFoundError as error:
            raise UserError(
                f"{address}: its workers lack {error.name}; start them in this directory, with the same packages"
            ) from None
