"""Measures the page of runs: its size, the time to make it, and its speed in headless Chromium.

    python -m experiments.benchmarks.run_page [--runs=1000] [--points=1000] [--keep=FOLDER]

The runs are made here, with attacks in their names, flags, metrics and pictures. The script fails
if the page asks for an address, or if an attack runs. It needs Chromium and the extra `page`.
"""

import argparse
import hashlib
import io
import json
import math
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from experiments.benchmarks.chromium import Chromium
from jaxdl.run import metrics_log

ATTACKS = (
    "</script><script>window.hit=1</script>",
    "<img src=x onerror=window.hit=1>",
    "\"'><svg/onload=window.hit=1>",
    "javascript:window.hit=1",
    "\u2028window.hit=1\u2028",
    "{{content}}$$\\href{javascript:window.hit=1}{x}$$",
    "@{name}{safe}<b onmouseover=window.hit=1>",
    "__proto__",
    "x" * 3000,
)
# Clicks on everything that can be clicked.
CLICK = "document.querySelectorAll('button, summary').forEach((one) => one.click())"
SORT = """(async () => {
  const button = document.querySelectorAll('#table thead button')[COLUMN];
  const before = performance.now();
  button.click();
  document.body.offsetHeight;
  const script = performance.now() - before;
  await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
  return [script, performance.now() - before];
})()"""
# Notes when the table has rows, and when a chart has a canvas.
LOOK = """window.addEventListener('DOMContentLoaded', () => {
  const look = () => {
    const now = performance.now();
    if (!window.tableAt && document.querySelector('#table tbody tr')) window.tableAt = now;
    const chart = document.querySelector('#panels .plot > div')?.shadowRoot;
    if (!window.chartAt && chart?.querySelector('div')) window.chartAt = now;
    if (!window.chartAt) setTimeout(look, 5);
  };
  look();
});"""


def make_run(folder: Path, seed: int, rate: float, points: int, **more: Any) -> None:
    """Writes the files of a run with a noisy curve."""
    folder.mkdir(parents=True)
    draw = random.Random(seed)
    config = {
        "experiment": "experiments.iris_mlp",
        "seed": seed % 3,
        "learning_rate": rate,
        "hidden": 2 ** (seed % 7),
        "optimizer": ("adam", "momentum", "sgd")[seed % 11 % 3],
        "batch_size": 32,
        **more,
    }
    lines: list[dict[str, Any]] = []
    for n in range(1, points + 1):
        loss = math.exp(-4 * n * rate / points) + 0.05 * draw.random() + 0.01
        values = {"loss": loss, "accuracy": 1 - loss / 2}
        at = {"step": 10 * n, "epoch": n / 10, "seconds": n / 7}
        lines.append({**at, "split": "train", **values})
        if n % 50 == 0:
            lines.append({**at, "split": "validation", **values})
    summary: dict[str, Any] = {
        "train/loss": lines[-1]["loss"],
        "best/validation/accuracy": max(line["accuracy"] for line in lines),
        "best/test/accuracy": lines[-1]["accuracy"] - 0.01 * draw.random(),
        "step": 10 * points,
        "seconds": points / 7,
        "best_metric": "accuracy",
        "better": "max",
        "state_sha256": f"{draw.getrandbits(256):064x}",
    }
    digest = hashlib.sha256(json.dumps(summary, sort_keys=True).encode()).hexdigest()
    summary["sha256"] = digest
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "metrics.jsonl").write_text(metrics_log.to_text(lines), encoding="utf-8")
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    about = {"python": "3.11", "packages": {"jax": "0.10.2"}, "cpus": 2, "processor": "any"}
    (folder / "environment.json").write_text(json.dumps(about), encoding="utf-8")


