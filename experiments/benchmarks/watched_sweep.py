"""Watches a sweep whose trials and driver are killed, and compares the page with that of `report`.

    python -m experiments.benchmarks.watched_sweep [--kills=10] [--seed=0]

A sweep of 24 trials of Iris runs while Chromium shows `jaxdl watch`. At random moments a trial, and
twice the sweep itself, gets kill -9. The script fails if the content that the server gives at the
end, or the table in the browser, differs from that of the page that `report` writes then.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from experiments.benchmarks.chromium import Chromium
from jaxdl.page.payload import payload, to_json

SWEEP = """experiments.iris_mlp --learning_rate=0.03,0.1,0.3,1.0 --hidden=8,16 --seed=0..2 --jobs=2
--workdir={} -- --num_steps=3000 --log_every=25 --eval_every=25 --checkpoint_every=300"""
JAXDL = [sys.executable, "-m", "jaxdl"]
TABLE = "document.getElementById('table').innerText"
STATES = "[...document.querySelectorAll('#states button')].map((one) => one.textContent).join()"
READY = "document.body.dataset.ready == '1'"


def kill_trial(folder: Path, draw: random.Random) -> bool:
    """Kills the process of a trial of the sweep that is going on; returns True if there was one."""
    locks = [p for p in folder.glob("trials/*/.lock") if not (p.parent / "summary.json").exists()]
    for path in draw.sample(locks, len(locks)):
        try:
            process = int(json.loads(path.read_text(encoding="utf-8"))["pid"])
            words = Path(f"/proc/{process}/cmdline").read_bytes()
            if b"jaxdl" in words:  # the number may be another process's by now
                os.kill(process, signal.SIGKILL)
                return True
        except (OSError, ValueError, KeyError):
            continue
    return False


def run_sweep(folder: Path, browser: Chromium, kills: int, draw: random.Random) -> None:
    """Runs the sweep to its end, with kills; prints the states that the page shows."""
    trials, drivers, shown = 0, 0, ""
    driver = None
    while driver is None or driver.poll() != 0:
        if driver is None or driver.poll() is not None:
            words = [*JAXDL, "sweep", *SWEEP.format(folder).split()]
            driver = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(draw.uniform(3, 8))
        if trials < kills and draw.random() < 0.5:
            trials += kill_trial(folder, draw)
        elif drivers < 2 and trials > 2 and draw.random() < 0.3:
            driver.kill()
            driver.wait()
            drivers += 1
        if shown != (shown := browser.evaluate(STATES)):
            print(shown, flush=True)
    print(f"kill -9 of {trials} trials and {drivers} drivers")


def main() -> None:
    """Runs the sweep under watch, and compares at its end."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, page = Path(temporary) / "sweep", Path(temporary) / "page.html"
        folder.mkdir()
        words = [*JAXDL, "watch", str(folder)]
        watch = subprocess.Popen(words, stdout=subprocess.PIPE, encoding="utf-8")
        assert watch.stdout is not None
        address = watch.stdout.readline().strip()
        with Chromium() as browser:
            browser.open(address)
            browser.wait(READY)
            run_sweep(folder, browser, options.kills, random.Random(options.seed))
            time.sleep(8)
            table, complaints = browser.evaluate(TABLE), browser.complaints()
        with urllib.request.urlopen(address.replace("/?", "/content?")) as answer:
            content = answer.read().decode()
        watch.send_signal(signal.SIGINT)
        print(f"status of watch after Ctrl-C: {watch.wait()}")
        assert content == to_json(payload([folder])), "the content differs from that of report"
        subprocess.run([*JAXDL, "report", str(folder), f"--page={page}"], check=True)
        with Chromium() as browser:
            browser.open(page.as_uri())
            browser.wait(READY)
            assert browser.evaluate(TABLE) == table, "the table differs from that of report"
        assert not complaints, complaints
    print(f"the content, {len(content):,} bytes, and the table are those of report")


if __name__ == "__main__":
    main()
