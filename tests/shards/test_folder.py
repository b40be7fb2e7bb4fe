"""One's own images: every layout, every kind of file, and nothing that is no image gets in."""

import json
import os
import struct
import tarfile
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from amdim.errors import UsageError, UserError
from amdim.shards import manifest
from amdim.shards.images.decode import decode, open_image
from amdim.shards.images.encode import store
from amdim.shards.sources import folder
from amdim.shards.sources.base import Encoding, Rejected

KEEP = Encoding(256, 90)
ORIENTATION = 0x0112


def picture(width=40, height=30, mode="RGB", seed=0) -> Image.Image:
    """Smooth enough to survive JPEG, and unlike its mirror images."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def put(root, *names, data=None):
    for seed, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if data is not None else encoded(picture(seed=seed), "JPEG"))


def listing(src, val=None, unlabeled=False, seed=0):
    source = folder.source(src, KEEP, seed, val, unlabeled)
    return source, {split: sorted((s.path, s.label) for s in samples) for split, samples in source.splits.items()}


def stored(directory, split="train"):
    """path → {suffix: contents}."""
    found = {}
    for shard in manifest.load(directory).splits[split].shards:
        with tarfile.open(directory / shard.file) as archive:
            files = {member.name: archive.extractfile(member).read() for member in archive}
        for name, data in files.items():
            found.setdefault(json.loads(files[f"{name[:9]}.json"])["path"], {})[name[10:]] = data
    return found


def test_class_directories_with_a_part_set_apart(tmp_path):
    names = [f"{name}/{i}.jpg" for name in ("dog", "cat") for i in range(20)]
    put(tmp_path, *names)
    source, splits = listing(tmp_path)
    assert source.classes == ("cat", "dog")
    assert [sum(path.startswith(name) for path, _ in splits["val"]) for name in ("cat", "dog")] == [2, 2]
    assert sorted(splits["train"] + splits["val"]) == sorted((name, int(name.startswith("dog"))) for name in names)
    assert listing(tmp_path, seed=1)[1] != splits == listing(tmp_path)[1]
    assert "val" not in listing(tmp_path, val=0.0)[1]


@pytest.mark.parametrize("name", ["val", "valid", "validation", "test"])
def test_given_splits(tmp_path, name):
    put(tmp_path, "train/a/1.jpg", "train/b/deep/er/2.png", f"{name}/b/3.webp")
    source, splits = listing(tmp_path)
    assert source.classes == ("a", "b")
    assert splits == {"train": [("train/a/1.jpg", 0), ("train/b/deep/er/2.png", 1)], "val": [(f"{name}/b/3.webp", 1)]}
    with pytest.raises(UsageError, match="--val makes no sense"):
        listing(tmp_path, val=0.2)


def test_a_third_split_is_kept(tmp_path):
    put(tmp_path, "Train/a/1.jpg", "Validation/a/2.jpg", "testing/a/3.jpg", "testing/b/4.jpg")
    source, splits = listing(tmp_path)
    assert splits == {
        "train": [("Train/a/1.jpg", 0)],
        "val": [("Validation/a/2.jpg", 0)],
        "test": [("testing/a/3.jpg", 0), ("testing/b/4.jpg", 1)],
    }
    assert source.classes == ("a", "b")
    assert "b: in test only, with no image to train on" in source.note


SPELLINGS = [
    ("train", "val"),
    ("Training", "Testing"),
    ("TRAIN", "Test"),
    ("train_set", "test_set"),
    ("train2017", "val2017"),
    ("Train Images", "Validation Images"),
    ("trainset", "devset"),
    ("seg_train", "seg_test"),
]


@pytest.mark.parametrize(("train", "test"), SPELLINGS)
def test_splits_are_known_in_any_spelling(tmp_path, train, test):
    put(tmp_path, f"{train}/cat/1.jpg", f"{train}/dog/2.jpg", f"{test}/cat/3.jpg", "notes/plan.jpg")
    source, splits = listing(tmp_path)
    assert source.classes == ("cat", "dog")
    assert splits == {"train": [(f"{train}/cat/1.jpg", 0), (f"{train}/dog/2.jpg", 1)], "val": [(f"{test}/cat/3.jpg", 0)]}


def test_images_without_labels_are_a_split(tmp_path):
    put(tmp_path, "train/a/1.jpg", "test/a/2.jpg", "unlabeled/3.jpg", "unlabeled/x/4.jpg")
    source, splits = listing(tmp_path)
    assert source.classes == ("a",)
    assert splits["unlabeled"] == [("unlabeled/3.jpg", -1), ("unlabeled/x/4.jpg", -1)]


def test_a_class_of_trains_is_a_class(tmp_path):
    put(tmp_path, *(f"{name}/{i}.jpg" for name in ("bus", "train", "test", "car") for i in range(4)))
    source, splits = listing(tmp_path)
    assert source.classes == ("bus", "car", "test", "train")
    assert sorted(splits) == ["train", "val"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (("data/train/a/1.jpg", "data/val/a/2.jpg"), "its splits lie further down; give --src {src}/data"),
        (("x/data/Train/a/1.jpg", "x/data/Test/a/2.jpg"), "its splits lie further down; give --src {src}/x/data"),
        (("images/train/a/1.jpg", "images/test/a/2.jpg", "masks/1.jpg"), "further down; give --src {src}/images"),
        (("a/train/1.jpg", "a/test/2.jpg", "b/train/1.jpg", "b/test/2.jpg"), "a, b hold splits of their own; give one of"),
        (("train/a/1.jpg", "Train/b/1.jpg", "val/a/2.jpg"), "Train and train both mean the split train; join them"),
        (("train/a/1.jpg", "valid/b/1.jpg", "val/a/2.jpg"), "val and valid both mean the split val; join them"),
        (("Testing/a/1.jpg", "valid/a/2.jpg"), "holds Testing, valid but no train"),
        (("Training/a/1.jpg",), "holds Training but no val; with --src {src}/Training a part of it is set apart as val"),
        (("Testing/a/1.jpg", "cats/2.jpg"), "Testing holds directories and lies next to cats; if it is a split, give --src"),
        (("train/a/1.jpg", "test/2.jpg"), "no class directories below test; images without classes need --unlabeled"),
        (
            ("s_train/s_train/a/1.jpg", "s_test/s_test/a/1.jpg"),
            "s_test holds nothing but s_test/s_test; move what is in there",
        ),
    ],
)
def test_what_can_be_meant_in_two_ways_is_refused(tmp_path, files, words):
    put(tmp_path, *files)
    with pytest.raises(UsageError) as error:
        listing(tmp_path)
    assert words.format(src=tmp_path) in str(error.value)


def test_every_class_of_two_or_more_has_an_image_to_test_on(tmp_path):
    sizes = {"one": 1, "two": 2, "four": 4, "five": 5, "twenty": 20, "many": 47}
    put(tmp_path, *(f"{name}/{i}.jpg" for name, size in sizes.items() for i in range(size)), data=b"x")
    source, splits = listing(tmp_path)
    held_out = {name: sum(path.startswith(f"{name}/") for path, _ in splits["val"]) for name in sizes}
    assert held_out == {"one": 0, "two": 1, "four": 1, "five": 1, "twenty": 2, "many": 5}
    assert "one: 1 of 6 classes, without an image in val to test on" in source.note
    _, all_but_one = listing(tmp_path, val=0.99)
    assert len(all_but_one["train"]) == len(sizes)  # a class never loses its last image
    _, none = listing(tmp_path, val=0.0)
    assert sorted(none) == ["train"]


def test_train_alone_says_where_to_point(tmp_path):
    put(tmp_path, "train/a/1.jpg", "train/b/2.jpg")
    with pytest.raises(UsageError, match=f"--src {tmp_path}/train"):
        listing(tmp_path)


def test_a_split_to_test_on_alone_is_no_class(tmp_path):
    put(tmp_path, "val/a/1.jpg", "val/b/2.jpg")
    with pytest.raises(UsageError, match="holds val but no train"):
        listing(tmp_path)


def test_without_classes(tmp_path):
    put(tmp_path, "1.jpg", "x/2.jpg", "x/y/3.jpg", "x/y/4.jpg")
    source, splits = listing(tmp_path, unlabeled=True)
    assert source.classes == ()
    assert splits == {"train": [(name, -1) for name in ("1.jpg", "x/2.jpg", "x/y/3.jpg", "x/y/4.jpg")]}
    assert {split: len(samples) for split, samples in listing(tmp_path, unlabeled=True, val=0.25)[1].items()} == {
        "train": 3,
        "val": 1,
    }


def test_a_flat_directory_needs_unlabeled(tmp_path):
    put(tmp_path, "1.jpg", "2.jpg")
    with pytest.raises(UsageError, match="--unlabeled"):
        listing(tmp_path)


def test_given_splits_without_classes_need_unlabeled(tmp_path):
    put(tmp_path, "train/1.jpg", "val/2.jpg")
    with pytest.raises(UsageError, match="--unlabeled"):
        listing(tmp_path)


def test_no_images_and_no_directory(tmp_path):
    put(tmp_path, "a/notes.txt", data=b"")
    with pytest.raises(UsageError, match=r"no images in it \(of 1 files: \.txt 1\)"):
        listing(tmp_path)
    with pytest.raises(UsageError, match="no such directory"):
        listing(tmp_path / "none")


def test_hidden_files_are_passed_over_and_other_files_counted(tmp_path):
    put(tmp_path, "a/1.JPEG", "a/.2.jpg", ".git/a/3.jpg", "a/notes.txt", "a/film.mp4", "stray.jpg")
    source, splits = listing(tmp_path, val=0.0)
    assert splits == {"train": [("a/1.JPEG", 0)]}
    assert source.ignored == {".txt": 1, ".mp4": 1, "in no split": 1}
    assert "files (.mp4 1, .txt 1) have no image's name and are passed over, beside 1 images" in source.note


def test_the_kinds_of_files_without_a_single_image_are_told(tmp_path):
    put(tmp_path, *(f"a/{number}.HEIC" for number in range(3)), "a/README", "a/x.tar.1 of 2")
    with pytest.raises(UsageError, match=r"of 5 files: \.heic 3, without extension 2\)"):
        listing(tmp_path)


def test_links_are_followed_but_never_in_circles(tmp_path):
    put(tmp_path / "elsewhere", "1.jpg")
    put(tmp_path / "src", "a/2.jpg")
    (tmp_path / "src/a/back").symlink_to(tmp_path / "src")
    (tmp_path / "src/a/self").symlink_to(".")
    (tmp_path / "src/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "src/a/dead.jpg").symlink_to("nothing")
    (tmp_path / "src/a/loop.jpg").symlink_to("loop.jpg")
    os.mkfifo(tmp_path / "src/a/pipe.jpg")
    splits = listing(tmp_path / "src", val=0.0)[1]
    assert splits == {"train": [("a/2.jpg", 0), ("a/dead.jpg", 0), ("a/loop.jpg", 0), ("a/pipe.jpg", 0), ("b/1.jpg", 1)]}


KEPT = {
    "jpg": encoded(picture(), "JPEG"),
    "gray.jpg": encoded(picture(mode="L"), "JPEG"),
    "444.jpg": encoded(picture(), "JPEG", subsampling=0, quality=97),
    "exif upright.jpg": encoded(picture(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"),
    "png": encoded(picture(), "PNG"),
    "gray.png": encoded(picture(mode="L"), "PNG"),
    "webp": encoded(picture(), "WEBP"),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_needs_no_change_keeps_its_bytes(name):
    result = store(KEPT[name], KEEP)
    assert result.data == KEPT[name]
    assert result.suffix == name.rpartition(".")[2]
    assert (result.width, result.height) == (40, 30)


def grid(depth):
    return (np.arange(1200, dtype=np.float64).reshape(30, 40) / 1199 * (2**depth - 1)).astype(f"u{depth // 8}")


def over_white(image):
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")


def transparent(mode):
    image = picture(mode="RGBA")
    image.putalpha(Image.fromarray(grid(8)))
    return image if mode == "RGBA" else image.convert(mode)


def turned(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif.tobytes()


ROTATED = picture().transpose(Image.Transpose.ROTATE_90)
CHANGED = {
    "progressive": (encoded(picture(), "JPEG", progressive=True), picture()),
    "cmyk": (encoded(picture(mode="CMYK"), "JPEG"), picture()),
    "gif": (encoded(picture().quantize(), "GIF"), picture().quantize().convert("RGB")),
    "bmp": (encoded(picture(), "BMP"), picture()),
    "tiff": (encoded(picture(), "TIFF"), picture()),
    "palette": (encoded(picture().quantize(), "PNG"), picture().quantize().convert("RGB")),
    "bilevel": (encoded(picture(mode="1"), "PNG"), picture(mode="1").convert("L")),
    "rgba png": (encoded(transparent("RGBA"), "PNG"), over_white(transparent("RGBA"))),
    "rgba webp": (encoded(transparent("RGBA"), "WEBP", lossless=True), over_white(transparent("RGBA"))),
    "gray alpha": (encoded(transparent("LA"), "PNG"), over_white(transparent("LA"))),
    "colour key": (
        encoded(Image.new("RGB", (40, 30), "red"), "PNG", transparency=(255, 0, 0)),
        Image.new("RGB", (40, 30), "white"),
    ),
    "16 bit": (encoded(Image.fromarray(grid(16)), "PNG"), Image.fromarray(grid(8))),
    "16 bit tiff": (encoded(Image.fromarray(grid(16)), "TIFF"), Image.fromarray(grid(8))),
    **{f"exif {kind}": (encoded(ROTATED, kind, exif=turned(6), quality=95), picture()) for kind in ("JPEG", "PNG", "WEBP")},
}


@pytest.mark.parametrize("name", CHANGED)
def test_the_rest_becomes_an_upright_plain_baseline_jpeg(name):
    data, expected = CHANGED[name]
    result = store(data, KEEP)
    image = Image.open(BytesIO(result.data))
    assert (result.suffix, image.format) == ("jpg", "JPEG")
    assert "progressive" not in image.info
    assert ORIENTATION not in image.getexif()
    assert (result.width, result.height) == image.size == expected.size
    difference = np.abs(np.asarray(image.convert("RGB"), int) - np.asarray(expected.convert("RGB"), int))
    assert difference.mean() < 6


def test_size_0_keeps_what_dali_can_read():
    progressive = encoded(picture(900, 700), "JPEG", progressive=True)
    assert store(progressive, Encoding(0, 90)).data == progressive
    assert store(CHANGED["exif JPEG"][0], Encoding(0, 90)).data != CHANGED["exif JPEG"][0]


@pytest.mark.parametrize(("size", "expected"), [((900, 700), (329, 256)), ((300, 1000), (256, 853)), ((5000, 256), (5000, 256))])
def test_the_shorter_side_shrinks_to_size(size, expected):
    result = store(encoded(picture(*size), "PNG"), KEEP)
    assert decode(result.data).size == expected
    assert (result.width, result.height) == size


def test_chroma_is_subsampled_and_quality_heeded():
    data = encoded(picture(400, 300), "PNG")
    image = Image.open(BytesIO(store(data, KEEP).data))
    assert image.layer[0][1:3] == (2, 2)
    assert len(store(data, Encoding(256, 30)).data) < len(store(data, KEEP).data)


def bomb(side: int) -> bytes:
    """A PNG header that promises side² pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + b"\0\0\0\0IDAT5\xafN\x8c"
    )


