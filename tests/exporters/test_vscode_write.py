"""A launch.json is written whole and where it belongs, or left alone."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager

import pytest

from airflow_provider_sewer.core.errors import SewerError
from airflow_provider_sewer.exporters.vscode import launch_json, merged_launch_json, write_launch_json

from .launch_file import HANDWRITTEN

OTHER_USER = 65534


@pytest.fixture
def as_an_ordinary_user():
    """Drop root privileges for as long as a block lasts: root may write everywhere."""

    @contextmanager
    def lowered(folder):
        if os.geteuid() != 0:
            yield
            return
        closed = {path: mode(path) for path in (folder, *folder.parents) if not mode(path) & 0o001}
        for path, before in closed.items():
            path.chmod(before | 0o011)
        for path in (folder, *folder.rglob("*")):
            os.chown(path, OTHER_USER, OTHER_USER)
        os.seteuid(OTHER_USER)
        try:
            yield
        finally:
            os.seteuid(0)
            for path, before in closed.items():
                path.chmod(before)

    return lowered


def test_write_launch_json_creates_file_and_folder(tmp_path, train):
    """The first time, there is no .vscode folder."""
    file = tmp_path / "project" / ".vscode" / "launch.json"
    write_launch_json(file, [train])
    assert file.read_text(encoding="utf-8") == launch_json([train])
    assert os.listdir(file.parent) == ["launch.json"]


def test_write_launch_json_uses_default_mode_for_new_file(tmp_path, train):
    """It is not private just because it was written under a temporary name first."""
    (tmp_path / "ordinary").touch()
    write_launch_json(tmp_path / "launch.json", [train])
    assert mode(tmp_path / "launch.json") == mode(tmp_path / "ordinary")


def test_write_launch_json_keeps_mode_and_bytes(tmp_path, train):
    """Byte order mark and line ends pass through the file system as well."""
    file = tmp_path / "launch.json"
    existing = "\ufeff" + HANDWRITTEN.replace("\n", "\r\n")
    file.write_bytes(existing.encode("utf-8"))
    file.chmod(0o640)
    write_launch_json(file, [train])
    assert file.read_bytes().decode("utf-8") == merged_launch_json(existing, [train])
    assert mode(file) == 0o640


def test_write_launch_json_follows_symlink(tmp_path, train):
    """A link to a file in a folder of dotfiles stays a link; that file is changed."""
    target = tmp_path / "dotfiles" / "launch.json"
    target.parent.mkdir()
    target.write_text(HANDWRITTEN, encoding="utf-8")
    link = tmp_path / "launch.json"
    link.symlink_to("dotfiles/launch.json")
    write_launch_json(link, [train])
    assert link.is_symlink()
    assert target.read_text(encoding="utf-8") == merged_launch_json(HANDWRITTEN, [train])
    assert sorted(os.listdir(tmp_path)) == ["dotfiles", "launch.json"]


def test_write_launch_json_creates_target_of_dangling_symlink(tmp_path, train):
    """The folder of the target is made too."""
    link = tmp_path / "launch.json"
    link.symlink_to(tmp_path / "later" / "real.json")
    write_launch_json(link, [train])
    assert link.is_symlink()
    assert (tmp_path / "later" / "real.json").read_text(encoding="utf-8") == launch_json([train])


def test_write_launch_json_skips_unchanged_file(tmp_path, train):
    """Its time stamp stays, and no editor asks whether to load it again."""
    file = tmp_path / "launch.json"
    write_launch_json(file, [train])
    before = os.stat(file)
    write_launch_json(file, [train])
    assert (os.stat(file).st_ino, os.stat(file).st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_write_launch_json_keeps_invalid_file(tmp_path, train):
    """The message starts with the place, so that a terminal makes it a link."""
    file = tmp_path / "launch.json"
    file.write_bytes(b'{\r\n  "configurations": [\r\n')
    with pytest.raises(SewerError) as refused:
        write_launch_json(file, [train])
    assert str(refused.value).startswith(f"{file}:3:1: ")
    assert str(refused.value).endswith("; the file is unchanged")
    assert file.read_bytes() == b'{\r\n  "configurations": [\r\n'
    assert os.listdir(tmp_path) == ["launch.json"]


def test_write_launch_json_rejects_file_that_is_not_utf8(tmp_path, train):
    """Its bytes would not survive being read as anything else."""
    file = tmp_path / "launch.json"
    file.write_bytes(b'{"configurations": [] /* \xe4 */}')
    with pytest.raises(SewerError, match=r"launch\.json: byte 25 is not valid UTF-8; the file is unchanged"):
        write_launch_json(file, [train])
    assert file.read_bytes() == b'{"configurations": [] /* \xe4 */}'


def test_write_launch_json_rejects_directory(tmp_path, train):
    """The message names its kind."""
    with pytest.raises(SewerError, match="is a directory"):
        write_launch_json(tmp_path, [train])


def test_write_launch_json_rejects_file_in_place_of_folder(tmp_path, train):
    """Nothing is made beside it."""
    (tmp_path / ".vscode").write_text("mine")
    with pytest.raises(SewerError, match="Not a directory"):
        write_launch_json(tmp_path / ".vscode" / "launch.json", [train])
    assert (tmp_path / ".vscode").read_text() == "mine"


def test_write_launch_json_rejects_fifo(tmp_path, train):
    """Reading a pipe would wait for ever."""
    os.mkfifo(tmp_path / "launch.json")
    with pytest.raises(SewerError, match="not a regular file"):
        write_launch_json(tmp_path / "launch.json", [train])


def test_write_launch_json_rejects_symlink_loop(tmp_path, train):
    """Neither followed for ever nor replaced."""
    (tmp_path / "launch.json").symlink_to("launch.json")
    with pytest.raises(SewerError, match="symbolic links"):
        write_launch_json(tmp_path / "launch.json", [train])
    assert (tmp_path / "launch.json").is_symlink()


def test_write_launch_json_keeps_read_only_file(tmp_path, train, as_an_ordinary_user):
    """Its folder is writable, so it could be replaced; its own mode forbids that."""
    file = tmp_path / "launch.json"
    file.write_text("{}")
    file.chmod(0o444)
    with as_an_ordinary_user(tmp_path), pytest.raises(SewerError, match="cannot be read and written: Permission"):
        write_launch_json(file, [train])
    assert file.read_text() == "{}"


def test_write_launch_json_rejects_read_only_folder(tmp_path, train, as_an_ordinary_user):
    """No half-written draft can be left there, and none is."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "launch.json").write_text("{}")
    with as_an_ordinary_user(tmp_path):
        folder.chmod(0o555)
        with pytest.raises(SewerError, match="cannot be written: Permission"):
            write_launch_json(folder / "launch.json", [train])
    assert (folder / "launch.json").read_text() == "{}"
    assert os.listdir(folder) == ["launch.json"]


def test_write_launch_json_syncs_before_replacing(tmp_path, train, monkeypatch):
    """A power cut leaves either the old or the new text, never an empty file."""
    file = tmp_path / "launch.json"
    file.write_text(HANDWRITTEN, encoding="utf-8")
    merged = merged_launch_json(HANDWRITTEN, [train])
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append((os.fstat(descriptor).st_size, file.read_text())))
    write_launch_json(file, [train])
    assert synced == [(len(merged.encode()), HANDWRITTEN)]
    assert file.read_text(encoding="utf-8") == merged


def test_write_launch_json_on_full_disk_keeps_old_file(tmp_path, train, monkeypatch):
    """The draft is removed; the file is as it was."""
    file = tmp_path / "launch.json"
    file.write_text(HANDWRITTEN, encoding="utf-8")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SewerError, match="cannot be written: No space left on device; it is unchanged"):
        write_launch_json(file, [train])
    assert file.read_text(encoding="utf-8") == HANDWRITTEN
    assert os.listdir(tmp_path) == ["launch.json"]


def mode(file):
    return stat.S_IMODE(os.stat(file).st_mode)
