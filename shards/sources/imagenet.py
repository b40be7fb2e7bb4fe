"""ImageNet (ILSVRC 2012): 1,281,167 images to train, 50,000 to validate, 1,000 classes in the order of their sorted wnids.

What lies in ``--src`` is recognised: the three official archives, which are read in place; extracted folders, with validation
images in class folders or flat beside the development kit or Kaggle's table; or Hugging Face's parquet files.
"""

from __future__ import annotations

from pathlib import Path

from amdim.errors import UsageError
from amdim.shards.sources import imagenet_archives, imagenet_folders, imagenet_parquet
from amdim.shards.sources.base import Encoding, Source


def source(src: Path, encoding: Encoding) -> Source:
    """The set in whichever form ``src`` has it; raises UsageError when it has none, or one without its labels."""
    if not src.is_dir():
        raise UsageError(f"{src}: no such directory; --src is the directory that holds ImageNet")
    train = imagenet_folders.find(src)
    whole = all((src / name).exists() for name in imagenet_archives.FILES)
    if whole or ((src / imagenet_archives.TRAIN).exists() and not train):  # without a part it names what is missing
        return imagenet_archives.source(src, encoding)
    if train:
        return imagenet_folders.source(src, train, encoding)
    if files := imagenet_parquet.find(src):
        return imagenet_parquet.source(src, files, encoding)
    raise UsageError(
        f"{src}: no ImageNet here; looked for {imagenet_archives.TRAIN} (archives), for train/n01440764/ and such, also below "
        "ILSVRC/Data/CLS-LOC (folders), and for data/train-*.parquet (Hugging Face)"
    )
