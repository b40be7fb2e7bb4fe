"""Probes that all ranks train in step on augmented views: the paper's protocol, and fine-tuning."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

from amdim.engine.distributed.dist_env import DistEnv
from amdim.engine.distributed.rank_coordinator import RankCoordinator
from amdim.engine.precision import Precision
from amdim.errors import UsageError, UserError
from amdim.evaluation.extract_features import BATCH, EvalData, extract, sweep
from amdim.evaluation.feature_cache import FeatureCache
from amdim.evaluation.feature_extractors import FeatureExtractor
from amdim.evaluation.features import collect, pixels, represent
from amdim.evaluation.probes import finetune, paper_protocol, supervised
from amdim.evaluation.run_probes import longer
from amdim.model import Encoder, EncoderConfig
from amdim.pipeline import RECIPES, TwoViewLoader
from amdim.pipeline.dataset import ShardedDataset
from tests.model.ranks import in_ranks

CPU, EXACT = torch.device("cpu"), Precision(None, "exact")
RECIPE = replace(RECIPES["cifar32"], crop="resized", area=(0.5, 1.0))
ALL = torch.ones(2, dtype=torch.bool)  # classes that have training images
PIXELS = FeatureExtractor("pixels", pixels, 3072, "")


def images(data, rank=0, world=1):
    return EvalData(ShardedDataset(data), RECIPE, DistEnv(rank, world, CPU, rank, world), RankCoordinator(), Console(quiet=True))


def features_of(encoder, seen):
    """r1 of the training images' centred views."""
    return collect(seen.loader("train"), represent(encoder, EXACT, CPU))


def paper_logits(data, world=1):
    """Of both classifiers after two epochs, on 5 images."""
    from amdim.model.collectives import rank

    seen = images(data, rank(), world)
    loader = supervised.training_views(seen, RECIPE, torch.ones(96, dtype=torch.bool), 32)
    found = paper_protocol.train_paper(seen, loader, [PIXELS], ["linear", "mlp"], 2, paper_protocol.length("x", 2), EXACT)
    x = torch.randn(5, 3072, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return torch.cat([found["pixels", name](x) for name in ("linear", "mlp")])


def tuned(data, world=1):
    """Scores and the loss's path are functions of the weights: these after one epoch, and logits of the test split."""
    from amdim.model.collectives import rank

    seen = images(data, rank(), world)
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(32, 4, 24, 1))
    loader = supervised.training_views(seen, RECIPE, torch.ones(96, dtype=torch.bool), 32)
    train = features_of(encoder, images(data)) if rank() == 0 else None
    model = finetune.fine_tune(seen, loader, encoder, 2, 1, 1e-3, EXACT, train)
    scores = finetune.test(seen, model, 2, EXACT, ALL, "val")
    return model.encoder.to_1[1].conv1.weight.detach(), scores


def both(data, world=1):
    return paper_logits(data, world), tuned(data, world)


@pytest.mark.long
def test_two_ranks_train_as_one_does(photo_set, tmp_path):
    logits, (weight, scores) = both(photo_set)
    assert scores.n == 24
    for theirs, (moved, told) in in_ranks(2, both, photo_set, 2, directory=tmp_path):  # rank 1 has no features
        torch.testing.assert_close(theirs, logits, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(moved, weight, rtol=1e-2, atol=1e-4)
        assert (told.n, told.top1) == (24, scores.top1)


def test_fine_tuning_moves_the_encoder_and_learns(photo_set):
    """The loss of the training images falls far below chance."""
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(32, 8, 48, 1, use_bn=True))
    before = encoder.to_7[0][0].weight.detach().clone()
    seen = images(photo_set)
    train = features_of(encoder, seen)
    loader = supervised.training_views(seen, finetune.gentle(RECIPE), torch.arange(96) < 32, 16)
    model = finetune.fine_tune(seen, loader, encoder, 2, 40, 3e-3, EXACT, train.only(torch.arange(32)))
    assert not torch.equal(encoder.to_7[0][0].weight, before)
    model.eval()
    with torch.no_grad():
        x, y = next(iter(seen.loader("train")))
        assert (model(x[:32]).argmax(1) == y[:32]).float().mean() > 0.9


