"""ImageNet as published: a tar of 1,000 tars to train, a tar to validate, and the development kit with its labels.

A member of an inner tar is found by its offset in the outer file, so every image is one read at random, and nothing is unpacked.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import BinaryIO

from amdim.errors import UsageError, UserError
from amdim.shards.sample_list import Listing
from amdim.shards.sources.base import Encoding, Source
from amdim.shards.sources.folder import is_image, kind
from amdim.shards.sources.imagenet_devkit import KITS, Labels, read_devkit
from amdim.shards.sources.wnid_classes import WNID, Classes
from amdim.shards.tar_reader import Member, members, open_plain, read_span

TRAIN, VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
FILES = (TRAIN, VAL)
ELSEWHERE = "image-net.org has it for those who register"


def source(src: Path, encoding: Encoding) -> Source:
    """The three archives in ``src``; raises UsageError when one is missing, UserError when one is damaged."""
    if not (src / VAL).exists():
        raise UsageError(f"{src / VAL}: missing beside {TRAIN}; {ELSEWHERE}")
    kit = next((src / name for name in KITS if (src / name).exists()), None)
    if kit is None:
        raise UsageError(f"{src / KITS[0]}: missing beside {TRAIN}; {ELSEWHERE}")
    labels = read_devkit(kit)
    with open_plain(src / TRAIN) as file:
        inner = _inner(file, src / TRAIN)
        classes = Classes(inner, labels.names)
        train, ignored = _train(file, src / TRAIN, inner, classes)
    with open_plain(src / VAL) as file:
        val = _val(file, src / VAL, labels, classes)
    splits = {"train": train, "val": val}
    recipe = {"files": f"{train.fingerprint()} {val.fingerprint()}"}
    note = f"imagenet: recognised the official archives, {len(inner):,} classes; they are read in place"
    return Source("imagenet", classes.names, splits, partial(read_span, src, FILES), encoding, recipe, ignored, note)


def _inner(file: BinaryIO, path: Path) -> dict[str, Member]:
    """The inner archives by wnid."""
    found = {}
    for member in members(file, str(path)):
        wnid, _, rest = member.name.partition(".")
        if not WNID.fullmatch(wnid) or rest != "tar" or member.fault:
            raise UserError(f"{path}: holds {member.name!r}, where only archives such as n01440764.tar should be; fetch it again")
        found[wnid] = member
    return found


def _train(file: BinaryIO, path: Path, inner: dict[str, Member], classes: Classes) -> tuple[Listing, Counter[str]]:
    listing, ignored = Listing(width=3), Counter[str]()
    for wnid, outer in inner.items():
        label, _ = classes.label(wnid)
        for member in members(file, f"{path}, {outer.name}", outer.offset, outer.offset + outer.size):
            if member.fault or is_image(member.name):
                place = (FILES.index(TRAIN), member.offset, member.size)
                listing.add(f"train/{wnid}/{member.name}", label, place, member.fault)
            else:
                ignored[kind(member.name)] += 1
    return listing, ignored


def _val(file: BinaryIO, path: Path, labels: Labels, classes: Classes) -> Listing:
    """The validation images, and as faults the rows of the labels that have no image."""
    listing, missing = Listing(width=3), dict(labels.val)
    for member in members(file, str(path)):
        wnid = missing.pop(Path(member.name).stem, None)
        label, fault = classes.label(wnid)
        listing.add(f"val/{member.name}", label, (FILES.index(VAL), member.offset, member.size), member.fault or fault)
    for stem in missing:
        listing.add(f"val/{stem}", -1, (0, 0, 0), f"labelled, but not in {VAL}")
    return listing
