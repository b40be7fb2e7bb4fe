"""The report, as text and in a browser: all kinds of data, and runs that have come more or less far."""

import json
import os
import re
import shutil
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from amdim.engine import checkpoint, runs
from amdim.errors import UsageError, UserError
from amdim.evaluation.feature_extractors import weights_of
from amdim.evaluation.report.html import write_report
from amdim.evaluation.report.report_data import collect
from amdim.pipeline.dataset import ShardedDataset
from amdim.pipeline.remote_dataset import open_dataset
from tests import browser, endpoints
from tests.conftest import build
from tests.evaluation.made_run import make_run, result, row

CPU = torch.device("cpu")
LIMIT = 15e6  # bytes of a page
DOT = "return [...document.querySelectorAll('.map circle')].findIndex(d => d.classList.contains('on'))"


needs_browser = pytest.mark.skipif(browser.missing() is not None, reason=str(browser.missing()))


def page_of(run, data=None):
    text = write_report(run, data, CPU).read_text()
    assert len(text.encode()) < LIMIT
    assert not re.search(r"(?:src|href)=[\"'](?!data:|#)", text)
    return text


def sections(text):
    return re.findall(r'<section id="(\w+)"', text)


def folder(tmp_path, sizes, classes, *options):
    """Shards of noise, an image of each size in turn, of so many classes or of classes of those names."""
    rng, root = np.random.default_rng(0), tmp_path / "images"
    names = [f"class {number:04}" for number in range(classes)] if isinstance(classes, int) else classes
    for number, (width, height) in enumerate(sizes):
        place = root / names[number % len(names)]
        place.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
        coarse.resize((width, height)).save(place / f"{number}.jpg")
    build("folder", "--src", str(root), "--out", str(tmp_path / "set"), "--workers", "1", *options)
    return tmp_path / "set"


@pytest.fixture(scope="module")
def whole(photo_set, tmp_path_factory):
    """A finished run of two classes with a mixture and two probes, and its page."""
    run = make_run(tmp_path_factory.mktemp("runs") / "whole", photo_set, 2, mixture=2)
    own = weights_of(runs.newest_checkpoint(run))
    (run / "eval-linear.json").write_text(json.dumps(result("linear", ["cats", "dogs"], own, data=photo_set)))
    (run / "eval-knn.json").write_text(json.dumps(result("knn", ["cats", "dogs"], "others") | {"top1": 0.9}))
    return run, page_of(run)


def test_a_finished_run_has_every_section(whole):
    _, text = whole
    assert sections(text) == ["run", "curves", "probes", "pairs", "neighbours", "map", "scores", "segments", "slowest"]
    for words in (
        "70.00% (65.0–74.0)",
        "96 train, 24 val; 2 classes",
        "bfloat16",
        "cats taken for dogs",
        "90.00% (65.0–74.0) (on x",
        "untrained, with 7 labels",
    ):
        assert words in text
    assert text.count("not the weights of this report") == 1
    assert ">70.0%<" in text  # not what other weights reached on other data
    assert "Longest by compute" in text
    assert ">41–60</td>" in text  # the stretch that was slow
    assert all(re.search(r'alt="[^"]+"', tag) for tag in re.findall(r"<img [^>]*>", text))


def test_a_run_that_has_just_begun(photo_set, tmp_path):
    text = page_of(make_run(tmp_path / "young", photo_set, 2, saved=False, rows=False))
    assert sections(text) == ["run", "probes", "pairs"]
    assert "no checkpoint yet" in text
    assert "Nothing has been logged" in text


def test_a_run_whose_images_are_gone_or_were_never_there(photo_set, tmp_path):
    run = make_run(tmp_path / "moved", tmp_path / "gone", 2)
    assert sections(page_of(run)) == ["run", "curves", "probes", "slowest"]
    assert "neighbours" in sections(page_of(run, str(photo_set)))
    with pytest.raises(UsageError, match="nowhere"):
        write_report(run, str(tmp_path / "nowhere"), CPU)
    with pytest.raises(UsageError, match="no run here"):
        write_report(tmp_path, None, CPU)


