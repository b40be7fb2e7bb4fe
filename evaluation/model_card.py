"""The model card of an exported encoder, in Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from amdim.evaluation.run_record import NAMES, read_results, top1, way

SAFETENSORS = """from model import load_encoder  # of this repository; pure torch and safetensors
encoder = load_encoder("{file}")
features = encoder(images)  # .r1, .r5, .r7"""
ONNX = """import onnxruntime
session = onnxruntime.InferenceSession("{file}")
r1, r5, r7 = session.run(None, {{"images": images}})  # float32 arrays of NumPy"""
PT2 = """import torch
encoder = torch.export.load("{file}").module()
r1, r5, r7 = encoder(images)"""
SNIPPETS = {".safetensors": SAFETENSORS, ".onnx": ONNX, ".pt2": PT2}

OWN = "`{data}`, {step:,} steps of {batch} images (preset `{preset}`, views `{recipe}`, seed {seed}). The weights are {weights}."
IMPORTED = """The file of another program, at its step {step:,}, which does not say of what images and how. Mean, deviation and
size below are amdim-public's for images of this size, and stand in no file either."""
TEXT = """# {file}

An encoder of images, {size} x {size} pixels, trained without labels by
AMDIM ([arXiv 1906.00910](https://arxiv.org/abs/1906.00910)).

## Trained on

{origin}
Encoder: width {width}, embedding {embedding}, depth {depth}{inner}.

## Input

`images`: float32 (batch, 3, {size}, {size}), any batch. RGB in 0..1, minus mean ({mean}), divided by std ({std}).
Training's own evaluation resizes the shorter side to {resize} pixels (antialiased bicubic) and takes the centre {size} x {size}.

## Outputs

| name | shape | is |
|---|---|---|
| `r1` | (batch, {embedding}, 1, 1) | the representation of the image, which probes read |
| `r5` | (batch, {embedding}, 5, 5) | of its locations, each of which sees a large part of the image |
| `r7` | (batch, {embedding}, 7, 7) | of its locations, each of which sees a small part |

## Probes

{probes}

## Use

```python
{snippet}
```

What it makes of images unlike those it was trained on is not known until it is measured:
`python eval.py --probe linear --data NAME`.
"""


def card(fields: dict[str, Any], run: Path, file: str) -> str:
    """The card of ``file``.

    Args:
        fields: what stands in ``<file>.json``.
        run: where probes have left their results.
        file: its name.
    """
    net, trained, given = fields["encoder"], fields["trained"], fields["input"]
    weights = "a moving average of those of the last steps" if trained["averaged"] else "those of the last step"
    return TEXT.format(
        **net,
        origin=(OWN if trained["data"] else IMPORTED).format(**trained, weights=weights),
        file=file,
        inner=", batch normalisation inside the units" if net["use_bn"] else "",
        mean=numbers(given["mean"]),
        std=numbers(given["std"]),
        resize=given["resize"],
        probes=probes(run, trained["digest"]),
        snippet=SNIPPETS[Path(file).suffix].format(file=file),
    )


def numbers(values: list[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def probes(run: Path, weights: str) -> str:
    """A table of what probes found of these weights; what they found of others is none of the card's business."""
    results = {name: each for name, each in read_results(run).items() if each.get("weights") == weights}
    if not results:
        return "None has been run on these weights: `python eval.py --probe linear,knn` does, and this card then cites it."
    lines = ["| probe | data | test images | top-1 | same encoder, untrained | raw pixels |", "|---|---|---|---|---|---|"]
    for name, each in results.items():
        others = (each.get(key) for key in ("top1_random_init", "top1_raw_pixels"))
        beside = " | ".join("–" if value is None else f"{value:.2%}" for value in others)
        probe = ", ".join(filter(None, (NAMES.get(name, name), way(each))))
        lines.append(f"| {probe} | `{Path(each['data']).name}` | {each['n_test']:,} | {top1(each)} | {beside} |")
    return "\n".join(lines)
