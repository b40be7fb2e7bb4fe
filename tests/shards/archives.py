"""Miniatures of published data sets, in exactly their layout."""

import csv
import gzip
import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.io
from PIL import Image

WNIDS = ("n01440764", "n01443537", "n02123045")
WORDS = {"n01440764": "tench, Tinca tinca", "n01443537": "goldfish, Carassius auratus", "n02123045": "tabby, tabby cat"}
# As in the real kit, the numbers of the classes do not follow the order of their wnids, and there are synsets above the classes.
IDS = {"n02123045": 1, "n01440764": 2, "n01443537": 3}
KIT = "ILSVRC2012_devkit_t12"


def jpeg(seed: int, width: int = 40, height: int = 30) -> bytes:
    """A smooth picture that differs from seed to seed."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


def tar_bytes(files: dict[str, bytes], format: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def imagenet_train(per_class: int = 6) -> dict[str, dict[str, bytes]]:
    """Images by wnid and file name."""
    return {
        wnid: {f"{wnid}_{number}.JPEG": jpeg(100 * place + number) for number in range(per_class)}
        for place, wnid in enumerate(WNIDS)
    }


def imagenet_val() -> dict[str, tuple[str, bytes]]:
    """Wnid and image by the stem of the file name."""
    return {f"ILSVRC2012_val_{n + 1:08d}": (WNIDS[(2 * n) % 3], jpeg(900 + n)) for n in range(6)}


def meta_mat() -> bytes:
    fields = ["ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height", "num_train_images"]
    rows = [(number, wnid, WORDS[wnid], "a thing", 0, np.zeros((1, 0)), 0, 1300) for wnid, number in IDS.items()]
    rows.append((4, "n00001740", "entity", "what there is", 3, np.array([[1, 2, 3]]), 18, 0))
    synsets = np.zeros((len(rows), 1), [(name, object) for name in fields])
    for place, row in enumerate(rows):
        synsets[place, 0] = row
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"synsets": synsets}, do_compression=True)
    return buffer.getvalue()


def devkit(**replaced: bytes) -> bytes:
    """The kit, gzipped; ``meta`` and ``truth`` replace its two files."""
    truth = "".join(f"{IDS[wnid]}\n" for wnid, _ in imagenet_val().values()).encode()
    files = {
        f"{KIT}/readme.txt": b"Introduction\n",
        f"{KIT}/data/ILSVRC2012_validation_ground_truth.txt": replaced.get("truth", truth),
        f"{KIT}/data/meta.mat": replaced.get("meta") or meta_mat(),
    }
    return gzip.compress(tar_bytes(files))


def imagenet_archives(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    inner = {f"{wnid}.tar": tar_bytes(files) for wnid, files in imagenet_train().items()}
    (root / "ILSVRC2012_img_train.tar").write_bytes(tar_bytes(inner))
    (root / "ILSVRC2012_img_val.tar").write_bytes(tar_bytes({f"{k}.JPEG": data for k, (_, data) in imagenet_val().items()}))
    (root / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(devkit())
    return root


def imagenet_folders(root: Path, nested: bool) -> Path:
    for wnid, files in imagenet_train().items():
        (root / "train" / wnid).mkdir(parents=True)
        for name, data in files.items():
            (root / "train" / wnid / name).write_bytes(data)
    for stem, (wnid, data) in imagenet_val().items():
        directory = root / "val" / wnid if nested else root / "val"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{stem}.JPEG").write_bytes(data)
    return root


def kaggle_tables(root: Path) -> None:
    with (root / "LOC_val_solution.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["ImageId", "PredictionString"])
        table.writerows((stem, f"{wnid} 10 20 300 400 ") for stem, (wnid, _) in reversed(imagenet_val().items()))
    (root / "LOC_synset_mapping.txt").write_text("".join(f"{wnid} {words}\n" for wnid, words in WORDS.items()))


def imagenet_parquet(root: Path, metadata: bool = True) -> Path:
    train = [(data, WNIDS.index(wnid), name) for wnid, files in imagenet_train().items() for name, data in files.items()]
    val = [(data, WNIDS.index(wnid), f"{stem}_{wnid}.JPEG") for stem, (wnid, data) in imagenet_val().items()]
    (root / "data").mkdir(parents=True, exist_ok=True)
    for name, rows in {
        "train-00000-of-00002": train[::2],
        "train-00001-of-00002": train[1::2],
        "validation-00000-of-00001": val,
    }.items():
        write_parquet(root / "data" / f"{name}.parquet", rows, metadata)
    write_parquet(root / "data/test-00000-of-00001.parquet", [(jpeg(5), -1, "test.JPEG")], metadata)
    return root


def write_parquet(path: Path, rows: list[tuple[bytes | None, int, str]], metadata: bool = True) -> None:
    names = [WORDS[wnid] for wnid in WNIDS]
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    schema = pa.schema(
        [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())],
        {"huggingface": json.dumps({"info": {"features": features}})} if metadata else None,
    )
    images, labels, names = zip(*rows, strict=True)
    columns = [[{"bytes": data, "path": name} for data, name in zip(images, names, strict=True)], labels]
    pq.write_table(pa.table(columns, schema=schema), path, row_group_size=4)


def pixels(count: int, side: int, seed: int) -> np.ndarray:
    """(count, side, side, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


def planes(images: np.ndarray) -> np.ndarray:
    """(count, 3 · side²): red before green before blue, row by row."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)


class Python2Pickler(pickle._Pickler):
    """Writes what Python 2's cPickle wrote: its text is bytes."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_string(self, value: bytes | str) -> None:
        data = value.encode() if isinstance(value, str) else value
        self.write(pickle.BINSTRING + len(data).to_bytes(4, "little") + data)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_string


def python2_pickle(value: object) -> bytes:
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