def test_pictures_of_another_set_are_not_what_was_trained(photo_set, tmp_path):
    text = page_of(make_run(tmp_path / "run", "data/gone", 2), str(photo_set))
    assert "AMDIM on gone" in text
    assert f"The pictures are of {photo_set}. It was trained on gone." in text
    assert "96 train" not in text


def test_images_at_a_url_come_once(photo_set, tmp_path):
    with endpoints.serving(photo_set.parent) as server:
        run = make_run(tmp_path / "run", f"{server.url}/{photo_set.name}", 2)
        text = write_report(run, None, CPU, find=partial(open_dataset, cache_dir=tmp_path / "cache")).read_text()
        assert server.requests["train-00000.tar"] == server.requests["val-00000.tar"] == 1
    assert {"pairs", "neighbours", "map", "scores"} <= set(sections(text))
    away = make_run(tmp_path / "away", f"file-server://{server.server_port}/photos", 2)
    assert "its images are not here, so none are shown" in write_report(away, None, CPU).read_text()


def test_probes_that_are_all_of_other_weights_are_marked_with_their_confusion(photo_set, tmp_path):
    run = make_run(tmp_path / "run", photo_set, 2)
    (run / "eval-linear.json").write_text(json.dumps(result("linear", ["cats", "dogs"], "others")))
    text = page_of(run)
    assert "cats taken for dogs" in text
    assert text.count("not the weights of this report") == 4  # bars, confusion, the most frequent of it, and classes


def test_scores_of_parts_say_of_what_they_are(photo_set, tmp_path):
    run = make_run(tmp_path / "run", photo_set, 2, mixture=2)
    scores = {"methods": {"mixture": {"iou_best": 0.5, "iou_fixed": None, "ari": 0.25}}, "data": "data/shapes", "step": 50}
    for weights, stale in ((weights_of(runs.newest_checkpoint(run)), 0), ("others", 1)):
        (run / "eval-segment.json").write_text(json.dumps(scores | {"n_test": 7, "weights": weights}))
        text = page_of(run)
        assert "all 7 images with masks of shapes, step 50" in text
        assert text.count("not the weights of this report") == stale


def test_shards_that_cannot_be_read_cost_no_curves(photo_set, tmp_path, capsys):
    shutil.copytree(photo_set, tmp_path / "set")
    (tmp_path / "set" / "train-00000.tar").unlink()
    text = page_of(make_run(tmp_path / "run", tmp_path / "set", 2))
    assert "curves" in sections(text)
    assert "What would follow of images is missing" in text
    assert "train-00000.tar" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"train-00000\.tar"):
        page_of(tmp_path / "run", str(tmp_path / "set"))


def test_a_checkpoint_that_cannot_be_read_costs_no_curves(photo_set, tmp_path, capsys):
    run = make_run(tmp_path / "run", photo_set, 2)
    file = next((run / "checkpoints").glob("*/model.safetensors"))
    file.write_bytes(file.read_bytes()[:-1])
    text = page_of(run)
    assert sections(text) == ["run", "curves", "probes", "pairs", "slowest"]
    assert "none of its checkpoints can be read" in text
    assert "no checkpoint yet" not in text
    assert "is damaged" in capsys.readouterr().err


def test_a_term_that_is_not_trained_is_called_so(photo_set, tmp_path):
    rows = [json.dumps(row(step) | {"loss_mixture": 3.0}) for step in (20, 40)]
    for mode, name in (("replace", "1→7 (not trained)"), ("join", "1→7")):
        run = make_run(tmp_path / mode, photo_set, 2, mixture=2, mixture_mode=mode)
        (run / "metrics.jsonl").write_text("\n".join(rows))
        page = collect(run, None, CPU)
        assert [each for each, _ in page.charts[0].legend] == ["1→5", name, "5→5", "mixture"]


def test_no_labels_and_one_split(photos, tmp_path):
    build("folder", "--src", str(photos), "--out", str(tmp_path / "bare"), "--unlabeled", "--workers", "1")
    text = page_of(make_run(tmp_path / "run", tmp_path / "bare", 0))
    assert {"neighbours", "map", "scores"} <= set(sections(text))
    assert "no classes" in text
    assert "The vote" not in text
    assert "Online probes" not in text
    assert "these images have no labels to probe with" in text
    assert "--data LABELLED" in text


