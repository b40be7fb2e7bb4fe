"""The linear probe: multinomial logistic regression on standardised features.

L-BFGS on the whole training split has no learning rate and no order of samples. The weight of the L2 penalty is chosen on a tenth
of the training split, along a path from heavy to light on which each solution starts the next; 60 iterations each.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from evaluation.features import Labelled, standardise

PENALTIES = (1e-2, 1e-3, 1e-4)  # heaviest first: each solution is a good start for the next
HELD_OUT = 10  # every tenth training sample chooses the penalty; samples are stored in random order
ITERATIONS = 60


def linear_top1(train: Labelled, test: Labelled, classes: int) -> float:
    """Accuracy on ``test`` of a linear classifier trained on ``train``, as a fraction."""
    x_train, x_test = standardise(train.x, test.x)
    penalty, start = choose_penalty(x_train, train.y, classes)
    return accuracy(fit(start, x_train, train.y, penalty), x_test, test.y)


def choose_penalty(x: Tensor, y: Tensor, classes: int) -> tuple[float, Tensor]:
    """The penalty that does best on the held-out tenth, and the weights (D + 1, classes) found with it."""
    held = torch.arange(len(x)) % HELD_OUT == 0
    weights, tried = torch.zeros(x.shape[1] + 1, classes), []
    for penalty in PENALTIES:
        weights = fit(weights, x[~held], y[~held], penalty)
        tried.append((accuracy(weights, x[held], y[held]), penalty, weights))
    _, penalty, weights = max(tried, key=lambda each: each[0])
    return penalty, weights


def fit(start: Tensor, x: Tensor, y: Tensor, penalty: float) -> Tensor:
    """Weights (D + 1, classes), the bias in the last row, that minimise the mean cross-entropy + penalty / 2 |w|^2."""
    weights = start.clone().requires_grad_()
    solver = torch.optim.LBFGS([weights], max_iter=ITERATIONS, history_size=10, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        value = F.cross_entropy(logits(weights, x), y) + penalty / 2 * weights[:-1].square().sum()
        value.backward()
        return value

    solver.step(loss)
    return weights.detach()


def logits(weights: Tensor, x: Tensor) -> Tensor:
    return torch.addmm(weights[-1], x, weights[:-1])


def accuracy(weights: Tensor, x: Tensor, y: Tensor) -> float:
    return (logits(weights, x).argmax(1) == y).float().mean().item()
