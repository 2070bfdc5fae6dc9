"""oneDNN's library, for the tests of what calls it."""

import pytest

from jaxdl.nn import onednn


@pytest.fixture(scope="session")
def engine():
    """The library; skips a test where its wheel, a compiler or the instructions lack."""
    if onednn.describe() == "XLA":
        pytest.skip(onednn.reason() or "oneDNN is not enabled")
    return onednn.current()
