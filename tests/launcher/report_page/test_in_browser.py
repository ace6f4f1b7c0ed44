"""The report in a real browser: it renders, shows the run's figures and logs no error."""

import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tenfold.launcher.worker.python_argv import module_argv

PROGRAM = """
    for phase in ("import", "rendezvous", "build", "first_step"):
        say("phase", phase)
    say("step", "first_step", step=1, total_steps=40, wait_share=0.5, loss=1.0)
    say("phase", "training")
    if restart == 0 and index == 1:
        raise ValueError("the <first> one fails")
    mark(f"restart-{restart}-{index}")
    wait_for("go_on", 90)
    say("phase", "done")
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless Chromium, driven by Selenium."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs Debian's chromium and chromium-driver (.ci/run installs them)")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--disable-quic", f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    chrome.set_page_load_timeout(60)
    yield chrome
    chrome.quit()


def show(browser: Any, page: Path, *, width: int = 1200, scheme: str = "light") -> None:
    medium = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", medium)
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.as_uri())


def text_of(browser: Any, selector: str = "body") -> str:
    return str(browser.execute_script(f"return document.querySelector('{selector}').innerText"))


def luminance(browser: Any, name: str) -> float:
    """The brightness, 0 to 255, of the body's colour called `name`."""
    shown = browser.execute_script(f"return getComputedStyle(document.body).{name}")
    red, green, blue = (float(part) for part in shown[4:-1].split(",")[:3])
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tenfold: Any) -> Path:
    """The page of a run directory with the files of a training run of 300 steps."""
    run_dir = tmp_path_factory.mktemp("runs") / "finished"
    launched = tenfold("launch", "--num_workers=2", f"--run_dir={run_dir}", "--", "true")
    assert launched.status == 0, launched.err
    lines = []
    for step in range(1, 301):
        common = {"step": step, "epoch": (step - 1) // 100, "metrics": {"accuracy": step / 300},
                  "records_per_s": 1000.0 + step, "wait_share": 0.25,
                  "learning_rate": 0.01, "gradient_norm": 30 / step}  # fmt: skip
        lines.append({"kind": "step", "loss": 3 / step, **common})
        if step % 100 == 0:
            receipt = {"records": 1600, "expected": 1617, "left_out": 17, "exact": True}
            metrics = {"accuracy": step / 300, "val_loss": 0.0421, "val_accuracy": 0.9876}
            line = {**common, "metrics": metrics, "loss": 0.125, "receipt": receipt}
            lines.append({"kind": "epoch", **line})
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert tenfold("report", run_dir).status == 0
    return run_dir / "report.html"


@pytest.mark.timeout(120)
def test_page_shows_figures_of_the_run_without_errors(browser: Any, finished: Path) -> None:
    show(browser, finished)
    tiles = text_of(browser, ".tiles").split("\n")
    shown = dict(zip(tiles[1::2], tiles[::2], strict=True))
    assert shown["val accuracy"] == "0.9876"
    assert shown["loss, last epoch"] == "0.125"
    assert shown["records/s, last epoch"] == "1,300"
    assert text_of(browser, ".badge") == "succeeded"
    assert "3 receipts, all exact" in text_of(browser)
    assert text_of(browser, ".banner h2").startswith("Healthy, no longer improving; more epochs")
    assert browser.get_log("browser") == []


