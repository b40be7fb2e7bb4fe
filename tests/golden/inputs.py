"""Small inputs of every kind of source, made of integers, so that they are the same everywhere."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.shards import archives
from tests.shards.archives import jpeg, pixels, planes, tar_bytes

SCENES = {"a/abbey": 0, "y/yard": 204}


def write_inputs(home: Path) -> dict[str, list[str]]:
    """Write all inputs below ``home``; return the arguments of ``shards build`` by the name of a set."""
    folder(home / "folder")
    cifar10(home / "cifar10")
    stl10(home / "stl10")
    fashion_mnist(home / "fashion")
    places205(home / "places205")
    tars(home / "tars")
    archives.imagenet_archives(home / "archives")
    archives.imagenet_folders(home / "folders", nested=True)
    archives.imagenet_parquet(home / "parquet")
    return {
        "folder": ["folder", "--src", f"{home}/folder", "--val", "0.25"],
        "cifar10": ["cifar10", "--src", f"{home}/cifar10"],
        "stl10": ["stl10", "--src", f"{home}/stl10"],
        "fashion-mnist": ["fashion-mnist", "--src", f"{home}/fashion"],
        "places205": ["places205", "--src", f"{home}/places205"],
        "webdataset": ["webdataset", "--src", f"{home}/tars", "--rewrite"],
        "imagenet archives": ["imagenet", "--src", f"{home}/archives", "--size", "24"],
        "imagenet folders": ["imagenet", "--src", f"{home}/folders"],
        "imagenet parquet": ["imagenet", "--src", f"{home}/parquet"],
    }


def write(directory: Path, files: Iterable[tuple[str, bytes]]) -> None:
    for name, data in files:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def folder(src: Path) -> None:
    """Pictures of the modes that people have: colour, gray, 16 bits, transparency, a palette, turned by EXIF."""
    turned = Image.Exif()
    turned[274] = 6
    for number in range(6):
        color = Image.open(io.BytesIO(jpeg(number, 50 + number, 40)))
        deep = Image.fromarray(np.asarray(color.convert("L")).astype(np.uint16) * 200)
        files = {
            "color.jpg": jpeg(number, 300, 200),
            "gray.png": encoded(color.convert("L"), "PNG"),
            "deep.png": encoded(deep, "PNG"),
            "clear.png": encoded(color.convert("RGBA"), "PNG"),
            "palette.gif": encoded(color.quantize(32), "GIF"),
            "plain.tif": encoded(color, "TIFF"),
            "turned.jpg": encoded(color, "JPEG", exif=turned),
        }
        write(src, ((f"{'ab'[number % 2]}/{number}-{name}", data) for name, data in files.items()))


def cifar10(src: Path) -> None:
    def records(number: int) -> bytes:
        labels = (np.arange(8) + number) % 10
        return np.concatenate([labels[:, None].astype(np.uint8), planes(pixels(8, 32, number))], 1).tobytes()

    files = {f"data_batch_{number}.bin": records(number) for number in range(1, 6)} | {"test_batch.bin": records(9)}
    files["batches.meta.txt"] = "\n".join(f"class {number}" for number in range(10)).encode()
    packed = tar_bytes({f"cifar-10-batches-bin/{name}": data for name, data in files.items()})
    write(src, [("cifar-10-binary.tar.gz", gzip.compress(packed))])


def stl10(src: Path) -> None:
    for stem, count in {"train": 6, "test": 5, "unlabeled": 7}.items():
        write(src / "stl10_binary", [(f"{stem}_X.bin", pixels(count, 96, count).transpose(0, 3, 2, 1).tobytes())])
        if stem != "unlabeled":
            write(src / "stl10_binary", [(f"{stem}_y.bin", bytes(range(1, count + 1)))])
    write(src / "stl10_binary", [("class_names.txt", "\n".join(f"class{number}" for number in range(10)).encode())])


def fashion_mnist(src: Path) -> None:
    def idx(array: np.ndarray) -> bytes:
        return bytes((0, 0, 8, array.ndim)) + b"".join(size.to_bytes(4, "big") for size in array.shape) + array.tobytes()

    for stem, count in {"train": 12, "t10k": 5}.items():
        images = np.ascontiguousarray(pixels(count, 28, count)[..., 0])
        labels = (np.arange(count) % 10).astype(np.uint8)
        write(src, [(f"{stem}-images-idx3-ubyte", idx(images)), (f"{stem}-labels-idx1-ubyte", idx(labels))])


def places205(src: Path) -> None:
    for split in ("train", "val"):
        rows = [(f"{place}/{split}{n}.jpg", label, 50 * label + n) for place, label in SCENES.items() for n in range(4)]
        write(src, ((f"images256/{path}", jpeg(seed)) for path, _, seed in rows))
        write(src, [(f"{split}_places205.csv", "".join(f"{path} {label}\n" for path, label, _ in rows).encode())])


def tars(src: Path) -> None:
    def samples(numbers: range) -> dict[str, bytes]:
        files: dict[str, bytes] = {}
        for n in numbers:
            files |= {f"{n:04d}.jpg": jpeg(n), f"{n:04d}.json": json.dumps({"label": n % 3}).encode()}
        return files

    write(src, [("set-train-0.tar", tar_bytes(samples(range(8)))), ("set-val-0.tar", tar_bytes(samples(range(8, 12))))])
