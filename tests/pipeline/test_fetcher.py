"""What the thread that brings shards does with those that nobody wants any more."""

from __future__ import annotations

import io
from threading import Event

import pytest

from amdim.pipeline.fetch_thread import FetchThread
from tests.pipeline.test_ahead import wait_until


@pytest.mark.parametrize("given_up", [False, True])
def test_a_file_that_comes_as_it_is_given_up_is_closed(given_up):
    file, asked, futures = io.BytesIO(b"a shard"), Event(), []

    async def obtain(_):
        asked.wait()
        if given_up:
            futures[0].cancel()
        return file

    fetcher = FetchThread(obtain)
    futures.append(fetcher.fetch(None))
    asked.set()
    wait_until(futures[0].done)
    fetcher.close()
    assert (futures[0].cancelled(), file.closed) == (given_up, given_up)


def test_an_error_is_that_of_the_future():
    async def obtain(_):
        raise OSError("no way there")

    fetcher = FetchThread(obtain)
    with pytest.raises(OSError, match="no way there"):
        fetcher.fetch(None).result(10)
    fetcher.close()