def test_few_large_images(tmp_path):
    data = folder(tmp_path, [(1500, 2000), (2400, 900)] * 4, 2, "--size", "0", "--val", "0.4")
    assert {"neighbours", "map", "scores"} <= set(sections(page_of(make_run(tmp_path / "run", data, 2))))


@pytest.fixture(scope="module")
def crowded(tmp_path_factory):
    """A run of a thousand classes of tiny images, and its page."""
    tmp_path = tmp_path_factory.mktemp("crowded")
    run = make_run(tmp_path / "run", folder(tmp_path, [(12, 9)] * 1000, 1000, "--val", "0.5"), 1000)
    classes = [f"class {number:04}" for number in range(1000)]
    (run / "eval-linear.json").write_text(json.dumps(result("linear", classes, table=False)))
    return run, page_of(run)


def test_a_thousand_classes_of_tiny_images(crowded):
    _, text = crowded
    assert "Map of 500 images" in text  # of ten classes there are too few
    assert 'class="key"' not in text
    assert "What is taken for what" not in text
    assert "Confused most" in text


@pytest.fixture(scope="module")
def awkward(tmp_path_factory):
    """A long and fast run on classes of awkward names, and its page."""
    tmp_path = tmp_path_factory.mktemp("awkward")
    names = ["<img src=x onerror=alert(1)>", "W" * 80, "漢字", os.fsdecode(b"caf\xe9")]
    data = folder(tmp_path, [(40, 30)] * 240, names, "--val", "0.5")
    run = make_run(tmp_path / "run", data, 4)
    rows = [row(20 * n, slow=400) | {"images_per_s": 12_345.0} for n in range(1, 1001)]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    classes = ShardedDataset(data).manifest.classes
    (run / "eval-linear.json").write_text(json.dumps(result("linear", classes)))
    return run, page_of(run)


def test_awkward_names_are_text(awkward):
    _, text = awkward
    assert "<img src=x" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    assert "漢字" in text
    assert "caf?" in text
    assert "<b>12,345</b>" in text


def test_features_that_are_not_numbers_are_not_shown(photo_set, tmp_path):
    run = make_run(tmp_path / "run", photo_set, 2)
    saved = checkpoint.load(run / "checkpoints" / "step-100")
    broken = {
        name: torch.full_like(each, torch.nan) if name == "encoder.to_7.0.0.bias" else each
        for name, each in saved.weights.items()
    }
    checkpoint.save(run / "checkpoints", 100, broken, saved.trainer, saved.config)
    assert "not finite" in page_of(run)


@needs_browser
def test_in_a_browser(whole, tmp_path):
    run, _ = whole
    with opened(run, tmp_path / "profile", pictures=100) as driver:
        check_hover(driver)
        check_reading(driver)
        paper = "return getComputedStyle(document.body).backgroundColor"
        light = driver.execute_script(paper), browser.shoot(driver, tmp_path / "light.png")
        browser.look(driver, 1280, 900, "dark")
        dark = driver.execute_script(paper), browser.shoot(driver, tmp_path / "dark.png")
        brightness = [np.asarray(Image.open(path).convert("L")).mean() for _, path in (light, dark)]
        assert light[0] != dark[0]
        assert brightness[0] > brightness[1] + 80
        check_phones(driver)


@needs_browser
def test_a_thousand_classes_on_a_phone(crowded, tmp_path):
    run, _ = crowded
    with opened(run, tmp_path / "profile", pictures=20) as driver:
        check_phones(driver)
        browser.shoot(driver, tmp_path / "phone.png")


@needs_browser
def test_awkward_names_on_a_phone(awkward, tmp_path):
    run, _ = awkward
    with opened(run, tmp_path / "profile", pictures=20) as driver:
        check_phones(driver)
        browser.look(driver, 390, 844, "light")
        check_keys(driver)
        browser.shoot(driver, tmp_path / "phone.png")


@contextmanager
def opened(run, profile, pictures):
    """Its page in a browser, with more than so many pictures on it; whatever is done there, the console stays empty."""
    with browser.browser(profile) as driver:
        assert open_page(driver, run) > pictures
        yield driver
        assert driver.get_log("browser") == []