def make_hostile(folder: Path) -> None:
    """Writes runs whose names, flags, metrics and pictures are attacks."""
    for n, attack in enumerate(ATTACKS):
        name = attack.replace("/", "\\")[:100] + str(n)
        make_run(folder / name, n, 1.0, 20, optimizer=attack, **{attack: attack})
        line = {"step": 300, "split": "train", "loss": 0.5}
        if attack.isprintable():
            line |= {attack: 0.5, "split": attack}
        with (folder / name / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        plots = folder / name / "plots"
        plots.mkdir()
        (plots / f"{attack[:60].replace('/', '-')}.png").write_bytes(picture(n))
        (plots / "svg.png").write_text("<svg onload='window.hit=1'/>", encoding="utf-8")
    (plots / "link.png").symlink_to("/etc/passwd")  # in the last one, which cannot be read then


def picture(seed: int) -> bytes:
    """PNG with a text chunk that is an attack."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Comment", ATTACKS[0])
    output = io.BytesIO()
    Image.new("RGB", (64, 64), (seed * 20, 90, 120)).save(output, "PNG", pnginfo=info)
    return output.getvalue()


def make_page(folder: Path, path: Path) -> tuple[float, float, float]:
    """Makes a page in a new process; returns its seconds, those on a processor, and megabytes."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "jaxdl", "report", str(folder), f"--page={path}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, used, path.stat().st_size / 1e6


def measure(page: Path, browser: Chromium) -> dict[str, float]:
    """Milliseconds until the table and the first chart are there, and of sorts.

    Those of the page's main thread on a processor are given as well: other processes of a busy
    machine do not add to them.
    """
    browser.show(1280, 1600)
    browser.call("Performance.enable", timeDomain="threadTicks")
    browser.call("Page.addScriptToEvaluateOnNewDocument", source=LOOK)
    browser.open(page.as_uri())
    browser.wait("window.chartAt > 0")
    times = {
        "table": browser.evaluate("tableAt"),
        "first chart": browser.evaluate("chartAt"),
        "first chart, on a processor": busy(browser),
    }
    time.sleep(3)
    for name, columns in {"100 rows": (0, 2, 3, 4, 4), "all rows": (2, 3, 4)}.items():
        if name == "all rows":
            browser.evaluate("document.querySelector('#more button')?.click()")
            time.sleep(2)
        sorts, busies = [], []
        for n in columns:
            before = busy(browser)
            sorts.append(browser.evaluate(SORT.replace("COLUMN", str(n)))[1])
            busies.append(busy(browser) - before)
        times[f"slowest sort, {name}, to the next frame"] = max(sorts)
        times[f"slowest sort, {name}, on a processor"] = max(busies)
    return times


def busy(browser: Chromium) -> float:
    """Milliseconds that the tasks of the page's main thread have taken on a processor."""
    metrics = browser.call("Performance.getMetrics")["metrics"]
    return 1000 * float(next(one["value"] for one in metrics if one["name"] == "TaskDuration"))


def check(page: Path, browser: Chromium) -> None:
    """Fails if a page asks for an address, complains, or has run an attack."""
    browser.open(page.as_uri())
    browser.wait("document.body.dataset.ready == '1'")
    browser.show(1280, 9000)
    for _ in range(2):
        browser.evaluate(CLICK)
        for x in range(100, 1280, 150):
            for y in range(700, 3000, 150):
                browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        time.sleep(1)
    assert not browser.evaluate("'hit' in window"), "an attack has run"
    asked = [url for url in browser.requests() if url != page.as_uri()]
    assert not asked, f"the page has asked for {asked}"
    assert not browser.complaints(), browser.complaints()


def main() -> None:
    """Makes the runs and the pages, measures, and prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--keep", type=Path, help="folder to keep the runs and pages in")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = options.keep or Path(temporary)
        if not (root / "many").exists():
            rates = [10 ** random.Random(n // 3).uniform(-1, 1) for n in range(options.runs)]
            for n, rate in enumerate(rates):
                make_run(root / "many" / f"run-{n:04}", n, rate, options.points)
            make_hostile(root / "hostile")
        seconds, processor, size = make_page(root / "many", root / "many.html")
        print(f"{options.runs:,} runs of {options.points:,} points: {size:.2f} MB")
        print(f"made in {seconds:.1f} s, of which {processor:.1f} s on a processor")
        make_page(root / "hostile", root / "hostile.html")
        with Chromium() as browser:
            for name, milliseconds in measure(root / "many.html", browser).items():
                print(f"{name}: {milliseconds:.0f} ms")
        for name in ("many", "hostile"):
            with Chromium() as browser:
                check(root / f"{name}.html", browser)
                print(f"{name}: no request, no attack has run")


if __name__ == "__main__":
    main()
