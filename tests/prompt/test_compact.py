"""The compact vocabulary: frozen, since the bundled model is trained with it."""

import json

from transformers import AutoTokenizer

from lightning_arc.prompt.compact import COUNTS, DIGITS, SPECIAL, compact_tokenizer, is_compact


def test_the_vocabulary_is_the_one_that_models_were_trained_with():
    names = ["pad", "end", "ask", "yes", "no", "input", "output", "option"]
    names += ["task", "verify", "select", "inputs", "outputs"]
    expected = [f"<{name}>" for name in names] + list("0123456789")
    expected += [f"<{what}{n}>" for what in "hwr" for n in range(1, 31)]
    assert [*SPECIAL, *DIGITS, *COUNTS] == expected
    assert compact_tokenizer().get_vocab() == {token: i for i, token in enumerate(expected)}


def test_it_is_the_same_after_saving_and_loading(compact):
    text = "<task><input><h1><w12><r1>012345678901<output>"
    made = compact_tokenizer()
    assert compact.get_vocab() == made.get_vocab()
    assert compact(text).input_ids == made(text).input_ids
    assert len(compact(text).input_ids) == 5 + 12 + 1
    assert compact.decode(compact(text).input_ids) == text
    assert (compact.pad_token, compact.eos_token) == ("<pad>", "<end>")
    assert is_compact(compact)


def test_a_character_outside_of_it_is_one_padding_token(compact):
    assert compact("0é1").input_ids == [13, 0, 14]


def test_only_the_very_vocabulary_counts_as_compact(qwen, compact, tmp_path):
    assert not is_compact(qwen)
    compact.save_pretrained(tmp_path)
    file = tmp_path / "tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["<h1>"], vocabulary["<h2>"] = vocabulary["<h2>"], vocabulary["<h1>"]
    file.write_text(json.dumps(content))
    assert not is_compact(AutoTokenizer.from_pretrained(tmp_path))
