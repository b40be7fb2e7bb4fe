"""Shards from a server are those of the directory that it serves, whatever happens on the way."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import threading
from itertools import chain, islice, repeat
from pathlib import Path

import numpy as np
import pytest
import torch

from amdim.errors import UsageError, UserError
from amdim.pipeline import RECIPES, EvalLoader, TwoViewLoader
from amdim.pipeline.remote_dataset import open_dataset
from amdim.pipeline.shard_cache import size_of
from amdim.pipeline.shard_schedule import working_set_bytes
from amdim.shards import manifest
from tests import endpoints
from tests.forked import server as processes
from tests.pipeline.test_ahead import wait_until

RECIPE = RECIPES["shapes32"]
BATCH = 8
TAR = r"train-\d+\.tar$"


@pytest.fixture(scope="session")
def many(tmp_path_factory):
    """A set of 24 small shards for training, three windows of the order, in a directory that servers serve as /set."""
    from amdim.shards.build import build
    from amdim.shards.shapes.renderer import source

    out = tmp_path_factory.mktemp("served") / "set"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("amdim.shards.plan.MIN_TRAINING_SHARDS", 24)
        patch.setattr("amdim.shards.plan.WORTH_SPLITTING", 100)
        build(source(0, {"train": 240, "val": 20}), out, seed=0, workers=1, max_rejected=0, overwrite=False, show=lambda _: None)
    assert len(manifest.load(out).splits["train"].shards) == 24
    return out


@pytest.fixture(autouse=True)
def brisk(monkeypatch):
    """Waits of tests, not of networks."""
    monkeypatch.setattr("amdim.pipeline.fetch_shard.BACKOFF", 0.01)
    monkeypatch.setattr("amdim.pipeline.object_store.SILENCE", 0.5)


@pytest.fixture
def server(many):
    with endpoints.serving(many.parent) as running:
        yield running


def room(root):
    """What a loader of these tests has in use at a time, in GB."""
    return working_set_bytes(manifest.load(root).splits["train"].shards, BATCH) / 1e9


def opened(url, cache, gb=None, **options):
    source = open_dataset(url, cache, gb)
    return TwoViewLoader(source, ["train"], **({"recipe": RECIPE, "batch": BATCH, "seed": 5, "threads": 1} | options))


def passing(loader, count):
    """The next steps of a loader, epoch after epoch, as they are asked for."""
    return (torch.cat([views.x1, views.x2]).clone() for views in islice(chain.from_iterable(repeat(loader)), count))


def steps(loader, count):
    return list(passing(loader, count))


def equal(one, other):
    return len(one) == len(other) and all(map(torch.equal, one, other))


def tars(server):
    return {name: count for name, count in server.requests.items() if name.endswith(".tar")}


@pytest.fixture(scope="session")
def local(many):
    """Two epochs of the set on disk: 60 steps."""
    return steps(TwoViewLoader(many, ["train"], RECIPE, BATCH, seed=5, threads=1), 60)


def test_the_stream_is_that_of_the_directory_and_each_shard_is_fetched_once(server, local, tmp_path):
    loader = opened(f"{server.url}/set", tmp_path)
    assert equal(steps(loader, 60), local)
    assert set(tars(server).values()) == {1}
    assert len(tars(server)) == 24


def test_the_stream_from_s3_is_that_of_the_directory(many, local, tmp_path, monkeypatch):
    with endpoints.s3(many, "bucket", "some/prefix") as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert equal(steps(opened("s3://bucket/some/prefix/", tmp_path), 12), local[:12])
        with pytest.raises(UserError, match=r"s3://other/set/dataset\.json: there is no such bucket"):
            open_dataset("s3://other/set", tmp_path)
        with pytest.raises(UserError, match=r"s3://bucket/wrong/dataset\.json: there is no such file"):
            open_dataset("s3://bucket/wrong", tmp_path)


def test_google_cloud_and_azure_through_the_ways_obstore_has_for_emulators(many, tmp_path, monkeypatch):
    """A web server in their place: paths and answers are theirs, signatures are not looked at."""
    shutil.copytree(many, tmp_path / "bucket/set")
    shutil.copytree(many, tmp_path / "devstoreaccount1/container/set")
    with endpoints.serving(tmp_path) as server:
        server.headers = {"ETag": '"one"'}
        key = {"gcs_base_url": server.url, "disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", json.dumps(key))
        monkeypatch.setenv("AZURE_STORAGE_USE_EMULATOR", "true")
        monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", server.url)
        for url in ("gs://bucket/set", "az://container/set"):
            source = open_dataset(url, tmp_path / url[:2])
            assert source.manifest == manifest.load(many)
            assert len(list(EvalLoader(source, ["val"], RECIPE, batch=20))) == 1
            with pytest.raises(UserError, match=r"://[a-z]+/other/dataset\.json: there is no such file"):
                open_dataset(url.replace("/set", "/other"), tmp_path)


def test_start_up_fetches_the_first_windows_and_no_more(server, local, tmp_path):
    loader = opened(f"{server.url}/set", tmp_path)
    assert not tars(server)
    assert equal(steps(loader, 1), local[:1])
    assert 8 <= len(tars(server)) <= 16


def test_a_set_larger_than_the_cache_streams_through_it(server, local, many, tmp_path):
    size = room(many)
    loader = opened(f"{server.url}/set", tmp_path, size)
    for made, expected in zip(passing(loader, 60), local, strict=True):
        assert torch.equal(made, expected)
        with loader.root.cache.locked():  # while nobody removes files to make room
            assert sum(map(size_of, (tmp_path / "shards").iterdir())) <= loader.root.cache.limit
    assert sum(tars(server).values()) > 24


def test_a_cache_that_is_too_small_is_refused_with_numbers(server, many, tmp_path):
    with pytest.raises(UsageError, match=r"holds 0\.00\d+ GB, and 0\.00\d+ GB of shards are in use at a time; give --cache-gb 0"):
        opened(f"{server.url}/set", tmp_path, room(many) * 0.99)
    assert not tars(server)


def test_two_runs_share_a_cache_that_holds_both_and_no_smaller_one(server, local, many, tmp_path):
    one, other = (opened(f"{server.url}/set", tmp_path, room(many) * 2, seed=seed) for seed in (5, 6))
    pairs = zip(passing(one, 30), passing(other, 30), strict=True)
    assert equal([mine for mine, _ in pairs], local[:30])
    third = opened(f"{server.url}/set", tmp_path, room(many) * 2.5)
    with pytest.raises(UsageError, match=r"beside 0\.\d+ GB of other runs"):
        next(iter(third))


def read_as_rank(url, cache, rank):
    """An epoch, in a process of its own; half of the images."""
    assert len(steps(opened(url, cache, rank=rank, world=2), 30)) == 30


def test_two_processes_fetch_each_shard_once(server, tmp_path):
    running = [processes().Process(target=read_as_rank, args=(f"{server.url}/set", tmp_path, rank)) for rank in (0, 1)]
    for process in running:
        process.start()
    for process in running:
        process.join(120)
    assert [process.exitcode for process in running] == [0, 0]
    assert len(tars(server)) == 24
    assert set(tars(server).values()) == {1}


def test_a_run_that_goes_on_elsewhere_sees_what_it_would_have_seen(server, local, many, tmp_path):
    """Begun on the directory, gone on from the server with two ranks: the fingerprint is of the set, not of its place."""
    begun = TwoViewLoader(many, ["train"], RECIPE, BATCH, seed=5, threads=1)
    steps(begun, 17)
    ranks = [opened(f"{server.url}/set", tmp_path, rank=rank, world=2) for rank in (0, 1)]
    for rank in ranks:
        rank.load_state_dict(begun.state_dict())
    parts = [[(views.x1.clone(), views.x2.clone()) for views in islice(rank, 5)] for rank in ranks]
    made = [torch.cat([x for view in (0, 1) for x in (one[view], other[view])]) for one, other in zip(*parts, strict=True)]
    assert equal(made, local[17:22])
    back = TwoViewLoader(many, ["train"], RECIPE, BATCH, seed=5, threads=1)
    back.load_state_dict(ranks[0].state_dict())
    assert equal(steps(back, 3), local[22:25])


def test_evaluation_reads_a_split_once(server, many, tmp_path):
    remote, on_disk = (
        EvalLoader(root, ["train"], RECIPE, batch=50) for root in (open_dataset(f"{server.url}/set", tmp_path), many)
    )
    assert all(torch.equal(a, b) and torch.equal(c, d) for (a, c), (b, d) in zip(remote, on_disk, strict=True))
    assert set(tars(server).values()) == {1}
    assert len(tars(server)) == 24


TRANSIENT = {
    "408": [endpoints.status(408)],
    "500": [endpoints.status(500)] * 2,
    "503": [endpoints.status(503)] * 2,
    "429": [endpoints.status(429)],
    "reset before": [endpoints.reset_before] * 2,
    "reset within": [endpoints.reset_within] * 2,
    "truncated": [endpoints.truncated] * 2,
    "shorter": [endpoints.shorter],
    "longer": [endpoints.longer],
    "wrong bytes": [endpoints.wrong] * 2,
    "stalled": [endpoints.stalled],
    "slow": [endpoints.slow],
}


@pytest.mark.parametrize("fault", TRANSIENT)
def test_what_passes_is_waited_for_and_changes_nothing(server, local, tmp_path, fault):
    server.faults = {r"train-0000[05]\.tar$": iter(TRANSIENT[fault] * 2), "dataset": iter(TRANSIENT["500"])}
    assert equal(steps(opened(f"{server.url}/set", tmp_path), 24), local[:24])
    assert next(server.faults[r"train-0000[05]\.tar$"], None) is None  # all of them happened
    assert {path.suffix for path in (tmp_path / "shards").iterdir()} == {".tar"}


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("fault", [endpoints.truncated, endpoints.reset_within])
def test_a_body_with_a_version_goes_on_where_it_broke_off(server, local, tmp_path, fault, ranges):
    """By obstore's own retries, where the server can; else from the start."""
    server.headers, server.ranges = {"ETag": '"one"'}, ranges
    server.faults = {TAR: iter([fault] * 3)}
    assert equal(steps(opened(f"{server.url}/set", tmp_path), 2), local[:2])
    assert server.requests["ranges"] == (3 if ranges else 0)


