"""The picture of pairs: which image lies where, and when it is drawn."""

import torch

from engine import pairs


def test_pairs_stand_in_columns_with_their_own_colours():
    B, S = 10, 4
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.1, 0.3)
    true = torch.rand(2, B, 3, 1, 1).expand(2, B, 3, S, S)
    x1, x2 = (true - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    sheet = pairs.picture(x1, x2, mean, std)
    assert sheet.shape == (3, 2 * S + pairs.GAP, pairs.SHOWN * (S + pairs.GAP) - pairs.GAP)
    for view in range(2):
        for image in range(pairs.SHOWN):
            top, left = view * (S + pairs.GAP), image * (S + pairs.GAP)
            torch.testing.assert_close(sheet[:, top : top + S, left : left + S], true[view, image])
    assert (sheet[:, S : S + pairs.GAP] == 1).all()


def test_what_is_out_of_range_is_cut_and_a_small_batch_is_enough():
    sheet = pairs.picture(torch.full((2, 3, 4, 4), 9.0), torch.full((2, 3, 4, 4), -9.0).half(), (0.5,) * 3, (0.5,) * 3)
    assert sheet.shape == (3, 10, 10)
    assert (sheet[:, 0, 0] == 1).all()
    assert (sheet[:, -1, 0] == 0).all()


def test_when():
    assert pairs.due(20, first=True)
    assert not pairs.due(40, first=False)
    assert pairs.due(2000, first=False)
