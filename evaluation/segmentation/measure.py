"""Emergent segmentation, measured: the mixture's posterior against masks that training never saw, beside baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from amdim.engine import runs
from amdim.engine.checkpoint import Checkpoint
from amdim.engine.precision import Precision
from amdim.errors import UsageError, UserError
from amdim.evaluation.feature_extractors import trained
from amdim.evaluation.features import ready
from amdim.evaluation.segmentation.masks import SIDE, read_masks
from amdim.evaluation.segmentation.receptive_field import FIELDS, Field, upsample
from amdim.evaluation.segmentation.segmentation_metrics import Overlap, best_iou, choose_foreground, iou, join, overlap
from amdim.evaluation.segmentation.segmenters import Seen, Segmenter, segmenters
from amdim.model.encoder import Encoder
from amdim.model.mixture import Mixture
from amdim.model.multiscale_nce import locations_of
from amdim.pipeline import EvalLoader
from amdim.pipeline.augment.recipe_file import recipe_of
from amdim.pipeline.augment.recipes import Recipe
from amdim.pipeline.dataset import ShardedDataset

BANK = 2  # batches of 256 training images: negatives, and what clusters are fitted to
ASSIGN = 4  # more of them, whose masks say which components are foreground
SHOWN = 12  # images of the figure

Scores = dict[str, dict[str, float | None]]


class Segmentation(NamedTuple):
    """Scores by method, and the first images (n, 3, S, S), posteriors (n, K, SIDE, SIDE) and masks (n, SIDE, SIDE).

    ``train_scores`` are those of the training images that chose the foreground: what settings may be chosen by.
    """

    scores: Scores
    train_scores: Scores
    n_test: int
    n_train: int
    rgb: Tensor
    posterior: Tensor
    masks: Tensor


def segment(saved: Checkpoint, data: ShardedDataset, precision: Precision, device: torch.device) -> Segmentation:
    """Measures a run's mixture on the whole validation split.

    Raises:
        UsageError: the run was trained without mixture features, or the images have no masks, or nothing is in them.
    """
    settings = saved.config["settings"]
    recipe, field = recipe_of(saved.config), FIELDS[settings["encoder"]["size"]]
    masks, of_train = read_masks(data, "val", recipe), read_masks(data, "train", recipe, (BANK + ASSIGN) * 256)
    see = seer(saved, recipe, precision, device)
    train = list(islice(look(EvalLoader(data, ["train"], recipe, device=device), see), BANK + ASSIGN))
    bank = concatenate(train[:BANK])
    methods = segmenters(bank, field, settings["batch"], settings["clip"], settings["mixture_alpha"])
    # A set too small for batches beyond the bank lends the bank's own.
    assign, first = (train[BANK:], len(bank.rgb)) if len(train) > BANK else (train, 0)
    if not (masks.any() and of_train[first:].any()):
        raise UsageError(f"{data}: its masks are empty in the part of the images that evaluation sees")
    known = agreement(methods, assign, of_train[first:], field)
    test = EvalLoader(data, ["val"], recipe, device=device)
    found = agreement(methods, look(test, see), masks, field)
    scores, train_scores = (
        {name: score(each[name], known[name], by_image=name.endswith("by_image")) for name in methods} for each in (found, known)
    )
    shown = Seen(*(part[:SHOWN] for part in next(look(test, see))))
    posterior = lay_out(methods["mixture"](shown), shown, field)
    n_test, n_train = (len(each["mixture"].rand) for each in (found, known))
    return Segmentation(scores, train_scores, n_test, n_train, shown.rgb, posterior, masks[:SHOWN])


def seer(saved: Checkpoint, recipe: Recipe, precision: Precision, device: torch.device) -> Callable[[Tensor], Seen]:
    """The function from a batch of centred views to what segmentations read of it."""
    encoder, mixture = load(saved, device)
    mean, std = (torch.tensor(values)[:, None, None] for values in (recipe.mean, recipe.std))

    @torch.no_grad()
    def see(x: Tensor) -> Seen:
        with precision.autocast(device):
            features = encoder(x.to(device))
            sources = mixture(features.r1.flatten(1))
        if not all(each.isfinite().all() for each in (sources, features.r7)):
            raise UserError(f"{saved.path}: features are not finite; take an earlier --checkpoint")
        rgb = x.float().cpu() * std + mean
        return Seen(rgb, sources.float().cpu(), locations_of(features.r7).float().cpu())

    return see


def load(saved: Checkpoint, device: torch.device) -> tuple[Encoder, Mixture]:
    components = saved.config["settings"].get("mixture", 0)
    if not components:
        raise UsageError(f"{saved.path}: has no mixture features; train a run with `python train.py --mixture 2`")
    config = runs.encoder_config(saved.config)
    mixture = Mixture(config.embedding, components)
    encoder = trained(saved)
    prefix = "mixture."
    try:
        mixture.load_state_dict({k.removeprefix(prefix): v for k, v in saved.weights.items() if k.startswith(prefix)})
    except RuntimeError as error:
        raise UserError(f"{saved.path}: its mixture is not the one in its config.json; take another checkpoint") from error
    return ready(encoder, device), mixture.to(device)


def look(batches: Iterable[tuple[Tensor, Tensor]], see: Callable[[Tensor], Seen]) -> Iterator[Seen]:
    return (see(x) for x, _ in batches)


def concatenate(parts: list[Seen]) -> Seen:
    return Seen(*(torch.cat(column) for column in zip(*parts, strict=True)))


def agreement(methods: dict[str, Segmenter], images: Iterable[Seen], masks: Tensor, field: Field) -> dict[str, Overlap]:
    """What every method's components cover of every image's mask."""
    found: dict[str, list[Overlap]] = {name: [] for name in methods}
    done = 0
    for seen in images:
        own = masks[done : done + len(seen.rgb)]
        done += len(seen.rgb)
        for name, method in methods.items():
            maps = lay_out(method(seen), seen, field)
            found[name].append(overlap(maps.argmax(1), own, maps.shape[1]))
    return {name: join(parts) for name, parts in found.items()}


def lay_out(maps: Tensor, seen: Seen, field: Field) -> Tensor:
    """Memberships over the image, (n, K, SIDE, SIDE): of locations by their receptive fields, of pixels as they are."""
    size = seen.rgb.shape[-1]
    return upsample(maps, field if maps.shape[-1] < size else Field(1, 1, 0), size, SIDE)


def score(found: Overlap, known: Overlap, by_image: bool) -> dict[str, float | None]:
    """Means over images. ``iou_fixed`` is None for clusters of single images, which have no common meaning to fix."""
    fixed = None if by_image else iou(found, choose_foreground(known)).mean().item()
    return {"iou_best": best_iou(found).mean().item(), "iou_fixed": fixed, "ari": found.rand.mean().item()}
