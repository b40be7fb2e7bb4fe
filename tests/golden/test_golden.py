"""Shards, views, losses, weights and probe results are the numbers that were recorded."""

import json

from tests.golden.compare import FILE, differences
from tests.golden.measure import measured


def test_numbers_are_those_recorded(tmp_path):
    assert differences(json.loads(FILE.read_text()), measured(tmp_path)) == []
