"""Odd and hostile images: each becomes a good sample or a line with its reason, and what is stored is what DALI shows."""

import os
import resource
import shutil
import tempfile
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from amdim.errors import UserError
from amdim.shards import build, manifest, verify
from amdim.shards.images import jpeg
from amdim.shards.images.dali_decoder import Decoder
from amdim.shards.images.decode import decode, open_image
from amdim.shards.images.encode import store
from amdim.shards.sources import folder
from amdim.shards.sources.base import Encoding, Rejected
from tests.shards import odd
from tests.shards.loading import rejected, stored

NOBODY = 65534
KEEP = Encoding(320, 90)


@pytest.fixture
def zoo(tmp_path):
    src = tmp_path / "src"
    (src / "animals").mkdir(parents=True)
    for files in (odd.BAD, odd.KEPT, odd.CHANGED):
        for name, (data, _) in files.items():
            (src / "animals" / name).write_bytes(data)
    return src


def built(quietly, src, out, **options):
    source = folder.source(src, KEEP, 0, 0.0, unlabeled=False)
    return source, quietly(source, out, max_rejected=1.0, **options)


def test_each_becomes_a_sample_or_a_line_with_its_reason(zoo, tmp_path, quietly):
    source, result = built(quietly, zoo, tmp_path / "out")
    reasons = {path.removeprefix("animals/"): reason.partition(":")[0] for path, reason in rejected(tmp_path / "out").items()}
    assert reasons == {name: reason for name, (_, reason) in odd.BAD.items()}
    accepted = stored(tmp_path / "out")
    assert {path.removeprefix("animals/") for path in accepted} == odd.KEPT.keys() | odd.CHANGED.keys()
    assert len(accepted) + result.reasons.total() == len(source.splits["train"])
    assert verify.verify(tmp_path / "out", result.manifest, fast=False, workers=1, show=lambda _: None) == []


@pytest.mark.parametrize("name", odd.KEPT)
def test_what_needs_no_change_keeps_its_bytes_under_its_true_name(name):
    data, suffix = odd.KEPT[name]
    result = store(data, KEEP)
    assert (result.data, result.suffix) == (data, suffix)
    np.testing.assert_array_equal(result.pixels, Image.open(BytesIO(data)))


@pytest.mark.parametrize("name", odd.CHANGED)
def test_the_rest_is_stored_as_a_plain_jpeg_of_the_same_picture(name):
    data, expected = odd.CHANGED[name]
    result = store(data, KEEP)
    image = decode(result.data)
    assert result.suffix == "jpg"
    assert jpeg.frame(result.data) in jpeg.BASELINE
    assert b"secret" not in result.data
    if expected is None:  # 16 bits, divided by 257
        expected = Image.fromarray(np.linspace(0, 255, 300 * 280).round().reshape(280, 300).astype(np.uint8))
    difference = np.abs(np.asarray(image.convert("RGB"), int) - np.asarray(expected.convert("RGB"), int))
    assert difference.mean() < 5


def test_pixels_are_pillows_bit_for_bit():
    for options in ({}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_blocks": 3}):
        for mode in ("RGB", "L"):
            data = odd.encoded(odd.picture(mode=mode), "JPEG", **options)
            np.testing.assert_array_equal(decode(data), Image.open(BytesIO(data)))


def test_a_large_photograph_shrinks_in_the_decoder_and_hardly_differs():
    data = odd.encoded(odd.picture(1600, 1200), "JPEG", quality=95)
    whole = Image.open(BytesIO(data)).resize((171, 128), Image.Resampling.BICUBIC)
    result = store(data, Encoding(128, 90)).pixels
    assert jpeg.decode(data, "RGB", 256).size == (400, 300)
    assert result.size == whole.size
    difference = np.abs(np.asarray(result, int) - np.asarray(whole, int))
    assert difference.max() <= 4
    assert difference.mean() < 0.5


def test_most_noise_in_a_scan_is_heard():
    """Not all of it can be: noise may be what another picture's scan looks like."""
    found = 0
    for seed in range(100):
        try:
            decode(odd.garbled(odd.JPEG, seed))
        except Rejected:
            found += 1
    assert found >= 80


def test_a_bomb_is_refused_from_its_header():
    data = odd.black_png(12_000)
    with pytest.raises(Rejected, match="too large"):
        open_image(data)


@pytest.mark.long
def test_a_bomb_of_60_000_pixels_a_side_takes_no_memory():
    data = odd.black_png(60_000)
    assert len(data) < 450_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Rejected, match="too large"):
        store(data, KEEP)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # kilobytes


