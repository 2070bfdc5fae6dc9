"""Run folders for the tests of pages."""

import hashlib
import json

from jaxdl.run import logger
from tests.small import DESCRIBED
from tests.small import Config as SmallConfig

SCRIPT = "</script><script>window.hit=1</script>"
ATTACKS = (SCRIPT, "<img src=x onerror=hit()>", "\"'><svg onload=hit()>", "javascript:hit()",
           "\u2028\u2029\u202e", "\x1b[2J\n", "$$\\href{javascript:hit()}{x}$$", "{{script}}",
           "__proto__", "constructor", "x" * 5000)  # fmt: skip


def make_run(folder, summary=None, lines=(), **fields):
    """Writes a run folder; without a summary the run is not finished."""
    folder.mkdir(parents=True)
    made = logger.RunLog(folder, SmallConfig(workdir=str(folder), **fields), DESCRIBED, [])
    for line in lines:
        made.log({"epoch": 1, "seconds": 1.0, **line})
    made.close()
    if summary is not None:
        made.summarize(summary)
    return folder


def finished(folder, accuracy, **fields):
    """Writes the folder of a finished run with an accuracy."""
    lines = [
        {"step": step, "split": split, "accuracy": accuracy * step / 20, "loss": 1 / step}
        for step in (10, 20)
        for split in ("train", "validation")
    ]
    summary = {
        "best/validation/accuracy": accuracy,
        "best/test/accuracy": accuracy - 0.01,
        "step": 20,
        "seconds": 2.0,
        "best_metric": "accuracy",
        "better": "max",
        "state_sha256": "a" * 64,
    }
    return make_run(folder, summary, lines, **fields)


def write_raw(folder, config, lines=(), summary=None):
    """Writes a run folder by hand, with any content."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
    if summary is not None:
        digest = hashlib.sha256(json.dumps(summary, sort_keys=True).encode()).hexdigest()
        text = json.dumps({**summary, "sha256": digest})
        (folder / "summary.json").write_text(text, encoding="utf-8")
    return folder


def hostile(root):
    """Writes runs whose names, flags, metrics and environments are attacks."""
    for n, attack in enumerate(ATTACKS):
        name = attack.replace("/", "|")[:100].encode(errors="replace").decode() + str(n)
        config = {"experiment": attack, "seed": n, attack: attack, "rate": [attack]}
        lines = [{"step": 1, "split": "train", "loss": 1.0}]
        if attack.isprintable():
            lines.append({"step": 2, "split": attack, attack: 0.5})
        summary = {attack: 0.5, "best_metric": attack, "better": attack, "state_sha256": attack}
        folder = write_raw(root / name, config, lines, summary)
        about = {"python": attack, "packages": {"jax": attack}, "git": {"commit": attack}}
        (folder / "environment.json").write_text(json.dumps(about), encoding="utf-8")
        data = {"name": attack, "fingerprint": attack}
        (folder / "data.json").write_text(json.dumps(data), encoding="utf-8")
    return root