LASTING = {
    "403": (endpoints.status(403), r"access is denied \(403 Forbidden\); for credentials, write USER:PASSWORD@"),
    "401": (endpoints.status(401), r"access is denied \(401 Unauthorized\)"),
    "404": (endpoints.status(404), "there is no such file"),
    "410": (endpoints.status(410), "the server answers 410 Gone"),
    "expired": (endpoints.status(403, endpoints.EXPIRED), "the credentials have expired; renew them"),
    "expired at Amazon": (endpoints.status(400, endpoints.EXPIRED), "the credentials have expired; renew them"),
    "wrong bytes": (endpoints.wrong, "its bytes are not those that dataset.json names, 6 times"),
    "truncated": (endpoints.truncated, "the connection broke off, 6 times"),
}


@pytest.mark.parametrize("fault", LASTING)
def test_what_does_not_pass_ends_in_one_line(server, tmp_path, fault):
    happens, words = LASTING[fault]
    server.faults = {r"train-00005\.tar$": repeat(happens)}
    loader = opened(f"{server.url}/set", tmp_path)
    with pytest.raises(UserError, match=rf"^{server.url}/set/train-00005\.tar: {words}[^\n]*$"):
        steps(loader, 30)
    loader.root.fetcher.close()
    assert not list((tmp_path / "shards").glob("*.part"))
    server.faults = {"dataset": repeat(happens if "bytes" not in fault else endpoints.status(404))}
    with pytest.raises(UserError, match=rf"^{server.url}/set/dataset\.json: "):
        open_dataset(f"{server.url}/set", tmp_path)


