"""A bucket or a web server that files come from, through obstore: one way for S3, Google Cloud, Azure and HTTP.

What fails before a body begins (5xx, 408, 429, refused and reset connections, time-outs) obstore tries again by itself, with
backoff and jitter, and it goes on with a body that breaks off where the server names its version by an ETag. What is left for
``pipeline.fetch_shard`` are bodies that break off without one, and wrong bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import obstore
from obstore.store import AzureStore, GCSStore, HTTPStore, S3Store

from amdim.errors import UserError
from amdim.pipeline.object_store_errors import explain
from amdim.pipeline.url import Url

STORES: dict[str, Any] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore, "https": HTTPStore, "http": HTTPStore}
CONNECT = 5.0  # seconds to wait for a connection
SILENCE = 30.0  # and for the next bytes of a body
PATIENCE = 300.0  # for a server that is away in mid-run; less than the ten minutes that ranks wait for one another
AT_START = 20.0  # and before anything has begun
FEW = 6  # retries there: six seconds, where connections are refused at once
PAUSES = (0.1, 0.3, 1.0)  # seconds before a small file whose body broke off is fetched again
CHUNK = 2**20  # bytes that are handed on together, at least


class ObjectStore:
    """Files at a URL, by name.

    Raises:
        UserError: what is in the environment does not make a client.
    """

    def __init__(self, url: Url) -> None:
        self.url = url
        try:
            self.store, self.quick = connect(url, 10_000, PATIENCE, SILENCE), connect(url, FEW, AT_START, SILENCE / 3)
        except Exception as error:
            raise UserError(f"{url.shown}: {explain(error, url.scheme).words}") from None

    def path(self, name: str) -> str:
        return f"{self.url.shown}/{name}"

    async def read(self, name: str) -> bytes:
        """A small file, before training begins.

        Raises:
            UserError: names URL and cause.
        """
        for pause in (*PAUSES, None):
            try:
                return bytes(await (await obstore.get_async(self.quick, name)).bytes_async())
            except Exception as error:
                fault = explain(error, self.url.scheme)
            if not fault.broken or pause is None:
                break
            await asyncio.sleep(pause)
        raise UserError(f"{self.path(name)}: {fault.words}")

    async def stream(self, name: str) -> AsyncIterator[memoryview]:
        """A large file, piece by piece; raises whatever obstore does."""
        async for chunk in (await obstore.get_async(self.store, name)).stream(min_chunk_size=CHUNK):
            yield memoryview(chunk)


def connect(url: Url, retries: int, patience: float, silence: float) -> Any:
    """A client that gives up after so many retries or seconds; credentials of clouds are in the environment, where it looks."""
    # Of clouds only an endpoint that somebody put into the environment is without TLS.
    client: dict[str, Any] = {"allow_http": url.scheme != "https", "connect_timeout": timedelta(seconds=CONNECT)}
    client |= {"read_timeout": timedelta(seconds=silence), "timeout": timedelta(days=7)}  # a body may take its time
    if url.authorization:
        client["default_headers"] = {"Authorization": url.authorization}
    backoff = {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=10), "base": 2}
    retry = {"max_retries": retries, "retry_timeout": timedelta(seconds=patience), "backoff": backoff}
    query = f"?{url.query}" if url.query else ""
    return STORES[url.scheme].from_url(url.shown + query, client_options=client, retry_config=retry)
