"""The cache by itself: what is removed when, and what is not."""

import os

import pytest

from amdim.errors import UsageError
from amdim.pipeline.shard_cache import ShardCache, default_directory
from amdim.shards.manifest import Shard

SIZE = 4096


def shard(number):
    return Shard(f"{number}.tar", 1, SIZE, f"{number:064x}")


def put(cache, number):
    """A shard, open; None where there is no room."""
    part = cache.begin(shard(number))
    if not cache.make_room(part, SIZE):
        cache.abandon(part, shard(number))
        return None
    part.write(bytes([number]) * SIZE)
    return cache.finish(part, shard(number))


def names(cache):
    return sorted(int(path.stem, 16) for path in cache.shards.iterdir())


@pytest.fixture
def cache(tmp_path):
    return ShardCache(tmp_path / "cache", 3 * SIZE)


def test_the_least_recently_opened_makes_room(cache):
    for number in (1, 2, 3):
        put(cache, number).close()
        os.utime(cache.tar(shard(number)), (number, number))
    cache.hold(shard(1)).close()
    put(cache, 4).close()
    assert names(cache) == [1, 3, 4]


def test_what_is_open_stays_and_there_is_no_more_than_was_allowed(cache):
    held = [put(cache, number) for number in (1, 2, 3)]
    assert put(cache, 4) is None
    assert names(cache) == [1, 2, 3]
    held[1].close()
    assert put(cache, 4)
    assert names(cache) == [1, 3, 4]


def test_what_is_removed_by_hand_is_read_on_and_is_not_there_for_others(cache):
    held = put(cache, 1)
    cache.tar(shard(1)).unlink()
    assert os.pread(held.fileno(), 3, 0) == b"\1\1\1"
    assert cache.hold(shard(1)) is None
    put(cache, 1)
    cache.forget(held, shard(1))  # the old one, which no longer is in its place
    assert names(cache) == [1]


def test_one_process_fetches_and_others_wait(cache, tmp_path):
    other = ShardCache(tmp_path / "cache", 3 * SIZE)
    part = cache.begin(shard(1))
    assert other.begin(shard(1)) is None
    assert other.hold(shard(1)) is None
    assert cache.make_room(part, SIZE)
    second = other.begin(shard(2))
    assert other.make_room(second, 2 * SIZE)
    assert not cache.make_room(cache.begin(shard(3)), SIZE)  # what is under way counts
    other.abandon(second, shard(2))
    cache.finish(part, shard(1)).close()
    assert other.begin(shard(1)) is None
    assert other.hold(shard(1))


def test_what_a_killed_process_left_is_taken_over_or_makes_room(cache):
    for number in (1, 2, 3):
        cache.part(shard(number)).write_bytes(bytes(SIZE))
    put(cache, 1).close()
    put(cache, 4).close()
    assert sorted(path.suffix for path in cache.shards.iterdir()) == [".part", ".tar", ".tar"]


def test_what_has_another_length_is_removed(cache):
    put(cache, 1).close()
    os.truncate(cache.tar(shard(1)), 7)
    assert cache.hold(shard(1)) is None
    assert names(cache) == []


def test_claims_of_those_who_are_gone_do_not_count(cache):
    one = cache.claim("one", 2 * SIZE)
    cache.claim("one", 2 * SIZE).close()  # another rank of the same run
    with pytest.raises(UsageError, match=r"beside 8\.19e-06 GB of other runs"):
        cache.claim("two", 2 * SIZE)
    one.close()
    assert cache.claim("two", 2 * SIZE)


def test_the_smallest_limit_counts_whoever_comes_first(tmp_path):
    """The process of that limit removes what is beyond it, and would wait for ever for what others hold."""
    small, large = ShardCache(tmp_path / "cache", 3 * SIZE), ShardCache(tmp_path / "cache", 100 * SIZE)
    first = small.claim("one", 2 * SIZE)
    with pytest.raises(UsageError, match=r"holds 1\.23e-05 GB by another run's --cache-gb, and .* give another --cache-dir"):
        large.claim("two", 2 * SIZE)
    assert large.claim("two", SIZE)
    first.close()
    assert large.claim("three", 50 * SIZE)


def test_a_claim_may_become_smaller(cache):
    one = cache.claim("one", 3 * SIZE)
    again = cache.claim("one", 9)
    one.close()
    assert cache.claim("two", 2 * SIZE)
    again.close()


def test_the_directory_is_where_xdg_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_directory() == tmp_path / "amdim"
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ShardCache().directory == tmp_path / ".cache/amdim"


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"--cache-dir .*/file: cannot be written"):
        ShardCache(tmp_path / "file")
