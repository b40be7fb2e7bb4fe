"""The computed table of docs/scaling.md is what `bench.scaling` computes, and its counted bytes are the sizes of tensors."""

import re
from pathlib import Path

import pytest

from amdim.engine.presets import PRESETS
from bench import scaling

TEXT = (Path(__file__).parent.parent / "docs" / "scaling.md").read_text()
ROW = re.compile(
    r"^\| (imagenet-\w+) \| (\d) × 8 (\w+) \| ([\d.]+) \| ([\d,]+) MB \| ([\d,]+) \| (\d+) % \| (\w+) \| ([\d.]+) h \|$", re.M
)


def test_the_table_of_gpus_is_what_the_bench_computes():
    found = re.search(r"with ([\d,]+) images/s each", TEXT)
    assert found
    loader = float(found[1].replace(",", ""))
    rows = ROW.findall(TEXT)
    assert len(rows) == 3 * len(scaling.MACHINES)
    for name, nodes, chip, work, sent, rate, share, bound, hours in rows:
        machine = next(each for each in scaling.MACHINES if each.name == f"{nodes} x 8 {chip}")
        preset, W = PRESETS[name], 8 * machine.nodes
        images, efficiency, bounded = scaling.predicted(preset, machine, loader)
        tera = scaling.operations(preset, scaling.PER_RANK, W * scaling.PER_RANK) / 1e12
        moved = sum(scaling.wire(preset, W, scaling.PER_RANK)[:3]) / 1e6
        took = scaling.IMAGES * scaling.EPOCHS / images / 3600
        assert (work, sent, rate, share, bound, hours) == (
            f"{tera:.1f}", f"{moved:,.0f}", f"{images:,.0f}", f"{100 * efficiency:.0f}", bounded, f"{took:.1f}",
        ), (name, machine.name)  # fmt: skip


def test_bytes_by_the_sizes_of_tensors_are_those_of_the_docs():
    each = scaling.wire(PRESETS["demo"], 2, 32, classes=10)
    parts = [2 * part / 1e6 for part in (each.gradients, each.objective, each.statistics)]
    assert f"| of that gradients / sources and sums / statistics | {' / '.join(f'{part:.2f}' for part in parts)} |" in TEXT
    assert f"| by the sizes of tensors | {sum(parts):.2f} |" in TEXT


def test_a_ring_through_several_nodes_is_bound_by_the_slower_of_its_links():
    one, four = (scaling.Machine("x", nodes, 1e12, 8.0, 0.5, 1) for nodes in (1, 4))
    assert one.seconds(8 * scaling.LINK_SHARE) == pytest.approx(1)
    assert four.seconds(8 * scaling.LINK_SHARE) == pytest.approx(2)
