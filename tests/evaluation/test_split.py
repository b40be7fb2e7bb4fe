"""Which training images a probe is shown."""

import torch

from amdim.evaluation.probes.stratified_subset import FEW, HELD_OUT, held_out, stratified_subset


def test_a_tenth_of_each_class_is_held_out():
    labels = torch.randint(0, 5, (FEW,), generator=torch.Generator().manual_seed(0))
    (mask,) = held_out(labels)
    assert mask.sum() == FEW // HELD_OUT
    for c in range(5):
        assert abs(mask[labels == c].float().mean() - 1 / HELD_OUT) < 0.01


def test_few_images_take_turns():
    masks = torch.stack(list(held_out(torch.arange(100) % 4)))
    assert masks.sum(0).max() == 1
    assert masks.sum(1).tolist() == [10] * 5


def test_few_labels_are_as_many_of_each_class():
    labels = torch.arange(1000) % 10
    chosen = stratified_subset(labels, 0.1)
    assert torch.bincount(labels[chosen]).tolist() == [10] * 10
    assert torch.equal(chosen, stratified_subset(labels, 0.1))
    assert set(stratified_subset(labels, 0.01).tolist()) < set(chosen.tolist())


def test_a_rare_class_gives_what_it_has_and_none_is_left_out():
    labels = torch.tensor([0] * 990 + [1] * 10)
    assert torch.bincount(labels[stratified_subset(labels, 0.5)]).tolist() == [250, 10]
    assert torch.bincount(labels[stratified_subset(labels, 0.0001)]).tolist() == [1, 1]


def test_names_without_an_image_take_no_share():
    """Sparse ids, as of tars without a list of classes."""
    labels = torch.tensor([3, 700]).repeat(500)
    assert len(stratified_subset(labels, 0.1)) == 100
    assert len(stratified_subset(labels[:0], 0.1)) == 0