def open_page(driver, run):
    """The number of pictures on it, all of which have loaded; nothing else was asked for."""
    page = (run / "report.html").as_uri()
    browser.look(driver, 1280, 900, "light")
    driver.get(page)
    assert browser.requests(driver) == [page]
    assert driver.execute_script("return [...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.alt)") == []
    return driver.execute_script("return document.images.length")


def check_phones(driver):
    """Nothing is wider than the window."""
    for width in (390, 320):
        browser.look(driver, width, 844, "dark")
        assert driver.execute_script("return document.documentElement.scrollWidth") == width


def check_reading(driver):
    """A legend says the values where a chart is pointed at, and the last ones otherwise."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    figure = driver.find_elements(By.CSS_SELECTOR, ".chart")[3]
    driver.execute_script("arguments[0].scrollIntoView({behavior: 'instant', block: 'center'})", figure)
    said = [each.text for each in figure.find_elements(By.CSS_SELECTOR, ".legend b")]
    assert said == ["0.1", "0.2"]
    ActionChains(driver).move_to_element_with_offset(figure.find_element(By.TAG_NAME, "svg"), 18, 0).perform()  # about step 60
    values = [float(each.text) for each in figure.find_elements(By.CSS_SELECTOR, ".legend b")]
    assert values == pytest.approx([0.1, 0.9], abs=0.01)  # the slow stretch of made_run
    assert figure.find_element(By.CLASS_NAME, "at").text == "at step 60"
    ActionChains(driver).move_to_element(driver.find_element(By.CSS_SELECTOR, "#curves h2")).perform()
    assert [each.text for each in figure.find_elements(By.CSS_SELECTOR, ".legend b")] == said


def check_keys(driver):
    """The arrow keys reach what a pointer does: here a dot of the third row of the sheet."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    tip = driver.find_element(By.ID, "tip")
    driver.execute_script("document.querySelector('.map').scrollIntoView({behavior: 'instant', block: 'center'})")
    driver.execute_script("document.querySelector('.map').focus({preventScroll: true})")
    body = driver.switch_to.active_element
    for _ in range(100):
        body.send_keys(Keys.ARROW_RIGHT)
    assert tip.is_displayed()
    number = driver.execute_script(DOT)
    assert number == 99
    image, box = tip.find_element(By.TAG_NAME, "img"), tip.find_element(By.TAG_NAME, "div").rect
    assert box["x"] - image.rect["x"] == pytest.approx(96 * (number % 40), abs=2)
    assert box["y"] - image.rect["y"] == pytest.approx(96 * (number // 40), abs=2)
    place = tip.rect
    assert place["x"] >= 0
    assert place["x"] + place["width"] <= 390
    assert driver.execute_script("return document.querySelector('#tip').scrollWidth") <= 150
    body.send_keys(Keys.ESCAPE)
    assert not tip.is_displayed()
    driver.execute_script("document.querySelector('.chart svg').focus()")
    driver.switch_to.active_element.send_keys(Keys.ARROW_LEFT)
    assert driver.find_element(By.CSS_SELECTOR, ".at").text.startswith("at step 19,")


def check_hover(driver):
    """Dots show their thumbnails where the sheet has them; a class can be picked out."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    tip = driver.find_element(By.ID, "tip")
    assert not tip.is_displayed()
    dots = driver.find_elements(By.CSS_SELECTOR, ".map circle")
    assert len(dots) == 24
    driver.execute_script("document.querySelector('#map').scrollIntoView({behavior: 'instant'})")
    ActionChains(driver).move_to_element(dots[7]).perform()
    assert tip.is_displayed()
    assert tip.text in ("cats", "dogs")
    image, box = tip.find_element(By.TAG_NAME, "img"), tip.find_element(By.TAG_NAME, "div").rect
    shown = driver.execute_script(DOT)
    assert box["x"] - image.rect["x"] == pytest.approx(96 * (shown % 40), abs=2)
    ActionChains(driver).move_to_element(driver.find_element(By.TAG_NAME, "h1")).perform()
    assert not tip.is_displayed()
    driver.execute_script("document.querySelector('.key button').click()")
    dim = driver.execute_script("return document.querySelectorAll('.map circle.dim').length")
    assert 0 < dim < 24