def test_a_server_that_stays_away(many, tmp_path, monkeypatch):
    monkeypatch.setattr("amdim.pipeline.object_store.PATIENCE", 1.0)
    monkeypatch.setattr("amdim.pipeline.object_store.FEW", 2)
    with endpoints.serving(many.parent) as server:
        server.faults = {TAR: repeat(endpoints.status(503))}
        with pytest.raises(UserError, match=r"train-\d+\.tar: the server answers 503 Service Unavailable, also when asked \d"):
            steps(opened(f"{server.url}/set", tmp_path), 1)
    with pytest.raises(UserError, match=r"set/dataset\.json: cannot be reached: connection refused, also when asked 2 t"):
        open_dataset(f"{server.url}/set", tmp_path)


def test_a_server_that_is_killed_and_restarted_in_mid_epoch(many, local, tmp_path):
    first = endpoints.Server(many.parent)
    loader = opened(f"{first.url}/set", tmp_path, room(many))
    made = steps(loader, 4)
    first.kill()
    with endpoints.serving(many.parent, port=first.server_port):
        assert equal(made + steps(loader, 30), local[:34])


def test_a_set_that_is_closed_holds_nobody_up(server, local, many, tmp_path, monkeypatch):
    """Neither the thread that makes batches, which waits for a server that says nothing, nor whoever wants the room."""
    monkeypatch.setattr("amdim.pipeline.object_store.SILENCE", 60)
    loader = opened(f"{server.url}/set", tmp_path, room(many))
    server.faults = {TAR: chain(repeat(None, 16), repeat(endpoints.stalled))}
    with loader.root:
        assert equal(steps(loader, 18), local[:18])  # and the next ones want the third window
    makers = [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]
    loader.views = None
    wait_until(lambda: not any(thread.is_alive() for thread in makers))
    wait_until(lambda: not list((tmp_path / "shards").glob("*.part")))
    with opened(f"{server.url}/set", tmp_path, room(many), seed=6).root as other:
        assert other.cache.claim("another", other.cache.limit)