HOSTILE = {
    "empty.jpg": (b"", "zero bytes"),
    "text.jpg": (b"not an image at all", "not an image"),
    "cut.jpg": (encoded(picture(300, 200), "JPEG")[:-500], "damaged"),
    "no end.jpg": (encoded(picture(300, 200), "JPEG")[:-2], "damaged"),
    "cut.png": (encoded(picture(300, 200), "PNG")[:-500], "damaged"),
    "flipped.png": (bytes(b ^ (i == 2000) for i, b in enumerate(encoded(picture(300, 200), "PNG"))), "damaged"),
    "cut.webp": (encoded(picture(300, 200), "WEBP")[:-300], "damaged"),
    "head only.jpg": (encoded(picture(), "JPEG")[:20], "not an image"),
    "bomb.png": (bomb(12_000), "too large"),
    "big bomb.png": (bomb(60_000), "too large"),
    "script.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
}


def test_hostile_files_are_rejected_each_with_its_reason(tmp_path, quietly):
    src, out = tmp_path / "src", tmp_path / "out"
    for name, (data, _) in HOSTILE.items():
        put(src, f"a/{name}", data=data)
    put(src, "a/good.jpg", "b/good.jpg")
    (src / "a/dead.jpg").symlink_to("nothing")
    source = folder.source(src, KEEP, 0, 0.0, unlabeled=False)
    built = quietly(source, out, max_rejected=1.0, workers=2)
    lines = [json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()]
    reasons = {line["path"].removeprefix("a/"): line["reason"] for line in lines}
    assert reasons.pop("dead.jpg") == "unreadable: No such file or directory"
    assert {name: reasons[name].partition(":")[0] for name in HOSTILE} == {name: reason for name, (_, reason) in HOSTILE.items()}
    assert stored(out).keys() == {"a/good.jpg", "b/good.jpg"}
    assert not any("0x" in reason for reason in reasons.values())
    assert built.manifest.splits["train"].samples + built.reasons.total() == len(source.splits["train"])