@pytest.mark.timeout(120)
def test_pointing_at_a_step_shows_its_values(browser: Any, finished: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    show(browser, finished)
    seen = "return [...document.querySelectorAll('.reading')].filter(r => getComputedStyle(r)"
    seen += ".visibility == 'visible').map(r => [...r.querySelectorAll('text')]"
    seen += ".map(t => t.textContent))"
    assert browser.execute_script(seen) == []
    column = browser.execute_script(
        "return [...document.querySelectorAll('figure .column')].find("
        "column => column.textContent.startsWith('step 200'))"
    )
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", column)
    ActionChains(browser).move_to_element(column.find_element("tag name", "rect")).perform()
    (lines,) = browser.execute_script(seen)
    assert lines[0] == "step 200"
    assert {"each step 0.015", "epoch 0.125", "validation 0.0421"} <= set(lines)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("width", [1200, 700, 360])
def test_rows_of_cards_are_full(browser: Any, finished: Path, width: int) -> None:
    show(browser, finished, width=width)
    for parent in (".tiles", ".charts", ".columns"):
        gaps = browser.execute_script(
            "const box = document.querySelector(arguments[0]).getBoundingClientRect();"
            "const ends = {};"
            "for (const card of document.querySelector(arguments[0]).children) {"
            "  const c = card.getBoundingClientRect();"
            "  ends[c.top] = Math.max(ends[c.top] || 0, c.right); }"
            "return Object.values(ends).map(end => box.right - end)",
            parent,
        )
        assert gaps
        assert all(abs(gap) < 1.5 for gap in gaps), (parent, gaps)


@pytest.mark.timeout(120)
def test_curves_stay_inside_their_charts(browser: Any, finished: Path) -> None:
    for width in (1200, 700, 360):
        show(browser, finished, width=width)
        assert all_inside(browser) == [True] * 6


def all_inside(browser: Any) -> list[bool]:
    """Whether each chart contains its curves and labels, and no two labels overlap."""
    boxes: list[bool] = browser.execute_script(
        "return [...document.querySelectorAll('figure svg')].map(svg => {"
        "  const o = svg.getBoundingClientRect();"
        "  const shown = [...svg.querySelectorAll('path, .tick, .column text')]"
        "    .map(e => e.getBoundingClientRect()).filter(i => i.width > 0);"
        "  const ticks = [...svg.querySelectorAll('.tick')]"
        "    .map(e => e.getBoundingClientRect()).filter(i => i.width > 0);"
        "  const apart = ticks.every((a, n) => ticks.slice(n + 1).every(b =>"
        "    a.right < b.left || b.right < a.left"
        "    || a.bottom < b.top + 6 || b.bottom < a.top + 6));"
        "  return apart && ticks.length > 2 && shown.every(i => i.left >= o.left - 1"
        "      && i.right <= o.right + 1 && i.top >= o.top - 1 && i.bottom <= o.bottom + 1); })"
    )
    return boxes


@pytest.mark.timeout(120)
def test_light_and_dark_schemes_have_contrast(browser: Any, finished: Path) -> None:
    for scheme in ("light", "dark"):
        show(browser, finished, scheme=scheme)
        paper, ink = luminance(browser, "backgroundColor"), luminance(browser, "color")
        assert (paper > ink) == (scheme == "light")
        assert abs(paper - ink) > 150


@pytest.mark.timeout(120)
def test_narrow_screen_needs_no_sideways_scrolling(browser: Any, finished: Path) -> None:
    show(browser, finished, width=360)
    widths = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert widths == [360, 360]
    columns = browser.execute_script(
        "return getComputedStyle(document.querySelector('.charts')).gridTemplateColumns"
    )
    assert len(columns.split()) == 1


@pytest.mark.timeout(120)
def test_comparison_overlays_runs_on_any_screen(
    browser: Any, finished: Path, tenfold: Any, tmp_path: Path
) -> None:
    other = shutil.copytree(finished.parent, tmp_path / "other")
    metrics = (
        (other / "metrics.jsonl").read_text().replace('"val_loss": 0.0421', '"val_loss": 0.5')
    )
    (other / "metrics.jsonl").write_text(metrics)
    page = tmp_path / "both.html"
    done = tenfold("report", finished.parent, other, f"--output={page}")
    assert (done.status, done.out) == (0, f"{page}\n")
    for width in (1200, 360):
        show(browser, page, width=width)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        assert all_inside(browser) == [True] * 6
    shown = text_of(browser)
    assert "Comparison of 2 runs" in shown
    assert "The runs have the same flags." in shown
    assert "other 0.5" in shown
    strokes = "return [...document.querySelectorAll('figure svg')].map(chart => new Set("
    strokes += "[...chart.querySelectorAll('.curve')].map(c => getComputedStyle(c).stroke)).size)"
    assert browser.execute_script(strokes) == [2] * 6
    assert browser.get_log("browser") == []


@pytest.fixture
def following(launch: Any) -> Iterator[Path]:
    """The page, updated every two seconds, of a job that runs until the file `go_on` exists."""
    launch.start("--num_workers=2", "--max_restarts=1", text=PROGRAM)
    launch.wait_for("restart-1-0", "restart-1-1")
    command = module_argv("tenfold", ["report", str(launch.run_dir)])
    with subprocess.Popen(
        [*command, "--interval=2"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield Path(process.stdout.readline().strip())
        process.kill()


@pytest.mark.timeout(180)
def test_page_of_a_running_job_reloads_until_the_end(
    browser: Any, launch: Any, following: Path
) -> None:
    show(browser, following)
    shown = settled(browser)
    assert "\nrunning\n" in shown
    assert "restart 1 of 1" in shown
    (launch.run_dir / "go_on").touch()
    assert launch.finish().status == 0
    # Only the page itself reloads it.
    shown = settled(browser, lambda text: "\nsucceeded\n" in text)
    assert "the <first> one fails" in shown
    assert "this page reloads itself" not in shown
    assert (
        browser.execute_script("return document.querySelectorAll('.rows .strip .fault').length")
        == 1
    )
    assert browser.get_log("browser") == []


def settled(browser: Any, holds: Callable[[str], bool] = bool, *, within_s: float = 60) -> str:
    """Return the page's text as soon as it satisfies `holds`; a loading page has no text."""
    from selenium.common.exceptions import WebDriverException

    end = time.monotonic() + within_s
    text = ""
    while time.monotonic() < end:
        with contextlib.suppress(WebDriverException):
            text = text_of(browser)
            if holds(text):
                return text
        time.sleep(0.1)
    raise AssertionError(text)
