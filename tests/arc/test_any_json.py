"""Readers against files of any content: they read them or refuse them by name in one line, and never fail otherwise."""

import json
import warnings

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_arc.arc import Pair, Task, read_candidates, read_submission, read_tasks
from lightning_arc.errors import DataError

ONE = np.array([[1]], np.int8)
TASKS = {"a": Task("a", (Pair(ONE, ONE),), (Pair(ONE, ONE),))}

cells = st.integers(-1, 11) | st.sampled_from([True, 0.5, None, "1", 10**30])
rows = st.lists(st.lists(st.integers(0, 9), max_size=3) | st.lists(cells, max_size=3), max_size=3)
names = st.sampled_from(["a", "train", "test", "input", "output", "n_train", "attempt_1", "attempt_2", "\n"])
anything = st.recursive(
    rows | cells | st.just([[1]]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
pair = st.fixed_dictionaries({"input": st.just([[1]]) | anything}, optional={"output": anything, "attempt_1": anything})
pairs = st.lists(pair, max_size=3) | anything
task = st.fixed_dictionaries({"train": pairs}, optional={"test": pairs, "n_train": anything}) | pairs
attempts = st.lists(st.dictionaries(names, rows, max_size=2) | st.lists(rows, max_size=2) | anything, max_size=2)
files = st.fixed_dictionaries({"a": task | attempts}) | anything


@settings(max_examples=300)
@given(files)
def test_any_json_is_read_or_refused_by_name_in_one_line(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(content))
    for read in (read_tasks, lambda path: read_candidates([path], TASKS), lambda path: read_submission(path, TASKS)):
        try:
            with warnings.catch_warnings(action="ignore"):
                read(path)
        except DataError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error) and len(str(error)) < 400


@settings(max_examples=100)
@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused_by_name_in_one_line(tmp_path_factory, content):
    for name in ("any.json", "any.zip", "any.parquet"):
        path = tmp_path_factory.getbasetemp() / name
        path.write_bytes(content)
        for read in (read_tasks, lambda path: read_candidates([path], TASKS), lambda path: read_submission(path)):
            try:
                read(path)
            except DataError as error:
                assert str(error).startswith(str(path)) and "\n" not in str(error)
