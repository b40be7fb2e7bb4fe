"""Puts pictures of the demo's report into docs/images, for the README: make demo; .venv/bin/python -m docs.readme_pictures

Needs Debian's packages chromium and chromium-driver. Each is a part of ``runs/demo/report.html`` as a browser shows it.
"""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By

from tests.browser import browser, look, missing, shoot

ROOT = Path(__file__).parent.parent
REPORT = ROOT / "runs" / "demo" / "report.html"
WIDTH, HEIGHT = 960, 900
LARGEST, QUALITY = 60_000, 55  # bytes and quality of a committed picture
KEPT = {"neighbours": 2, "scores": 4}  # rows of neighbours of each kind, and images with score maps

# What is shown of a section. The rest is hidden, so that no picture is longer than a screen; the README has words of its own.
PARTS = {"map": "#map .map-box", "neighbours": "#neighbours", "scores": "#scores"}
SHORTEN = f"""
for (const kind of document.querySelectorAll('#neighbours h3')) {{
  let row = kind.nextElementSibling;
  for (let n = 0; row && row.matches('.near'); n++, row = row.nextElementSibling) row.hidden = n >= {KEPT["neighbours"]};
}}
document.querySelectorAll('.maps > div').forEach((each, n) => {{ each.hidden = n >= {KEPT["scores"]}; }});
document.querySelectorAll('.look, section > h2').forEach((each) => {{ each.hidden = true; }});
const style = document.createElement('style');
style.textContent = `[hidden] {{ display: none !important }} h3 {{ margin-top: 4px !important }}
  section {{ border: 0 !important; box-shadow: none !important; border-radius: 0 !important; padding: 8px 12px !important }}`;
document.head.append(style);
"""


def main(report: Path = REPORT) -> None:
    if lacks := missing():
        sys.exit(f"docs.readme_pictures: {lacks}")
    if not report.exists():
        sys.exit(f"docs.readme_pictures: {report} is not there; make it with `make demo`")
    with TemporaryDirectory() as folder, browser(Path(folder, "profile")) as driver:
        look(driver, WIDTH, HEIGHT)
        driver.get(report.resolve().as_uri())
        driver.execute_script(SHORTEN)
        point(driver)  # as long as nothing scrolls
        for name, selector in PARTS.items():
            taken = shoot(driver, Path(folder, f"{name}.png"), selector, beyond=name != "map")
            shrink(taken, ROOT / "docs" / "images" / f"{name}.jpg")


def point(driver: Any) -> None:
    """Moves the pointer to the dot nearest to the middle of the map, so that its thumbnail shows."""
    driver.execute_script("document.querySelector('#map').scrollIntoView({behavior: 'instant'})")
    find = "return [...document.querySelectorAll('.map circle')].sort((a, b) => away(a) - away(b))[0]"
    away = "const away = (dot) => Math.hypot(dot.cx.baseVal.value - 300, dot.cy.baseVal.value - 300); "
    ActionChains(driver).move_to_element(driver.execute_script(away + find)).perform()
    assert driver.find_element(By.ID, "tip").is_displayed()


def shrink(source: Path, target: Path) -> None:
    """As the largest JPEG that is small enough; text would suffer from less quality sooner than from fewer pixels."""
    with Image.open(source) as image:
        for percent in range(100, 40, -5):
            file, size = BytesIO(), (image.width * percent // 100, image.height * percent // 100)
            image.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(file, "JPEG", quality=QUALITY, optimize=True)
            if len(file.getvalue()) < LARGEST:
                break
    target.write_bytes(file.getvalue())
    print(f"{target.relative_to(ROOT)}: {size[0]} x {size[1]}, {len(file.getvalue()) / 1e3:.0f} kB")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
