import gc
import json
import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_arc.arc.io.files import (
    dump_line,
    expand,
    no_cycle_search,
    parse_json,
    read_json,
    whole_file,
    whole_folder,
    write_json,
)
from lightning_arc.errors import DataError

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=3), x, max_size=3),
    max_leaves=8,
)


@given(values)
def test_a_value_survives_a_file(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("json") / "v.json"
    write_json(path, value)
    assert read_json(path) == value and parse_json(dump_line(value).encode(), "line") == value
    assert dump_line(value).count("\n") == 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "x: not JSON: line 1 column 1: Expecting value"),
        (b'{"a":\n [1, }', "x: not JSON: line 2 column 6: Expecting value"),
        (b"\x89PNG\xff", "x: not JSON: byte 0 is not UTF-8 text"),
        (b'"a\xff"', "x: not JSON: byte 2 is not UTF-8 text"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "x: 'c' stands twice in one object"),
        (b"[" * 100_000, "x: not JSON of this kind: nested too deeply"),
        (b"1" * 5000, "x: not JSON of this kind: it holds an integer of thousands of digits"),
    ],
)
def test_what_is_not_json_is_refused_with_the_place(data, message):
    with pytest.raises(DataError) as error:
        parse_json(data, "x")
    assert str(error.value) == message


def test_a_byte_order_mark_is_passed_over():
    assert parse_json(b"\xef\xbb\xbf[1]", "x") == [1]


def test_a_file_that_is_not_there_or_is_a_folder_is_refused_by_name(tmp_path):
    for path, reason in ((tmp_path / "none.json", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(DataError) as error:
            read_json(path)
        assert str(error.value) == f"{path}: cannot be read: {reason}"


def test_a_path_may_name_variables_and_a_home(monkeypatch):
    monkeypatch.setenv("SOME_FOLDER", "/some/$folder")
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("NO_SUCH_VARIABLE", raising=False)
    assert str(expand("$SOME_FOLDER/x${SOME_FOLDER}.json")) == "/some/$folder/x/some/$folder.json"
    assert str(expand("~/a$.json")) == "/home/someone/a$.json"
    for path in ("$NO_SUCH_VARIABLE/a", "a/${NO_SUCH_VARIABLE}"):
        with pytest.raises(DataError) as error:
            expand(path)
        assert str(error.value) == f"{path}: the environment variable NO_SUCH_VARIABLE is not set"


@pytest.mark.parametrize("fault", [ZeroDivisionError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, fault):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(fault), whole_file(path) as temporary:
        temporary.write_text("half of the n")
        raise fault
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_file_is_written_in_folders_that_are_made_with_the_rights_of_any_new_file(tmp_path):
    write_json(tmp_path / "new" / "folder" / "a.json", [1])
    (tmp_path / "other").touch()
    made = tmp_path / "new" / "folder" / "a.json"
    assert json.loads(made.read_text()) == [1] and os.listdir(made.parent) == ["a.json"]
    assert stat.S_IMODE(made.stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)


def test_what_cannot_be_written_is_refused_by_name(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "a.json", tmp_path / "folder"):
        with pytest.raises(DataError, match=rf"^{path}: cannot be written: "):
            write_json(path, [1])
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_the_search_for_cycles_is_paused_and_comes_back_after_an_error():
    with pytest.raises(ZeroDivisionError), no_cycle_search():
        assert not gc.isenabled()
        raise ZeroDivisionError
    assert gc.isenabled()


def test_a_folder_takes_its_place_whole_and_what_it_held_besides_stays(tmp_path):
    folder = tmp_path / "model"
    for content in ("one", "two"):
        with whole_folder(folder) as temporary:
            (temporary / "inner").mkdir()
            (temporary / "inner" / "weights").write_text(content)
            (temporary / "config").write_text(content)
        assert [(folder / name).read_text() for name in ("config", "inner/weights")] == [content] * 2
        (folder / "notes").write_text("mine")
    with pytest.raises(ZeroDivisionError), whole_folder(folder) as temporary:
        (temporary / "config").write_text("three")
        _ = 1 / 0
    assert (folder / "config").read_text() == "two" and (folder / "notes").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "model").write_text("")
    with pytest.raises(DataError, match=r"model: is a file, expected a folder"), whole_folder(tmp_path / "model"):
        pytest.fail("something was written")