def test_a_training_that_diverges_ends_where_its_loss_is_looked_at(photo_set, monkeypatch):
    monkeypatch.setattr(supervised, "EVERY", 0)
    seen = images(photo_set)
    loader = supervised.training_views(seen, RECIPE, torch.ones(96, dtype=torch.bool), 32)
    encoder = Encoder(EncoderConfig(32, 4, 24, 1))
    with pytest.raises(UserError, match=r"no number any more at step .* lower --finetune-lr"):
        finetune.fine_tune(seen, loader, encoder, 2, 100, 1e30, EXACT)


def test_the_classifier_sees_features_whose_coordinates_vary_alike(photo_set):
    """Those of r1 do not: a few directions vary thousands of times as much as others."""
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(32, 8, 48, 1, use_bn=True))
    features = features_of(encoder, images(photo_set))
    head = finetune.Whitened(48, 2)
    x = features.x[0]
    assert head(x).abs().max() == 0
    head.look(features, CPU)
    variance = torch.linalg.eigvalsh(((x - head.mean) @ head.whiten).T.cov())
    spread = torch.linalg.eigvalsh(x.T.cov())
    assert 0.5 < variance.max() < 1.1
    assert (variance > 0.3).sum() > 3 * (spread > 0.3 * spread.max()).sum()


def test_it_is_tuned_on_larger_boxes_and_true_colours():
    found = finetune.gentle(replace(RECIPE, area=(0.3, 1.0), policy="fast-autoaugment", lighting=0.1))
    assert (found.area, found.jitter_p, found.gray_p, found.policy, found.lighting) == ((0.5, 1.0), 0, 0, "none", 0)
    assert finetune.gentle(replace(RECIPE, area=(0.8, 0.9))).area == (0.8, 0.9)
    assert found.flip == RECIPE.flip


def test_a_sweep_gives_every_image_once_in_order(photo_set):
    loader = images(photo_set).loader("val")
    loader.batch = 10
    found = torch.cat([views[0][0] for _, views in sweep(loader, [PIXELS], RankCoordinator())])
    whole = torch.cat([pixels(x) for x, _ in images(photo_set).loader("val")])
    assert torch.equal(found, whole)
    assert BATCH > 24


def extracted(data, scratch, world=1):
    """Pixels of the centre and of 3 augmented views of each training image, by batches of 10: five rounds of two ranks."""
    from amdim.model.collectives import rank

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("amdim.evaluation.extract_features.BATCH", 10)
        seen = images(data, rank(), world)
        found = extract(seen, "train", [PIXELS], 3, FeatureCache(scratch / f"{world}-{rank()}", False))
    return [x.clone() for x in found]


def test_features_of_two_ranks_are_in_the_order_of_one(photo_set, tmp_path):
    (whole,) = extracted(photo_set, tmp_path)
    assert whole.shape == (4, 96, 3072)
    centred = torch.cat([pixels(x) for x, _ in images(photo_set).loader("train")])
    assert torch.equal(whole[0], centred.half())
    for view in (1, 2, 3):  # others than the centre and one another, and of the same image: nearest to it of all
        assert not any(torch.equal(whole[view], whole[other]) for other in range(view))
        near = torch.cdist(whole[view].float(), whole[0].float()).argmin(1) == torch.arange(96)
        assert near.float().mean() > 0.2  # by chance 0.01
    (first,), none = in_ranks(2, extracted, photo_set, tmp_path, 2, directory=tmp_path)
    assert none == []
    assert torch.equal(first, whole)


def test_tuned_logits_of_a_test_image_do_not_depend_on_the_others(photo_set, monkeypatch):
    """Also of an encoder that is still as training left it, with the batch's own statistics."""
    torch.manual_seed(0)
    model = finetune.FineTuned(Encoder(EncoderConfig(32, 8, 48, 1, use_bn=True)), 2).train()
    torch.nn.init.normal_(model.head.linear.weight)
    seen = []
    monkeypatch.setattr(finetune, "tally", lambda pieces, *_: seen.append(torch.cat([x for x, _ in pieces])))
    for batch in (24, 5):
        monkeypatch.setattr("amdim.evaluation.extract_features.BATCH", batch)
        model.train()
        finetune.test(images(photo_set), model, 2, EXACT, ALL, "val")
    assert seen[0].std() > 0.1
    torch.testing.assert_close(seen[1], seen[0], rtol=1e-4, atol=1e-4)