def test_a_bomb_is_refused_from_its_header():
    with pytest.raises(Rejected, match="too large"):
        open_image(bomb(10_001))
    assert open_image(bomb(10_000)).size == (10_000, 10_000)


def test_a_built_folder_holds_its_files(tmp_path, quietly):
    src, out = tmp_path / "src", tmp_path / "out"
    names = [f"{name}/{i}.jpg" for name in ("a", "b") for i in range(5)]
    put(src, *names)
    quietly(folder.source(src, KEEP, 0, 0.2, unlabeled=False), out)
    assert len(stored(out)) == 8
    for path, files in (stored(out) | stored(out, "val")).items():
        assert files["jpg"] == (src / path).read_bytes()
        assert files["cls"] == str("ab".index(path[0])).encode()
    (out2 := tmp_path / "out2").mkdir()
    quietly(folder.source(src, KEEP, 0, None, unlabeled=True), out2)
    assert all(files.keys() == {"jpg", "json"} for files in stored(out2).values())
    assert manifest.load(out2).splits["train"].labelled == 0


def test_one_bad_image_in_few_fails_the_build(tmp_path, quietly):
    put(tmp_path / "src", *(f"a/{i}.jpg" for i in range(20)))
    put(tmp_path / "src", "a/bad.jpg", data=b"bad")
    with pytest.raises(UserError, match="1 of 21 images are bad"):
        quietly(folder.source(tmp_path / "src", KEEP, 0, 0.0, unlabeled=False), tmp_path / "out", max_rejected=0.01)


def test_other_files_are_another_set(tmp_path):
    """So that a finished set is not taken for that of a folder which has changed; where the folder lies does not matter."""
    for root, extra in (("a", []), ("b", []), ("c", ["cat/9.jpg"])):
        put(tmp_path / root, "cat/0.jpg", "dog/0.jpg", *extra)
    first, same, other = (listing(tmp_path / root)[0].recipe["files"] for root in "abc")
    assert first == same != other