def test_a_web_page_is_no_manifest(server, many, tmp_path):
    server.faults = {"dataset": repeat(endpoints.status(200, b"<html>Log in</html>"))}
    with pytest.raises(UserError, match=r"set/dataset\.json: damaged \(JSONDecodeError"):
        open_dataset(f"{server.url}/set", tmp_path)


def test_a_cache_that_is_removed_is_made_again(server, local, many, tmp_path):
    loader = opened(f"{server.url}/set", tmp_path / "cache", room(many))
    assert equal(steps(loader, 8), local[:8])
    (tmp_path / "cache").rename(tmp_path / "elsewhere")  # at one moment, whatever is under way
    assert equal(steps(loader, 25), local[8:33])


def test_a_cache_that_is_no_directory_any_more_is_named(server, many, tmp_path):
    loader = opened(f"{server.url}/set", tmp_path / "cache", room(many))
    loader.root.expect(iter(()), 0, 0)
    shutil.rmtree(tmp_path / "cache/shards")
    (tmp_path / "cache/shards").touch()
    with pytest.raises(UserError, match=r"/cache: cannot be used \((File exists|Not a directory)\); give another --cache-dir"):
        loader.store.encoded(0)


def test_hashes_that_would_be_other_files_are_refused(server, many, tmp_path):
    copy = shutil.copytree(many, tmp_path / "served/set")
    fields = json.loads((copy / "dataset.json").read_text())
    fields["splits"]["train"]["shards"][3]["sha256"] = "../../../home"
    (copy / "dataset.json").write_text(json.dumps(fields))
    server.root = copy.parent
    with pytest.raises(UserError, match=r"set/dataset\.json: damaged \(train-00003\.tar has no SHA-256\)"):
        open_dataset(f"{server.url}/set", tmp_path / "cache")


def test_no_file_stays_open_when_a_loader_starts_anew_or_is_closed(server, local, many, tmp_path):
    loader = opened(f"{server.url}/set", tmp_path, room(many))
    for _ in range(6):
        loader.load_state_dict(loader.state_dict() | {"step": 7})
        assert equal(steps(loader, 5), local[7:12])
        loader.root.close()
        wait_until(lambda: open_below(tmp_path) == [])  # or fails