def test_a_paper_classifier_does_not_depend_on_those_beside_it(photo_set):
    """Kept baselines are not trained again, and the encoder's numbers are the same with and without them."""

    def weights(contenders, probes):
        seen = images(photo_set)
        loader = supervised.training_views(seen, RECIPE, torch.ones(96, dtype=torch.bool), 32)
        found = paper_protocol.train_paper(seen, loader, contenders, probes, 2, paper_protocol.length("x", 1), EXACT)
        return found["pixels", "mlp"].state_dict()

    with_others = weights([PIXELS._replace(name="others"), PIXELS], ["linear", "mlp"])
    alone = weights([PIXELS], ["mlp"])
    assert all(torch.equal(alone[name], with_others[name]) for name in alone)


def test_the_papers_classifiers_take_each_test_image_by_itself(photo_set):
    seen = images(photo_set)
    loader = supervised.training_views(seen, RECIPE, torch.ones(96, dtype=torch.bool), 32)
    found = paper_protocol.train_paper(seen, loader, [PIXELS], ["linear", "mlp"], 2, paper_protocol.length("x", 1), EXACT)
    x = torch.randn(6, 3072)
    with torch.no_grad():
        for classify in found.values():
            among_others = classify(torch.cat([x[:1], 5 + 3 * x[1:]]))[:1]
            torch.testing.assert_close(among_others, classify(x[:1]), rtol=1e-4, atol=1e-4)


def test_the_papers_classifiers_learn(photo_set):
    """To name the classes of the centres of images of which they saw other views."""
    seen = images(photo_set)
    loader = supervised.training_views(seen, RECIPE, torch.ones(96, dtype=torch.bool), 16)
    found = paper_protocol.train_paper(seen, loader, [PIXELS], ["linear", "mlp"], 2, paper_protocol.length("x", 40), EXACT)
    x, y = next(iter(seen.loader("train")))
    with torch.no_grad():
        for classify in found.values():
            assert (classify(pixels(x)).argmax(1) == y).float().mean() > 0.75


def test_the_papers_rate_rises_and_falls_at_the_milestones():
    rates = [paper_protocol.schedule((0.5, 0.75), step, 8000) for step in (0, 499, 3999, 4000, 5999, 6000, 7999)]
    assert rates == pytest.approx([1 / 500, 1, 1, 0.2, 0.2, 0.04, 0.04])
    assert paper_protocol.schedule((0.5, 0.75), 9, 100) == 1


def test_only_kept_images_are_drawn(photo_set):
    keep = np.arange(96) % 3 == 0
    loader = TwoViewLoader(photo_set, ["train"], RECIPE, 8, keep=keep)
    assert len(loader) == 4
    drawn = np.concatenate([loader.samples(0, step) for step in range(4)])
    assert sorted(drawn) == list(np.flatnonzero(keep))
    assert not np.array_equal(drawn, np.concatenate([loader.samples(1, step) for step in range(4)]))


def test_too_few_images_for_the_ranks_are_told(photo_set):
    with pytest.raises(UsageError, match="3 labelled training images are too few for 2 ranks"):
        supervised.training_views(images(photo_set, world=2), RECIPE, torch.arange(96) < 3, 32)


@pytest.mark.parametrize(("n", "batch"), [(96, 32), (64, 32), (63, 16), (48, 16), (16, 8)])
def test_few_images_are_the_same_batches_for_any_usual_number_of_ranks(photo_set, n, batch):
    assert {supervised.batch_for(images(photo_set, world=world), n, 32) for world in (1, 2, 4, 8)} == {batch}


def test_lengths_are_the_originals_and_shrink_less_than_labels():
    assert paper_protocol.length("cifar10", None) == (120, (80 / 120, 110 / 120))
    assert paper_protocol.length("imagenet", None).epochs == paper_protocol.length("mine", None).epochs == 30
    assert paper_protocol.length("places205", 3) == (3, (7 / 15, 12 / 15))
    assert longer(10, 0.01) == pytest.approx(100)


def test_fine_tuning_begins_and_ends_slowly():
    rates = [finetune.schedule(step, 100) for step in range(100)]
    assert max(rates) == pytest.approx(max(rates[8:12]))
    assert rates[0] < 0.2
    assert rates[-1] < 0.01


def test_logits_are_float32_whatever_the_encoder_computes_in():
    model = finetune.FineTuned(Encoder(EncoderConfig(32, 8, 48, 1)), 3).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert model(torch.randn(2, 3, 32, 32)).dtype == torch.float32
