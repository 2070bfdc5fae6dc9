"""Stand-ins for the programs that the shell scripts call."""

import os
import sys
from pathlib import Path

import pytest


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    """Writes programs that are found before all others; they log into `said` in their folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("STAND_INS", str(folder))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def write(**programs):
        for name, text in programs.items():
            path = folder / name.replace("_", "-")
            path.write_text(f"#!/usr/bin/env bash\nset -eu\n{text}", encoding="utf-8")
            path.chmod(0o755)
        return folder

    return write
