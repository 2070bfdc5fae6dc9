"""Links, pipes and giants in the place of files: nothing is followed, waited for, or read whole."""

import os
import stat

import pytest

from jaxdl import files
from jaxdl.errors import UserError


@pytest.fixture
def outside(tmp_path):
    path = tmp_path / "outside"
    path.write_text("theirs", encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


def test_a_file_is_replaced_whole_and_leaves_nothing_else(folder):
    files.write_text(folder / "a", "old")
    files.write_text(folder / "a", "new \u00e4")
    assert (folder / "a").read_text(encoding="utf-8") == "new \u00e4"
    assert [path.name for path in folder.iterdir()] == ["a"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((folder / "a").stat().st_mode) == 0o666 & ~umask


def test_a_failure_in_the_middle_changes_nothing(folder):
    files.write_text(folder / "a", "old")

    def fail():
        with files.replacing(folder / "a") as file:
            file.write(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (folder / "a").read_text(encoding="utf-8") == "old"
    assert [path.name for path in folder.iterdir()] == ["a"]


def test_a_link_is_replaced_and_not_followed(folder, outside):
    (folder / "a").symlink_to(outside)
    files.write_text(folder / "a", "ours")
    assert outside.read_text(encoding="utf-8") == "theirs"
    assert not (folder / "a").is_symlink()


def test_the_name_of_a_half_written_file_is_another_each_time(folder):
    names = set()
    for _ in range(3):
        with files.replacing(folder / "a"):
            names |= {path.name for path in folder.iterdir()} - {"a"}
    assert len(names) == 3


def test_leftovers_are_cleared_and_what_they_link_to_is_not(folder, outside):
    (folder / "plots").mkdir()
    (folder / ".a.0123.part").symlink_to(outside)
    (folder / "plots" / ".b.png.4567.part").write_text("half", encoding="utf-8")
    (folder / "c.part").write_text("somebody's", encoding="utf-8")
    files.clear_parts(folder)
    assert sorted(path.name for path in folder.rglob("*")) == ["c.part", "plots"]
    assert outside.exists()


KINDS = {
    "link": lambda path, outside: path.symlink_to(outside),
    "pipe": lambda path, outside: os.mkfifo(path),
    "folder": lambda path, outside: path.mkdir(),
    "device": lambda path, outside: path.symlink_to("/dev/zero"),
    "giant": lambda path, outside: (path.touch(), os.truncate(path, 1 << 40)),
    "nothing": lambda path, outside: None,
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_not_read(kind, folder, outside):
    KINDS[kind](folder / "a", outside)
    with pytest.raises(UserError, match=r"^cannot read .*/a \(.+\): is .* a run folder\?$"):
        files.read_json(folder / "a")


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "[" * 100_000, "\0", '{"a": ' + "9" * 5000])
def test_what_is_no_json_object_is_one_line(text, folder):
    (folder / "a").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"^cannot read [^\n]*$"):
        files.read_json(folder / "a")


@pytest.mark.parametrize("name", ["config.json", "plots", "plots/curves.png", "checkpoints/3/x/y"])
def test_links_below_a_folder_are_refused_wherever_they_are(name, folder, outside):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    files.check_no_links(folder, ["config.json", "plots", "checkpoints"])
    path.symlink_to(outside.parent)  # a circle, were it followed
    with pytest.raises(UserError, match=f"{name} is a symbolic link to .*: put the file"):
        files.check_no_links(folder, ["config.json", "plots", "checkpoints"])
    files.check_no_links(folder, ["others"])