def test_dali_sees_what_was_stored():
    for name, (data, _) in (odd.KEPT | odd.CHANGED).items():
        kept = store(data, KEEP).data
        Decoder().check(kept)
        assert open_image(kept).getexif().get(0x0112, 1) == 1, name


def put(root, *names):
    for seed, name in enumerate(names):
        path = os.fsencode(root) + b"/" + (name if isinstance(name, bytes) else name.encode())
        Path(os.fsdecode(path)).parent.mkdir(parents=True, exist_ok=True)
        Path(os.fsdecode(path)).write_bytes(odd.encoded(odd.picture(20, 20, seed=seed), "PNG"))


def test_files_that_change_while_a_set_is_built_are_rejected(tmp_path, quietly):
    put(tmp_path / "src", *(f"a/{name}.png" for name in ("good", "grows", "shrinks", "vanishes")))
    source = folder.source(tmp_path / "src", KEEP, 0, 0.0, unlabeled=False)
    a = tmp_path / "src/a"
    size = (a / "grows.png").stat().st_size
    (a / "grows.png").write_bytes((a / "grows.png").read_bytes() + b"more")
    (a / "shrinks.png").write_bytes(b"")
    (a / "vanishes.png").unlink()
    quietly(source, tmp_path / "out", max_rejected=1.0)
    reasons = rejected(tmp_path / "out")
    assert reasons.pop("a/grows.png") == f"changed: {size} bytes when it was listed, {size + 4} when it was read"
    assert reasons.pop("a/shrinks.png").startswith("changed: ")
    assert reasons == {"a/vanishes.png": "unreadable: No such file or directory"}


NAMES = (
    "a b/c d.png",
    "dots/a.b.c.png",
    "new\nline/x\ny.png",
    "ünï/çødé 猫.png",
    f"long/{'x' * 251}.png",
    b"latin-1 \xe9/\xff.png",
    "[bold]/{0}%s.png",
    "same/1.png",
    "same/1.PNG",
)


def test_any_name_comes_through_every_command(tmp_path, cli):
    put(tmp_path / "src", *NAMES)
    (tmp_path / "src/same/1.jpg").write_bytes(odd.JPEG)
    out = tmp_path / "out"
    outcome = cli("build", "folder", "--src", tmp_path / "src", "--out", out, "--val", 0, "--workers", 1)
    assert outcome.code == 0, outcome.err
    expected = {os.fsdecode(name if isinstance(name, bytes) else name.encode()) for name in NAMES} | {"same/1.jpg"}
    assert set(stored(out)) == expected
    for command in ("info", "verify", "preview"):
        outcome = cli(command, out)
        assert outcome.code == 0, outcome.err
    outcome.out.encode("utf-8")
    assert len(set(manifest.load(out).classes)) == 8


def test_links_pipes_and_devices(tmp_path, quietly):
    put(tmp_path / "src", "a/good.png")
    put(tmp_path / "elsewhere", "far.png")
    a = tmp_path / "src/a"
    (a / "out of the tree.png").symlink_to(tmp_path / "elsewhere/far.png")
    (a / "endless.png").symlink_to("/dev/zero")
    (a / "loop.png").symlink_to("loop.png")
    os.mkfifo(a / "pipe.png")
    built(quietly, tmp_path / "src", tmp_path / "out")
    assert set(stored(tmp_path / "out")) == {"a/good.png", "a/out of the tree.png"}
    assert rejected(tmp_path / "out") == {
        "a/endless.png": "not a regular file",
        "a/pipe.png": "not a regular file",
        "a/loop.png": "unreadable: Too many levels of symbolic links",
    }


