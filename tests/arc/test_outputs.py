"""Output folders and files: those that cannot be written are refused before any work, and names of files are safe."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_arc.arc.io.files import file_name
from lightning_arc.arc.io.outputs import check_file, check_folder
from lightning_arc.errors import DataError
from lightning_arc.inference.journal import Journal


def test_a_folder_that_can_be_made_or_written_to_is_left_as_it_was(tmp_path):
    check_folder(tmp_path, "out")
    check_folder(tmp_path / "a" / "b", "out")
    check_file(tmp_path / "a" / "x.json", "out")
    (tmp_path / "there.json").write_text("old")
    check_file(tmp_path / "there.json", "out")
    assert [path.name for path in tmp_path.iterdir()] == ["there.json"]


def test_folders_that_cannot_be_written_to_are_refused_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for folder, reason in {
        tmp_path / "file": "is a file, expected a folder",
        tmp_path / "file" / "x": f"{tmp_path / 'file'} is a file, expected a folder",
        tmp_path / "link": "is a link to nothing, expected a folder",
        tmp_path / ("x" * 300): "cannot be written to: File name too long",
        tmp_path / "a" / ("x" * 300): "cannot be written to: File name too long",
        tmp_path / "a\0b": "cannot be written to: File name too long, or not valid",
        "/proc/x": "cannot be written to: No such file or directory",
    }.items():
        with pytest.raises(DataError, match=re.escape(reason)) as error:
            check_folder(folder, "trainer.default_root_dir")
        assert str(error.value).startswith(f"{folder}: ") and str(error.value).endswith(" (trainer.default_root_dir)")

    def read_only(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "mkdir", read_only)
    with pytest.raises(DataError, match=re.escape(f"{tmp_path}: cannot be written to: Read-only file system (out)")):
        check_folder(tmp_path, "out")


def test_a_file_that_is_a_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match=re.escape(f"{tmp_path}: is a folder, expected the name of a file (out)")):
        check_file(tmp_path, "out")


def test_a_journal_that_cannot_be_written_is_refused_by_its_name(tmp_path, monkeypatch):
    def journal(path: Path) -> Journal:
        return Journal(path, "signature", lambda record: record, lambda value: value)

    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=re.escape(f"{tmp_path / 'file' / 'j.jsonl'}: cannot be written: ")):
        journal(tmp_path / "file" / "j.jsonl")
    written = journal(tmp_path / "j.jsonl")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        DataError, match=re.escape(f"{tmp_path / 'j.jsonl'}: cannot be written: No space left on device")
    ):
        written.append({})


IDS = st.text(max_size=400) | st.sampled_from(
    ["", ".", "..", "a/b", "a\0b", "A", "a", "a~b", "CON", "x" * 300, "\ud800"]
)


@given(IDS, IDS)
def test_names_of_files_are_safe_and_differ_whatever_the_letters_case(one, other):
    name = file_name(one)
    assert re.fullmatch(r"[A-Za-z0-9_~.-]{1,100}", name) and not name.startswith(".")
    assert one == other or name.lower() != file_name(other).lower()


def test_ordinary_ids_are_their_own_file_names():
    assert [file_name(name) for name in ("007bbfb7", "arc_1d-1d_fill_0")] == ["007bbfb7", "arc_1d-1d_fill_0"]
