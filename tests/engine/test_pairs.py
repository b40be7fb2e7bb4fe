"""The picture of pairs: which image lies where, and when it is drawn."""

import torch

from amdim.engine.monitor import view_grid


def test_pairs_stand_in_columns_with_their_own_colours():
    B, S = 10, 4
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.1, 0.3)
    true = torch.rand(2, B, 3, 1, 1).expand(2, B, 3, S, S)
    x1, x2 = (true - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    sheet = view_grid.picture(x1, x2, mean, std)
    assert sheet.shape == (3, 2 * S + view_grid.GAP, view_grid.SHOWN * (S + view_grid.GAP) - view_grid.GAP)
    for view in range(2):
        for image in range(view_grid.SHOWN):
            top, left = view * (S + view_grid.GAP), image * (S + view_grid.GAP)
            torch.testing.assert_close(sheet[:, top : top + S, left : left + S], true[view, image])
    assert (sheet[:, S : S + view_grid.GAP] == 1).all()


def test_what_is_out_of_range_is_cut_and_a_small_batch_is_enough():
    sheet = view_grid.picture(torch.full((2, 3, 4, 4), 9.0), torch.full((2, 3, 4, 4), -9.0).half(), (0.5,) * 3, (0.5,) * 3)
    assert sheet.shape == (3, 10, 10)
    assert (sheet[:, 0, 0] == 1).all()
    assert (sheet[:, -1, 0] == 0).all()


def test_when():
    assert view_grid.due(20, first=True)
    assert not view_grid.due(40, first=False)
    assert view_grid.due(2000, first=False)
