"""Debian's Chromium, without a window and without a network of its own, over a page on the disk."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "about:blank",
)
NEEDED = ("chromium", "chromedriver")
NAMES = ("prefers-color-scheme", "light", "dark")


def missing() -> str | None:
    """What there is not of what it takes, for a test that is skipped."""
    lacks = [name for name in NEEDED if shutil.which(name) is None]
    try:
        import selenium  # noqa: F401
    except ImportError:
        lacks.append("selenium")
    return f"{', '.join(lacks)}: not installed (apt-get install chromium chromium-driver)" if lacks else None


@contextmanager
def browser(profile: Path) -> Iterator[Any]:
    """A driver that logs the console and every request; ``profile`` is an empty directory for its own things."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    driver.set_page_load_timeout(120)
    driver.get("about:blank")  # away from the page that a new window opens, which asks for much
    for kind in ("browser", "performance"):
        driver.get_log(kind)
    try:
        yield driver
    finally:
        driver.quit()


def look(driver: Any, width: int, height: int, scheme: str = "light", density: float = 1) -> None:
    """A window of that many pixels, and what the reader's system is set to."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": density, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": NAMES[0], "value": scheme}]})


def requests(driver: Any) -> list[str]:
    """The addresses that were asked for, but for what stands in the page itself."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return [address for address in asked if not address.startswith("data:")]


def shoot(driver: Any, path: Path, element: str | None = None, beyond: bool = True) -> Path:
    """The whole page, or an element of it, as PNG; not ``beyond`` the window, nothing moves, and what the pointer shows stays."""
    area = "document.documentElement" if element is None else f"document.querySelector({json.dumps(element)})"
    box = driver.execute_script(
        f"const b = {area}.getBoundingClientRect(); return [b.left + scrollX, b.top + scrollY, b.width, b.height]"
    )
    clip = dict(zip(("x", "y", "width", "height"), box, strict=True)) | {"scale": 1}
    found = driver.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": beyond, "format": "png"})
    path.write_bytes(base64.b64decode(found["data"]))
    return path
