"""The linear probe: multinomial logistic regression on standardised features.

L-BFGS on the whole training split has no learning rate and no order of samples. The weight of the L2 penalty is chosen on images
of the training split that were held out, along a path from heavy to light on which each solution starts the next. Features are
read in pieces, so that they may lie in a file that is larger than memory.

Shape letters: m rows of a piece, D features, C classes.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from amdim.evaluation.features import LabeledFeatures, Scaled, Scaler
from amdim.evaluation.probes.classification_metrics import Fitted
from amdim.evaluation.probes.stratified_subset import held_out
from amdim.evaluation.probes.whitening import Axes, survey

PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)  # heaviest first: each solution is a good start for the next
ITERATIONS = 100


def train_linear(train: LabeledFeatures, classes: int, device: torch.device) -> Fitted:
    """Trains on ``train`` with the penalty that does best on the part of it that was held out."""
    scale, axes = survey(train, device)
    penalty, start = choose_penalty(train, classes, device, scale, axes)
    weights = fit(start, Scaled(train, scale, device), penalty, axes)
    return Fitted(lambda x: logits(weights, scale(x)), {"penalty": penalty})


class Fold:
    """Training images, some of which are held out, and the weights (D + 1, C) that the path has come to."""

    def __init__(
        self, train: LabeledFeatures, held: Tensor, classes: int, device: torch.device, scale: Scaler, axes: Axes
    ) -> None:
        self.shown = Scaled(train.only(~held), scale, device)
        self.unseen = Scaled(train.only(held).centred(), scale, device)
        self.axes, self.weights = axes, torch.zeros(train.x.shape[2] + 1, classes, device=device)

    def go_on(self, penalty: float) -> float:
        """The cross-entropy of the held-out images with a new penalty: a sum over them."""
        self.weights = fit(self.weights, self.shown, penalty, self.axes)
        losses = [F.cross_entropy(logits(self.weights, x), y, reduction="sum") for x, y in self.unseen]
        return float(sum(losses))


def choose_penalty(train: LabeledFeatures, classes: int, device: torch.device, scale: Scaler, axes: Axes) -> tuple[float, Tensor]:
    """The first penalty beyond which held-out images lose, and weights to start from; lighter ones are not tried."""
    folds = [Fold(train, held, classes, device, scale, axes) for held in held_out(train.labels)]
    best, penalty, start = math.inf, PENALTIES[0], folds[0].weights
    for each in PENALTIES:
        loss = sum(fold.go_on(each) for fold in folds)
        if loss >= best:
            break
        best, penalty, start = loss, each, folds[0].weights
    return penalty, start


def fit(start: Tensor, train: Scaled, penalty: float, axes: Axes) -> Tensor:
    """Weights (D + 1, C), the bias in the last row, that minimise the mean cross-entropy + penalty / 2 |w|^2.

    Nearly dependent features cost L-BFGS hundreds of passes. It gets coordinates along the principal axes instead, each stretched
    as the loss is flat there (its second derivative is about variance / C + penalty); where the minimum is does not change, as no
    image has a part outside of the axes.
    """
    classes = start.shape[1]
    stretch = (axes.variance / classes + penalty).rsqrt()[:, None]
    free = torch.cat([axes.directions.T @ start[:-1] / stretch, start[-1:] / classes**0.5])
    solver = torch.optim.LBFGS(
        [free], max_iter=ITERATIONS, history_size=20, tolerance_grad=1e-6, tolerance_change=1e-7, line_search_fn="strong_wolfe"
    )

    def weights() -> Tensor:
        return torch.cat([axes.directions @ (stretch * free[:-1]), free[-1:] * classes**0.5])

    def loss() -> Tensor:
        value, gradient = objective(weights(), train, penalty)
        free.grad = torch.cat([stretch * (axes.directions.T @ gradient[:-1]), gradient[-1:] * classes**0.5])
        return value

    solver.step(loss)
    return weights()


def objective(weights: Tensor, train: Scaled, penalty: float) -> tuple[Tensor, Tensor]:
    """The loss and its gradient (D + 1, C): sums over pieces, of which one is in memory at a time."""
    gradient = torch.zeros_like(weights)
    total, n = torch.zeros((), dtype=torch.float64, device=weights.device), 0
    for x, y in train:
        likely = logits(weights, x).log_softmax(1)
        total -= likely.gather(1, y[:, None]).sum()
        error = likely.exp_()
        error[torch.arange(len(y), device=y.device), y] -= 1
        gradient[:-1].addmm_(x.T, error)
        gradient[-1] += error.sum(0)
        n += len(y)
    gradient /= n
    gradient[:-1] += penalty * weights[:-1]
    return (total / n).to(weights.dtype) + penalty / 2 * weights[:-1].square().sum(), gradient


def logits(weights: Tensor, x: Tensor) -> Tensor:
    return torch.addmm(weights[-1], x, weights[:-1])
