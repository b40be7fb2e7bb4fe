"""Tar archives are read in place: every member where tarfile finds it, and no cut, lie or trick goes unnoticed."""

import gzip
import io
import tarfile

import pytest

from amdim.errors import UsageError, UserError
from amdim.shards.sources.base import Rejected
from amdim.shards.tar_reader import MAX_IMAGE, members, open_plain, read_bytes, small_files
from tests.shards.archives import tar_bytes

FILES = {"a.jpg": b"first", "b/" + "long" * 60 + ".jpg": b"x" * 600, "ü ü.jpg": b"", "c.jpg": b"y" * 512}
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def listed(data: bytes, start: int = 0, end: int | None = None):
    return list(members(io.BytesIO(data), "the.tar", start, end))


@pytest.mark.parametrize("name", FORMATS)
def test_members_lie_where_their_offsets_say(name):
    files = {key: data for key, data in FILES.items() if name != "ustar" or len(key) < 100}
    data = tar_bytes(files, FORMATS[name])
    assert {each.name: data[each.offset : each.offset + each.size] for each in listed(data)} == files
    assert not any(each.fault for each in listed(data))


def test_an_inner_archive_is_read_where_it_lies():
    inner = tar_bytes({"x.jpg": b"inside"})
    outer = tar_bytes({"one.tar": inner, "two.tar": tar_bytes({"y.jpg": b"other"})})
    one = listed(outer)[0]
    (found,) = listed(outer, one.offset, one.offset + one.size)
    assert outer[found.offset : found.offset + found.size] == b"inside"


def test_reading_contents_between_two_members_does_no_harm():
    file = io.BytesIO(tar_bytes(FILES))
    assert [file.read(each.size) for each in members(file, "the.tar")] == list(FILES.values())


@pytest.mark.parametrize("cut", range(0, 5120, 256))
def test_a_tar_cut_anywhere_is_refused(cut):
    whole = tar_bytes(FILES)
    end = max(each.offset + (each.size + 511) // 512 * 512 for each in listed(whole))
    for at in (cut - 1, cut, cut + 1):
        if at >= end + 512:  # the block of zeros that ends it is there
            assert len(listed(whole[:at])) == len(FILES)
        elif at >= 0:
            with pytest.raises(UserError, match=r"the\.tar: (cut short|damaged)"):
                listed(whole[:at])


def test_an_inner_tar_cut_short_does_not_run_into_its_neighbour():
    inner = tar_bytes({"x.jpg": b"inside"})
    outer = tar_bytes({"one.tar": inner[:1024], "two.tar": inner})
    one = listed(outer)[0]
    with pytest.raises(UserError, match="cut short"):
        listed(outer, one.offset, one.offset + one.size)


@pytest.mark.parametrize("byte", [0, 100, 124, 148, 156, 345])
def test_a_flipped_bit_in_any_header_is_noticed(byte):
    data = tar_bytes({"a.jpg": b"first", "b.jpg": b"second"})
    for header in (0, 1024):
        damaged = bytearray(data)
        damaged[header + byte] ^= 4
        with pytest.raises(UserError, match=r"the\.tar: "):
            listed(bytes(damaged))


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


ODD = [
    (special("link.jpg", tarfile.SYMTYPE, "/etc/passwd"), "a link"),
    (special("hard.jpg", tarfile.LNKTYPE, "../secret"), "a link"),
    (special("device.jpg", tarfile.CHRTYPE), "a device or pipe"),
    (special("disk.jpg", tarfile.BLKTYPE), "a device or pipe"),
    (special("pipe.jpg", tarfile.FIFOTYPE), "a device or pipe"),
    (special("sparse.jpg", tarfile.GNUTYPE_SPARSE), "a sparse file"),
    (tarfile.TarInfo("../out.jpg"), "a path that leads out"),
    (tarfile.TarInfo("a/../../out.jpg"), "a path that leads out"),
    (tarfile.TarInfo("/etc/out.jpg"), "a path that leads out"),
]


@pytest.mark.parametrize(("info", "fault"), ODD, ids=[info.name for info, _ in ODD])
def test_what_is_no_plain_file_below_the_root_is_a_fault(info, fault):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(special("directory", tarfile.DIRTYPE))
        archive.addfile(info)
        archive.addfile(tarfile.TarInfo("./good.jpg"))
    odd, good = listed(buffer.getvalue())
    assert odd.fault.startswith(fault)
    assert good[0::3] == ("good.jpg", "")


def header(name: str, kind: bytes, size: int) -> bytes:
    info = special(name, kind)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_long_header_that_claims_gigabytes_is_not_read(kind):
    with pytest.raises(UserError, match="a header of 8,589,934,592 bytes"):
        listed(header("x", kind, 2**33) + bytes(4096))


def test_headers_nested_without_end_are_refused():
    with pytest.raises(UserError, match="damaged"):
        listed(header("x", tarfile.GNUTYPE_LONGNAME, 0) * 5000)


def test_a_size_below_zero_is_refused():
    with pytest.raises(UserError, match="damaged"):
        listed(header("x.jpg", tarfile.REGTYPE, -1024) * 3)


def test_a_compressed_archive_says_how_to_make_it_readable(tmp_path):
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(tar_bytes(FILES)))
    with pytest.raises(UsageError, match=rf"`gunzip {tmp_path}/x\.tar\.gz` first"):
        open_plain(tmp_path / "x.tar.gz")


def test_small_files_of_an_archive_zipped_or_not(tmp_path):
    for data in (tar_bytes(FILES), gzip.compress(tar_bytes(FILES))):
        (tmp_path / "kit").write_bytes(data)
        assert small_files(tmp_path / "kit", 10**6) == FILES


def test_a_gzip_bomb_is_refused_at_its_limit(tmp_path):
    (tmp_path / "kit").write_bytes(gzip.compress(bytes(10**8)))
    with pytest.raises(UserError, match="unpacks to more than 1 MB"):
        small_files(tmp_path / "kit", 10**6)


@pytest.mark.parametrize("damage", [lambda data: data[:-30], lambda data: data[:40] + b"\xff" * 40 + data[80:]])
def test_a_damaged_gzip_file_is_told(tmp_path, damage):
    (tmp_path / "kit").write_bytes(damage(gzip.compress(tar_bytes({"a": bytes(range(256)) * 99}))))
    with pytest.raises(UserError, match="kit: damaged"):
        small_files(tmp_path / "kit", 10**6)


def test_spans_that_cannot_be_read_are_rejected(tmp_path):
    (tmp_path / "file").write_bytes(b"0123456789")
    assert read_bytes(tmp_path / "file", 3, 4) == b"3456"
    for place, reason in (((8, 4), "cut short"), ((0, MAX_IMAGE + 1), "too large")):
        with pytest.raises(Rejected, match=reason):
            read_bytes(tmp_path / "file", *place)
    with pytest.raises(UserError, match=r"none: cannot be read \(No such file.*type the same again"):
        read_bytes(tmp_path / "none", 0, 1)
