"""Writes ``report.html``: style, script and pictures stand in the page itself, and its own policy forbids it to load more."""

from __future__ import annotations

from pathlib import Path

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from amdim.evaluation.report.report_data import Find, ReportData, collect
from amdim.pipeline.remote_dataset import open_dataset
from amdim.shards.atomic import atomic

HERE = Path(__file__).parent
FILE = "report.html"


def write_report(
    run: Path, data: str | None, device: torch.device, last_weights: bool = False, find: Find = open_dataset
) -> Path:
    """Writes ``run/report.html``, whole or not at all; see ``collect`` for what is in it."""
    text = as_html(collect(run, data, device, last_weights, find))
    with atomic(run / FILE) as file:
        file.write(text.encode(errors="replace"))  # a class may be named after a folder whose name is no UTF-8
    return run / FILE


def as_html(page: ReportData) -> str:
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["nats"] = nats
    environment.filters["svg"] = Markup  # made by chart.py, which escapes its texts
    parts = {name: Markup((HERE / file).read_text()) for name, file in (("style", "page.css"), ("script", "page.js"))}
    return environment.get_template("page.html.j2").render(page=page, **parts)


def nats(value: float) -> str:
    """One decimal, and a true minus sign."""
    return f"{round(value, 1) + 0.0:.1f}".replace("-", "−")
