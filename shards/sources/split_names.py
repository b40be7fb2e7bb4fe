"""The words for the splits of a data set, in any spelling: ``Train``, ``training_set``, ``val2017``, ``Testing``."""

from __future__ import annotations

import re
from typing import NamedTuple

WORDS = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "validate", "dev", "eval"),
    "test": ("test", "testing", "tst"),
    "unlabeled": ("unlabeled", "unlabelled"),
}
SPLITS = tuple(WORDS)
SPLIT_OF = {word: split for split, words in WORDS.items() for word in words}
PATTERN = re.compile(
    rf"(?:(?P<prefix>.*?)[-_ .])?(?P<word>{'|'.join(sorted(SPLIT_OF, key=len, reverse=True))})"
    r"[-_ .]?(?:set|data|dataset|split|images?|imgs?|pics|pictures)?[-_ .]?\d{0,4}"
)


class SplitName(NamedTuple):
    """A split, and what stands before its word in a name: ``seg`` in ``seg_train``."""

    split: str
    prefix: str


def parse(name: str) -> SplitName | None:
    """Return the split that a directory's name means, None if it means none; files of tars are told by ``words_of``."""
    found = PATTERN.fullmatch(name.lower())
    return SplitName(SPLIT_OF[found["word"]], found["prefix"] or "") if found else None


def words_of(name: str) -> set[str]:
    """Return the splits whose words stand anywhere in a file's name: ``imagenet12k-validation-00`` is of ``val``."""
    return {SPLIT_OF[word] for word in re.split("[^a-z]+", name.lower()) if word in SPLIT_OF}