def test_classes_without_images_are_told(tmp_path, cli):
    put(tmp_path / "src", "a/1.png", "a/2.png")
    (tmp_path / "src/empty").mkdir()
    outcome = cli("build", "folder", "--src", tmp_path / "src", "--out", tmp_path / "out", "--val", 0, "--workers", 1)
    assert "empty: without any image" in outcome.out
    assert manifest.load(tmp_path / "out").classes == ("a",)

    put(tmp_path / "two", "train/a/1.png", "val/a/2.png", "val/late/3.png")
    outcome = cli("build", "folder", "--src", tmp_path / "two", "--out", tmp_path / "out2", "--workers", 1)
    assert "late: in val only, with no image to train on" in outcome.out
    assert outcome.code == 0


@pytest.fixture
def home(monkeypatch, cli):
    """A directory that a user without rights can reach, with two classes; the test goes on as that user, as root reads all."""
    root = os.geteuid() == 0
    versions = build.tools()
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        # That user may not be able to read the packages: all that a build imports late is imported now.
        put(home / "before", "a/good.png", "b/good.png")
        assert cli("build", "folder", "--src", home / "before", "--out", home / "done", "--val", 0, "--workers", 1).code == 0
        monkeypatch.setattr(build, "tools", lambda: versions)
        home.chmod(0o755)
        put(home / "src", "a/good.png", "a/secret.png", "b/good.png")
        (home / "out").mkdir()
        shutil.chown(home / "out", NOBODY if root else None, None if root else os.getegid())
        (home / "src/a/secret.png").chmod(0)
        yield home


@contextmanager
def without_rights():
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)


def test_a_file_one_may_not_read_is_rejected(home, quietly):
    with without_rights():
        built(quietly, home / "src", home / "out/set")
    assert rejected(home / "out/set") == {"a/secret.png": "unreadable: Permission denied"}


def test_a_directory_one_may_not_read_stops_the_build(home, cli):
    """It may hold a whole class, so to leave it out would be a silent loss."""
    (home / "src/b").chmod(0)
    with without_rights():
        outcome = cli("build", "folder", "--src", home / "src", "--out", home / "out/set")
    (home / "src/b").chmod(0o755)
    assert outcome.code == 1
    assert outcome.err == f"shards: {home / 'src/b'}: Permission denied; name another place, or have its owner let you in\n"


@pytest.mark.parametrize("room", [True, False])
def test_memory_that_runs_out_is_the_images_fault_only_if_there_is_some(monkeypatch, room):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr("amdim.shards.images.decode.Image.open", fail)
    monkeypatch.setattr("amdim.shards.images.decode._room_for_an_image", lambda: room)
    error, words = (Rejected, "damaged: asks for more memory") if room else (UserError, "fewer --workers")
    with pytest.raises(error, match=words):
        decode(b"anything")


def test_a_tiff_whose_zero_is_white_is_turned_the_right_way_round():
    ramp = Image.fromarray(np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16))
    usual = store(odd.encoded(ramp, "TIFF"), KEEP).pixels
    inverted = store(odd.encoded(ramp, "TIFF", tiffinfo={262: 0}), KEEP).pixels
    np.testing.assert_array_equal(np.asarray(inverted), 255 - np.asarray(usual))


@pytest.mark.parametrize(("top", "dim"), [(4095, True), (60_000, False)])
def test_an_image_of_16_bits_that_uses_few_of_them_is_told(tmp_path, quietly, top, dim):
    (tmp_path / "src/a").mkdir(parents=True)
    for number in range(3):
        pixels = Image.fromarray(np.linspace(0, top, 64 * 64).reshape(64, 64).astype(np.uint16))
        (tmp_path / f"src/a/{number}.tif").write_bytes(odd.encoded(pixels, "TIFF"))
    _, result = built(quietly, tmp_path / "src", tmp_path / "out")
    assert result.dim == 3 * dim
