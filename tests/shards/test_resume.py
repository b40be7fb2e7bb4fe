"""A build that was cut off, however it was, is finished by the same command and ends in the same bytes as one that was not."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from amdim.errors import UsageError, UserError
from amdim.shards import manifest
from amdim.shards.journal import Journal
from amdim.shards.sources import folder
from amdim.shards.sources.base import Encoding, Raw, Rejected, Sample, Source
from amdim.shards.worker_pool import Team

ROOT = Path(__file__).parents[2]
JOURNAL = manifest.UNFINISHED


def jpeg(seed, side=40):
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    buffer = BytesIO()
    Image.fromarray(pixels).resize((side + seed % 9, side), Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """1,000 pictures of two classes: eight shards to train on and one to validate, if a tenth is set apart."""
    root = tmp_path_factory.mktemp("photos")
    for name in ("cat", "dog"):
        (root / name).mkdir()
        for number in range(500):
            (root / name / f"{number}.jpg").write_bytes(jpeg(number))
    return root


def source_of(photos, size=32, seed=0):
    return folder.source(photos, Encoding(size, 90), seed, None, unlabeled=False)


@pytest.fixture(scope="module")
def undisturbed(photos, tmp_path_factory, quietly):
    out = tmp_path_factory.mktemp("sets") / "undisturbed"
    quietly(source_of(photos), out)
    return contents(out)


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def stop_at(count, done):
    if done >= count:
        raise KeyboardInterrupt


def cut_off(quietly, photos, out, at=500):
    with pytest.raises(KeyboardInterrupt):
        quietly(source_of(photos), out, show=partial(stop_at, at))
    return {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}


def test_finished_shards_are_kept_and_the_end_is_the_same(photos, undisturbed, tmp_path, quietly):
    kept = cut_off(quietly, photos, tmp_path)
    assert 2 <= len(kept) < 8
    assert quietly(source_of(photos), tmp_path, workers=2).fresh
    assert contents(tmp_path) == undisturbed
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in kept} == kept


@pytest.mark.parametrize("suffix", [".tar", ".idx", ".npy"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "missing"])
def test_a_finished_shard_that_was_damaged_since_is_made_again(photos, undisturbed, tmp_path, quietly, suffix, damage):
    cut_off(quietly, photos, tmp_path)
    path = tmp_path / f"train-00001{suffix}"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    if damage != "missing":
        path.write_bytes(data if damage == "flipped" else data[:-1])
    quietly(source_of(photos), tmp_path)
    assert contents(tmp_path) == undisturbed


def test_a_line_that_was_cut_off_costs_its_shard_only(photos, undisturbed, tmp_path, quietly):
    cut_off(quietly, photos, tmp_path)
    journal = tmp_path / JOURNAL
    journal.write_bytes(journal.read_bytes()[:-200])
    quietly(source_of(photos), tmp_path)
    assert contents(tmp_path) == undisturbed


def test_a_journal_that_is_none_means_to_start_anew(photos, undisturbed, tmp_path, quietly):
    cut_off(quietly, photos, tmp_path)
    (tmp_path / JOURNAL).write_bytes(b"garbage\n")
    quietly(source_of(photos), tmp_path)
    assert contents(tmp_path) == undisturbed


def test_a_finished_set_loses_a_journal_that_was_left(photos, undisturbed, tmp_path, quietly):
    """As when the power goes between the last two steps."""
    quietly(source_of(photos), tmp_path)
    (tmp_path / JOURNAL).write_bytes(b"{}\n")
    assert not quietly(source_of(photos), tmp_path).fresh
    assert contents(tmp_path) == undisturbed


def test_other_options_or_input_are_refused_with_both_ways_out(photos, tmp_path, quietly, monkeypatch):
    src, out = shutil.copytree(photos, tmp_path / "src"), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        quietly(source_of(src), out, show=partial(stop_at, 500), src=src)
    with pytest.raises(UsageError, match=rf"size 32 → 24.*finish it with `make shards DATA=folder SRC={src} .*anew.*--overwrite"):
        quietly(source_of(src, size=24), out, src=src)
    with monkeypatch.context() as changed:
        changed.setattr("amdim.shards.build.version", lambda _: "0.1")
        with pytest.raises(UsageError, match=r"pillow .* → 0\.1"):
            quietly(source_of(src), out)
    (src / "cat/0.jpg").write_bytes(jpeg(7, 50))
    with pytest.raises(UsageError, match=r"files .* → "):
        quietly(source_of(src), out)
    with pytest.raises(UsageError, match=f"unfinished; make it with `make shards DATA=folder SRC={src} OUT={out}"):
        manifest.load(out)
    assert quietly(source_of(src), out, overwrite=True).fresh


def test_a_build_that_replaces_a_set_goes_on_with_the_same_command(photos, undisturbed, tmp_path, quietly):
    quietly(source_of(photos, size=24), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        quietly(source_of(photos), tmp_path, show=partial(stop_at, 500), overwrite=True)
    done = Journal(tmp_path).done
    assert done
    written = {name: (tmp_path / f"{name}.tar").stat().st_mtime_ns for name in done}
    assert quietly(source_of(photos), tmp_path, overwrite=True).fresh
    assert contents(tmp_path) == undisturbed
    assert {name: (tmp_path / f"{name}.tar").stat().st_mtime_ns for name in done} == written
    assert quietly(source_of(photos), tmp_path, overwrite=True).fresh, "a finished set is built anew"
    assert (tmp_path / f"{min(done)}.tar").stat().st_mtime_ns != written[min(done)]


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOMEM, errno.EMFILE])
def test_a_disk_that_fails_for_a_while_costs_no_image(photos, undisturbed, tmp_path, quietly, monkeypatch, number):
    def fail(path, flags):
        raise OSError(number, os.strerror(number), path)

    with monkeypatch.context() as failing:
        failing.setattr("amdim.shards.sources.folder._open_at_once", fail)
        with pytest.raises(UserError, match=r"cannot be read .*type the same again"):
            quietly(source_of(photos), tmp_path)
    quietly(source_of(photos), tmp_path)
    assert contents(tmp_path) == undisturbed


def test_a_source_that_is_gone_is_no_reason_to_reject_its_images(photos, tmp_path, quietly):
    src = shutil.copytree(photos, tmp_path / "src")
    source = source_of(src)
    shutil.rmtree(src)
    src.mkdir()
    with pytest.raises(UserError, match="cannot be read"):
        quietly(source, tmp_path / "out")


def one_bad(sample: Sample) -> Raw:
    if sample.path == "3":
        raise Rejected("bad: on purpose")
    return Raw(jpeg(int(sample.path)))


def test_allowing_more_bad_images_finishes_what_was_refused(tmp_path, quietly):
    source = Source("made", ("a",), {"train": [Sample(str(i), 0) for i in range(20)]}, one_bad, Encoding(0, 90))
    with pytest.raises(UserError, match="1 of 20 images are bad"):
        quietly(source, tmp_path)
    written = (tmp_path / "train-00000.tar").stat().st_mtime_ns
    assert quietly(source, tmp_path, max_rejected=0.1).reasons == {"bad": 1}
    assert (tmp_path / "train-00000.tar").stat().st_mtime_ns == written
    assert json.loads((tmp_path / "rejected.jsonl").read_text()) == {"path": "3", "reason": "bad: on purpose"}


def test_any_executor_gives_the_same_bytes(photos, undisturbed, tmp_path, quietly):
    done = []
    with ThreadPoolExecutor(3) as executor:
        quietly(source_of(photos), tmp_path, workers=Team(executor, 3), show=done.append)
    assert contents(tmp_path) == undisturbed
    assert done[-1] == 1000


def test_a_dask_cluster_gives_the_same_bytes(photos, undisturbed, tmp_path, cli, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=str(tmp_path / "scratch")
    ) as cluster:
        arguments = ("folder", "--src", photos, "--size", 32, "--out", tmp_path / "out", "--dask", cluster.scheduler_address)
        outcome = cli("build", *arguments)
    assert outcome.code == 0, outcome.err
    assert contents(tmp_path / "out") == undisturbed


def test_a_cluster_that_is_not_there_is_told_in_one_line(photos, tmp_path, cli, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("amdim.shards.dask_workers.PATIENCE", 0.3)
    outcome = cli("build", "folder", "--src", photos, "--out", tmp_path, "--dask", "tcp://127.0.0.1:9")
    assert (outcome.code, outcome.err.count("\n")) == (1, 1), outcome.err
    assert "no Dask scheduler answers" in outcome.err


def start(photos, out, workers):
    words = ["build", "folder", "--src", photos, "--size", "32", "--out", out, "--workers", str(workers)]
    return subprocess.Popen(
        [sys.executable, "-m", "shards", *map(str, words)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def kill_at_random(photos, out, kills):
    """Kills builds after random times, the parent alone or with all its workers, until so many were killed at work."""
    rng = random.Random(0)
    hits = 0
    while hits < kills:
        if (out / manifest.FILE).exists():  # it was done before it was hit
            shutil.rmtree(out)
        build = start(photos, out, workers=1 + hits % 2)
        wait_for(out / JOURNAL, build)
        time.sleep(rng.uniform(0, 0.6))
        if build.poll() is None:
            (os.kill if hits % 3 else os.killpg)(build.pid, signal.SIGKILL)
            hits += 1
        _, errors = build.communicate()
        assert build.returncode in (0, -signal.SIGKILL), errors.decode()


def wait_for(path, build):
    while build.poll() is None and not path.exists():
        time.sleep(0.01)


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.long)])
def test_kill_9_at_random_moments(photos, undisturbed, tmp_path, kills):
    out = tmp_path / "set"
    kill_at_random(photos, out, kills)
    build = start(photos, out, workers=2)
    _, errors = build.communicate()
    assert build.returncode == 0, errors.decode()
    assert contents(out) == undisturbed


def children(pid):
    return [int(found) for found in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_workers_end_with_a_parent_that_was_killed(photos, tmp_path):
    build = start(photos, tmp_path, workers=2)
    wait_for(tmp_path / "train-00000.tar", build)
    workers = children(build.pid)
    build.kill()
    build.communicate()
    assert workers
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{worker}/exe").exists() for worker in workers):
        assert time.monotonic() < deadline, "a worker lives on"
        time.sleep(0.05)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own with room for half of the set."""
    where = tmp_path / "disk"
    where.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1600k", "none", where], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no small file system can be mounted here: {made.stderr.strip()}")
    yield where
    subprocess.run(["umount", where], check=True)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_one_line_and_nothing_broken_is_left(photos, undisturbed, small_disk, cli, workers, monkeypatch):
    monkeypatch.setattr("amdim.shards.build.check_space", lambda *_: None)  # which would have seen it coming
    out = small_disk / "set"
    arguments = ("build", "folder", "--src", photos, "--size", 32, "--out", out, "--workers", workers)
    outcome = cli(*arguments)
    assert (outcome.code, outcome.err.count("\n")) == (1, 1), outcome.err
    assert "the disk is full" in outcome.err
    assert not (out / manifest.FILE).exists()
    assert not list(out.glob(".*.tmp"))
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    assert cli(*arguments).code == 0
    assert contents(out) == undisturbed


def test_too_small_a_disk_is_seen_before_the_work(photos, small_disk, cli):
    outcome = cli("build", "folder", "--src", photos, "--size", 32, "--out", small_disk / "set")
    assert outcome.code == 1
    assert "GB are free" in outcome.err
