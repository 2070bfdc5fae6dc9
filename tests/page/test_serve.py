import http.client
import json
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading

import pytest

from jaxdl.__main__ import run
from jaxdl.errors import UserError
from jaxdl.page import html, serve
from jaxdl.page.payload import payload, to_json
from tests.page.made import finished, make_run


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A server of a folder of runs, which reads it at each request."""
    monkeypatch.setattr(html, "read_library", lambda: "")
    monkeypatch.setattr(serve, "FRESH", 0.0)
    root = tmp_path / "runs"
    root.mkdir()
    with serve.Server([root], 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server, root
        server.shutdown()
        thread.join()


def connected(server):
    """A socket to the server."""
    client = socket.socket()
    client.settimeout(30)
    client.connect(("127.0.0.1", server.server_port))
    return client


def ask(server, path, hosts=None, method="GET"):
    """Status, headers and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    connection.sock = connected(server)
    connection.putrequest(method, path, skip_host=True)
    for host in [f"127.0.0.1:{server.server_port}"] if hosts is None else hosts:
        connection.putheader("Host", host)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, answer.headers, body


def test_the_content_is_that_of_report_while_runs_begin_end_and_go(served):
    server, root = served
    address = f"/content?token={server.token}"

    def content():
        status, headers, body = ask(server, address)
        assert status == 200
        assert ask(server, f"{address}&have={headers['X-Digest']}")[0] == 204
        return json.loads(body)

    assert "has no run" in content()["problem"]
    make_run(root / "a", lines=[{"step": 1, "split": "train", "loss": 1.0}])
    assert [one["state"] for one in content()["runs"]] == ["killed"]
    finished(root / "b", 0.5)
    assert [one["state"] for one in content()["runs"]] == ["killed", "done"]
    (root / "b" / "config.json").write_text("{", encoding="utf-8")
    assert [one["state"] for one in content()["runs"]] == ["killed", "unreadable"]
    shutil.rmtree(root / "b")
    finished(root / "c", 0.75)
    assert to_json(content()) == to_json(payload([root]))
    shutil.rmtree(root)
    assert "is not a folder" in content()["problem"]


def test_requests_that_are_refused(served):
    server, root = served
    port, token = server.server_port, server.token
    secret = f"?token={token}"
    for path in ("/", "/content", "/?token=", f"/?token={token[:-1]}", f"/?token={token}x",
                 f"{'/'}?token={token}&token={token}", "/?token=%ff", f"/?Token={token}",
                 "/?token=" + "x" * 5000, "/../x", "//", "*", "http://x/?token=a"):  # fmt: skip
        status, _, body = ask(server, path)
        assert (status, body) in ((403, ""), (414, "")), path
    for path in (f"/x{secret}", f"/../etc/passwd{secret}", f"/content/../content{secret}",
                 f"/%2e%2e/x{secret}", f"/content/{secret}",
                 f"http://127.0.0.1:{port}/content{secret}", f"/page.js{secret}"):  # fmt: skip
        assert ask(server, path)[::2] == (404, ""), path
    own = f"127.0.0.1:{port}"
    for hosts in ((), ("evil.example",), (f"evil.example:{port}",), ("127.0.0.1",), (own, own),
                  (f"127.0.0.1:{port + 1}",), (f"127.0.0.1.x.example:{port}",), ("",)):  # fmt: skip
        assert ask(server, f"/content{secret}", hosts)[0] == 403, hosts
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "HEAD", "NONSENSE"):
        status, headers, body = ask(server, f"/content{secret}", method=method)
        assert (status, headers["Allow"], body) == (405, "GET", "")
        assert ask(server, "/content", method=method)[::2] == (403, "")
    assert list(root.iterdir()) == []


def test_answers_keep_the_token_to_themselves(served):
    server, _ = served
    status, headers, body = ask(
        server, f"/?token={server.token}", [f"localhost:{server.server_port}"]
    )
    assert status == 200
    assert "connect-src 'self'" in body
    assert server.token not in body
    for name, value in serve.HEADERS.items():
        assert headers[name] == value
    assert headers["Server"].strip() == "jaxdl"
    assert "Access-Control-Allow-Origin" not in headers


def test_it_listens_on_this_machine_alone(served):
    server, _ = served
    assert server.socket.getsockname()[0] == "127.0.0.1"
    assert len(server.token) >= 43  # 256 bits
    with serve.Server([], 0) as other:
        assert other.token != server.token


def test_clients_that_send_nothing_or_nonsense_stop_nobody(served):
    server, _ = served
    silent = connected(server)
    for nonsense in (b"\0" * 100, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"x" * 70_000):
        with connected(server) as client:
            client.sendall(nonsense)
    assert ask(server, f"/content?token={server.token}")[0] == 200
    silent.close()


def test_mistakes_are_one_line(tmp_path, served):
    server, root = served
    for arguments, text in (
        ([str(tmp_path / "x")], "is not a folder"),
        ([str(root), "--port=65536"], "--port=65536: give one from 0 to 65535"),
        ([str(root), f"--port={server.server_port}"], "cannot be opened"),
        ([str(root), "--port=-1"], "is not a whole number"),
    ):
        with pytest.raises(UserError, match=text):
            run(["watch", *arguments])


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it(number, status, tmp_path):
    pytest.importorskip("bokeh")
    command = [sys.executable, "-m", "jaxdl", "watch", str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    ) as one:
        address = one.stdout.readline()
        assert address.startswith("http://127.0.0.1:")
        one.send_signal(number)
        _, err = one.communicate(timeout=60)
    assert one.returncode == status
    assert err == f"stopped by signal {int(number)}: the address answers no more\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("closing", [">&-", ">/dev/null", ">/dev/full"])
def test_an_address_that_nobody_would_see_is_an_error(closing, tmp_path):
    pytest.importorskip("bokeh")
    command = shlex.join([sys.executable, "-m", "jaxdl", "watch", str(tmp_path)])
    done = subprocess.run(
        ["sh", "-c", f"exec {command} {closing}"],
        stderr=subprocess.PIPE,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: standard output ")
    assert done.stderr.count("\n") == 1