def open_below(directory):
    """Files of ``directory`` that this process has open; its sockets are the server's, too, which runs in it."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # closed by now
            found.append(str(entry.readlink()))
    return [path for path in found if path.startswith(str(directory))]


@pytest.mark.parametrize("damage", ["flipped", "cut short", "removed", "empty"])
def test_a_cache_file_that_is_damaged_is_fetched_again(server, local, many, tmp_path, damage, capfd):
    first = opened(f"{server.url}/set", tmp_path)
    assert equal(steps(first, 30), local[:30])
    for path in list((tmp_path / "shards").iterdir())[::3]:
        spoil(path, damage)
    assert equal(steps(first, 15), local[30:45])  # with what it has open, and what it opens anew
    first.root.close()
    server.requests.clear()
    assert equal(steps(opened(f"{server.url}/set", tmp_path), 15), local[:15])
    said = "is damaged, and fetched again" in capfd.readouterr().err
    assert said if damage == "flipped" else not said or damage != "removed"
    assert set(tars(server).values()) <= {1}


def spoil(path, damage):
    if damage == "removed":
        path.unlink()
    elif damage == "flipped":
        whole = np.frombuffer(path.read_bytes(), np.uint8)
        path.write_bytes((whole ^ 1).tobytes())
    else:
        os.truncate(path, 0 if damage == "empty" else path.stat().st_size // 2)


def test_an_index_that_is_cut_short_is_fetched_again(server, local, tmp_path):
    opened(f"{server.url}/set", tmp_path)
    for path in (tmp_path / "sets").glob("*/*.npy"):
        os.truncate(path, path.stat().st_size - 10)
    assert equal(steps(opened(f"{server.url}/set", tmp_path), 2), local[:2])


@pytest.mark.parametrize("fault", [endpoints.truncated, endpoints.reset_within])
def test_an_index_that_breaks_off_on_its_way_is_fetched_again(server, local, tmp_path, fault):
    server.faults = {r"train-0000[24]\.npy": chain([fault, fault], repeat(None))}
    assert equal(steps(opened(f"{server.url}/set", tmp_path), 2), local[:2])


def test_a_web_page_is_no_index(server, tmp_path):
    server.faults = {r"train-00003\.npy": repeat(endpoints.status(200, b"<html>Log in</html>"))}
    expected = rf"^{server.url}/set/train-00003\.npy: is no index of train-00003\.tar that this version reads; run `python -m"
    with pytest.raises(UserError, match=expected):
        opened(f"{server.url}/set", tmp_path)


def serve_another_build(server, many, tmp_path):
    """A copy of the set, one of whose indices has other checksums."""
    other = tmp_path / "served/set"
    shutil.copytree(many, other)
    index = np.load(other / "train-00003.npy")
    index["crc"] += 1
    np.save(other / "train-00003.npy", index)
    server.root = other.parent
    return other


def test_an_image_is_named_by_its_place_where_no_name_can_be_had(server, many, tmp_path):
    (serve_another_build(server, many, tmp_path) / "train-00003.idx").unlink()
    with pytest.raises(UserError, match=r"train-00003\.tar: the image of sample \d+, counted from the first, has changed"):
        steps(opened(f"{server.url}/set", tmp_path / "cache"), 30)


def test_a_process_that_fetches_and_stands_still_is_waited_for_so_long(server, tmp_path, monkeypatch):
    """As one that was stopped does: it keeps the lock of what it had begun."""
    monkeypatch.setattr("amdim.pipeline.fetch_shard.PATIENCE", 0.5)
    loader = opened(f"{server.url}/set", tmp_path)
    begun = [loader.root.cache.begin(shard) for shard in loader.root.manifest.splits["train"].shards]
    with pytest.raises(UserError, match=r"\.part: another process fetches this and has written nothing for"):
        steps(loader, 1)
    assert all(begun)


def test_a_set_that_is_closed_leaves_no_thread(server, tmp_path):
    loader = opened(f"{server.url}/set", tmp_path)
    steps(loader, 3)
    thread = loader.root.fetcher.thread
    loader.root.close()
    assert not thread.is_alive()
    with pytest.raises(UserError, match="still to be read when the set was closed"):
        loader.root.open(loader.root.manifest.splits["train"].shards[0])


def test_a_set_whose_index_is_of_another_build_is_named(server, many, tmp_path):
    serve_another_build(server, many, tmp_path)
    expected = rf"^{server.url}/set/train-00003\.tar: the image of sample \d+ has changed since the set was built; run `python -m"
    with pytest.raises(UserError, match=expected):
        steps(opened(f"{server.url}/set", tmp_path / "cache"), 30)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB."""
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("mounting a small tmpfs takes root")
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_disk_that_others_fill(server, local, small_disk):
    """What of it is ours makes room for more; when nothing is left to remove, that is said."""
    url, cache = f"{server.url}/set", small_disk / "cache"
    loader = opened(url, cache, 3e-3)
    assert equal(steps(loader, 30), local[:30])
    loader.root.close()
    for path in sorted((cache / "shards").iterdir())[::6]:
        path.unlink()
    fill(small_disk)
    loader = opened(url, cache, 3e-3)
    assert equal(steps(loader, 30), local[:30])  # four shards come back, each in another's place
    loader.root.close()
    loader = opened(url, cache, 3e-3)
    for path in (cache / "shards").iterdir():
        path.unlink()
    fill(small_disk)
    with pytest.raises(UserError, match=rf"^{cache}: the disk is full, with .* MB wanted for a shard; free some"):
        steps(loader, 1)
    with pytest.raises(UsageError, match=r"cache: holds .* GB, and 0\.\d+ GB of shards are in use at a time"):
        opened(url, cache)


