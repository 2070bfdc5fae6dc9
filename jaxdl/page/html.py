"""HTML of a page: one file with its style, its scripts and its content, which needs no network.

The content is deflated JSON in base64, so no text of a run can end the element that holds it. The
policy of the page lets no script run but the two whose SHA-256 it names, and loads nothing; a page
of `watch` may fetch its content from its own server.
"""

import base64
import hashlib
import html
import importlib.util
import zlib
from functools import cache
from importlib import resources
from pathlib import Path

from jaxdl import files
from jaxdl.console import say
from jaxdl.errors import UserError, printable
from jaxdl.page import payload
from jaxdl.run.finished import check_output

SCRIPTS = ("base", "table", "charts", "curves", "sweep", "detail", "start")
LIBRARY = ("bokeh.min.js", "bokeh-api.min.js")


def page(title: str, content: str | None, library: str) -> str:
    """HTML of a page.

    Args:
      title: title of the window until the content is shown.
      content: JSON text of a payload; None: the page fetches it from its server.
      library: text of the library's scripts, see `read_library`.
    """
    script = "(() => {\n" + "\n".join(_static(f"{name}.js") for name in SCRIPTS) + "\n})();"
    library, script = _inert(library), _inert(script)
    sources = " ".join(f"'sha256-{_digest(text)}'" for text in (library, script))
    policy = [
        "default-src 'none'",
        f"script-src {sources}",
        "style-src 'unsafe-inline'",  # Bokeh gives its elements styles of their own
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        *(["connect-src 'self'"] if content is None else []),
    ]
    parts = {
        "policy": "; ".join(policy),
        "title": html.escape(title),
        "style": _static("page.css"),
        "content": "" if content is None else _packed(content),
        "library": library,
        "script": script,
    }
    pieces = _static("page.html").split("{{")
    filled = [pieces[0]]
    for piece in pieces[1:]:  # in one pass: what is filled in is not searched again
        name, _, rest = piece.partition("}}")
        filled += [parts[name], rest]
    return "".join(filled)


def write(folders: list[Path], path: Path) -> None:
    """Writes the page of runs, and prints a line about it.

    Args:
      folders: run folders, folders of sweeps, or folders that hold such.
      path: HTML file to write.

    Raises:
      UserError: there is no run, Bokeh is not installed, or the file cannot be written, or would be
        in a run folder.
    """
    check_output(path, "page", ".html")
    library = read_library()
    content = payload.payload(folders)
    text = page(content["name"], payload.to_json(content), library)
    try:
        files.write_text(path, text)
    except OSError as error:
        raise UserError(f"--page={path} cannot be written: {error.strerror}") from error
    size = f"{len(text) / 1e6:.1f} MB"
    runs = content["runs"]
    print(printable(f"page: {path} ({_counted(len(runs))}, {size})"))
    noted = [run for run in runs if run["notes"]]
    if noted:
        first = f"{noted[0]['name']}: {noted[0]['notes'][0]}"
        say(f"{_counted(len(noted))} with notes on the page, such as {first}")


@cache
def read_library() -> str:
    """Text of Bokeh's scripts, from the installed package.

    Raises:
      UserError: it is not installed, or has no such scripts.
    """
    spec = importlib.util.find_spec("bokeh")  # finds the package and imports nothing
    places = list(spec.submodule_search_locations or []) if spec else []
    if not places:
        raise UserError("a page needs Bokeh: pip install 'jaxdl[page]'")
    folder = Path(places[0]) / "server" / "static" / "js"
    try:
        return "\n".join((folder / name).read_text(encoding="utf-8") for name in LIBRARY)
    except OSError as error:
        raise UserError(
            f"Bokeh's scripts cannot be read in {folder} ({error.strerror}): "
            "pip install --force-reinstall 'jaxdl[page]'"
        ) from error


def _counted(runs: int) -> str:
    """Number of runs in words."""
    return f"{runs:,} run{'' if runs == 1 else 's'}"


def _static(name: str) -> str:
    """Text of one of the package's own files."""
    return (resources.files("jaxdl.page") / "static" / name).read_text(encoding="utf-8")


def _inert(script: str) -> str:
    """A script that cannot end its element, nor begin a comment there.

    Both sequences can stand in texts and regular expressions only, where the escape means the same.
    """
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _packed(text: str) -> str:
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()
