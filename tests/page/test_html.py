import base64
import hashlib
import importlib.util
import json
import re
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path

import pytest

from jaxdl.__main__ import run
from jaxdl.errors import UserError
from jaxdl.page import html
from jaxdl.page.payload import payload, to_json
from tests.page.made import SCRIPT, finished, hostile

LIBRARY = "window.Bokeh = { text: '</script><!--' };"


class Elements(HTMLParser):
    """Elements of a page with their attributes, and the texts of its scripts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts, self._in_script = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._in_script = tag == "script"
        if self._in_script:
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._in_script = False

    def handle_data(self, data):
        if self._in_script:
            self.scripts[-1] += data


def test_a_page_of_attacks_has_no_element_of_theirs(tmp_path):
    content = to_json(payload([hostile(tmp_path)]))
    found = Elements(html.page(SCRIPT, content, LIBRARY))
    plain = Elements(html.page("x", "{}", LIBRARY))
    assert [tag for tag, _ in found.elements] == [tag for tag, _ in plain.elements]
    packed, library, script = found.scripts
    assert zlib.decompress(base64.b64decode(packed)).decode() == content
    policy = next(a["content"] for _, a in found.elements if "http-equiv" in a)
    for text in (library, script):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    for tag, attributes in found.elements:
        assert not any(name.startswith("on") for name in attributes), tag
        assert not {"src", "srcset", "action", "formaction", "style"} & attributes.keys()
        assert attributes.get("href", "#").startswith("#")


def test_the_policy_allows_nothing_but_the_page_itself():
    policies = [
        next(
            a["content"]
            for _, a in Elements(html.page("x", c, LIBRARY)).elements
            if "http-equiv" in a
        )
        for c in ("{}", None)
    ]
    rules = dict(rule.split(" ", 1) for rule in policies[0].split("; "))
    assert rules.keys() == {
        "default-src", "script-src", "style-src", "img-src", "base-uri", "form-action"
    }  # fmt: skip
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"
    assert "unsafe" not in rules["script-src"]
    assert policies[1] == policies[0] + "; connect-src 'self'"


def test_the_scripts_write_no_markup():
    """Texts of runs reach the page as `textContent` alone."""
    for path in Path(html.__file__).parent.glob("static/*.js"):
        text = path.read_text(encoding="utf-8")
        bad = (
            r"innerHTML|outerHTML|insertAdj|document\.write|\beval\b|Function\(|https?://|CustomJS"
        )
        assert not re.search(bad, text), path.name


@pytest.mark.parametrize("name", ["x.png", "x", "."])
def test_a_page_that_cannot_be_one(name, tmp_path):
    finished(tmp_path / "a", 0.5)
    with pytest.raises(UserError, match="--page="):
        run(["report", str(tmp_path), f"--page={tmp_path / name}"])


def test_a_page_that_would_be_a_folder(tmp_path):
    finished(tmp_path / "a", 0.5)
    (tmp_path / "d.html").mkdir()
    with pytest.raises(UserError, match="it is a folder"):
        run(["report", str(tmp_path), f"--page={tmp_path / 'd.html'}"])


@pytest.mark.parametrize("option", ["--page={}/x.html", "--output={}/x.png"])
@pytest.mark.parametrize("inner", ["", "plots", "plots/samples", "link"])
def test_nothing_is_written_into_a_run(option, inner, tmp_path):
    folder = finished(tmp_path / "a", 0.5)
    (folder / "plots").mkdir()
    (tmp_path / "other").mkdir()
    target = folder / inner
    if inner == "link":
        target = tmp_path / "link"
        target.symlink_to(folder / "plots")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=f"is in the run folder .*{folder.name}: name a file"):
        run(["report", str(folder), option.format(target)])
    assert sorted(tmp_path.rglob("*")) == before


def test_one_form_of_the_report_at_a_time(tmp_path):
    finished(tmp_path / "a", 0.5)
    with pytest.raises(UserError, match="give one of them"):
        run(["report", str(tmp_path), f"--page={tmp_path}/x.html", f"--output={tmp_path}/x.png"])
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("command", ["report", "watch"])
def test_an_empty_name_is_not_the_current_folder(command):
    with pytest.raises(UserError, match="an empty name is no folder"):
        run([command, ""])


@pytest.mark.parametrize("command", [["report", "{}", "--page={}/x.html"], ["watch", "{}"]])
def test_without_the_extra_a_line_names_it(command, tmp_path, monkeypatch):
    finished(tmp_path / "a", 0.5)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    html.read_library.cache_clear()
    with pytest.raises(UserError, match=r"pip install 'jaxdl\[page\]'"):
        run([word.format(tmp_path) for word in command])
    assert not (tmp_path / "x.html").exists()


def test_report_writes_a_page(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(html, "read_library", lambda: LIBRARY)
    folder = finished(tmp_path / "a", 0.5)
    path = tmp_path / "page.html"
    run(["report", str(folder), f"--page={path}"])
    assert capsys.readouterr().out == f"page: {path} (1 run, 0.1 MB)\n"
    packed = Elements(path.read_text(encoding="utf-8")).scripts[0]
    assert json.loads(zlib.decompress(base64.b64decode(packed))) == payload([folder])


def test_the_library_is_that_of_bokeh(tmp_path):
    pytest.importorskip("bokeh")
    html.read_library.cache_clear()
    assert "Bokeh" in html.read_library()
    # It is only read: importing it would take longer than reading all.
    code = "import sys; from jaxdl.page import html; html.read_library()"
    code += "; print('bokeh' in sys.modules)"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    )
    assert out.stdout.strip() == "False"