def fill(disk):
    with (disk / "others").open("ab") as file:
        os.posix_fallocate(file.fileno(), file.tell(), shutil.disk_usage(disk).free)


SECRETS = ("hush", "p%40ss", "p@ss", "c2lnbmF0dXJl")


def test_secrets_reach_the_server_and_nobody_else(server, many, local, tmp_path, capfd):
    from base64 import b64encode

    address = server.url.removeprefix("http://")
    for secret, url in {
        "Basic " + b64encode(b"hush:p@ss").decode(): f"http://hush:p%40ss@{address}/set",
        "sig=c2lnbmF0dXJl&x=%2F": f"http://{address}/set?sig=c2lnbmF0dXJl&x=%2F",
    }.items():
        server.secret = secret
        cache = tmp_path / str(len(secret))
        loader = opened(url, cache)
        assert equal(steps(loader, 2), local[:2])
        assert str(loader.root) == f"{server.url}/set"
        told = [repr(loader.state_dict()), repr(loader.root.endpoint.url), repr(vars(loader.root))]
        server.faults = {"dataset": repeat(endpoints.status(404))}
        for wrong in (url, url.replace("http:", "ftp:"), url.replace("/set", "/none"), url.replace("http://", "s3://")):
            with pytest.raises(UserError) as error:
                open_dataset(wrong, cache)
            told += [str(error.value), repr(error.value.__cause__), repr(error.value.__suppress_context__)]
        server.faults = {}
        with pytest.raises(UserError, match="access is denied") as error:
            open_dataset(f"{server.url}/set", cache)
        told += [str(error.value), *(path.name for path in cache.rglob("*"))]
        told += [path.read_bytes().decode(errors="ignore") for path in cache.rglob("*") if path.is_file()]
        assert not [(secret, text) for text in told for secret in SECRETS if secret in text]
    assert not capfd.readouterr().err


def test_masks_are_read_through_the_cache(server, many, tmp_path):
    from amdim.evaluation.segmentation.masks import read_masks

    remote = read_masks(open_dataset(f"{server.url}/set", tmp_path), "val", RECIPE)
    assert torch.equal(remote, read_masks(many, "val", RECIPE))
