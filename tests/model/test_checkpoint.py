"""Checkpoints that others made: torn, damaged, of other programs, with code in them."""

import os
import zipfile
from pathlib import Path

import pytest
import torch

from lightning_arc.errors import DataError
from lightning_arc.model.checkpoint import check_checkpoint, check_state, read_checkpoint

WEIGHTS = {"model.a": torch.arange(1000.0).reshape(10, 100), "model.b": torch.ones(3)}


class Runs:
    """Code that runs where it is unpickled without restraint."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.fixture
def whole(tmp_path) -> Path:
    torch.save({"state_dict": WEIGHTS, "global_step": 3}, tmp_path / "a.ckpt")
    return tmp_path / "a.ckpt"


def refused(path: Path, message: str) -> None:
    for mmap in (False, True):
        with pytest.raises(DataError) as error:
            read_checkpoint(path, "model.ensemble", mmap)
        assert str(error.value).startswith(f"{path}: {message}"), str(error.value)
        assert str(error.value).endswith("(model.ensemble)") and "\n" not in str(error.value)


def test_a_whole_checkpoint_is_read(whole):
    for mmap in (False, True):
        found = read_checkpoint(whole, mmap=mmap)
        assert found["global_step"] == 3 and torch.equal(found["state_dict"]["model.a"], WEIGHTS["model.a"])


def test_one_flipped_bit_anywhere_in_a_weight_or_a_setting_is_found(whole):
    content = bytearray(whole.read_bytes())
    with zipfile.ZipFile(whole) as archive:
        members = [m for m in archive.infolist() if m.file_size > 16]
        places = {m.filename: content.find(archive.read(m)) + m.file_size // 2 for m in members}
    assert {Path(name).name for name in places} >= {"data.pkl", "0"}  # the settings, and the weights
    for place in places.values():
        content[place] ^= 1
        whole.write_bytes(content)
        refused(whole, "damaged checkpoint, Bad CRC-32 for file")
        content[place] ^= 1
    whole.write_bytes(content)
    read_checkpoint(whole)


def test_damage_anywhere_is_read_as_it_was_written_or_refused(whole):
    """Bytes between members, and of their descriptions, may be read by nobody; what is read is never something else."""
    content, before = whole.read_bytes(), read_checkpoint(whole)["state_dict"]
    for place in range(0, len(content), 37):
        whole.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            found = read_checkpoint(whole)["state_dict"]
        except DataError:
            continue
        assert all(torch.equal(found[name], before[name]) for name in before)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.99])
def test_a_torn_checkpoint_is_refused(whole, share):
    content = whole.read_bytes()
    whole.write_bytes(content[: int(share * len(content))])
    refused(whole, "not a checkpoint, or only a part of one")


def test_zeros_inside_are_found(whole):
    content = whole.read_bytes()
    whole.write_bytes(content[:1500] + bytes(1000) + content[2500:])
    refused(whole, "damaged checkpoint, ")


@pytest.mark.parametrize(
    "value", [[1, 2], {"weights": 1}, {"state_dict": {"a": 1}}, {"state_dict": [1]}, torch.ones(2)]
)
def test_what_has_no_weights_is_refused(tmp_path, value):
    torch.save(value, tmp_path / "a.ckpt")
    refused(tmp_path / "a.ckpt", "no checkpoint of a training, it has no state_dict of weights")


def test_code_in_a_checkpoint_is_named_and_not_run(tmp_path):
    ran = tmp_path / "ran"
    for content in ({"state_dict": WEIGHTS, "hyper_parameters": {"lora": Runs(ran)}}, Runs(ran)):
        torch.save(content, tmp_path / "a.ckpt")
        refused(
            tmp_path / "a.ckpt", "not a checkpoint, it holds something other than weights and plain settings (posix."
        )
    assert not ran.exists()


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "a.ckpt"
    refused(path, "no such checkpoint")
    path.mkdir()
    refused(path, "no such checkpoint")
    path.rmdir()
    path.write_text("text")
    refused(path, "not a checkpoint, or only a part of one")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "text")
    refused(path, "not a checkpoint, it holds no weights")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(10**6))  # a thousand times as large when it is read
    refused(path, "not a checkpoint, a/data.pkl is compressed")


def test_what_lightning_cannot_read_or_continue_is_refused():
    whole = {"pytorch-lightning_version": "2.6.0", "loops": {"a": 1}, "optimizer_states": [1], "lr_schedulers": [1]}
    check_state(whole, "a.ckpt", training=True)
    check_state({"pytorch-lightning_version": "2.6.0"}, "a.ckpt", training=False)
    for name in whole:
        for value in (None, [], "other"):
            with pytest.raises(DataError, match=f"^a.ckpt: .* it has no {name}"):
                check_state({**whole, name: value}, "a.ckpt", training=True)


def test_weights_of_another_size_are_refused_with_the_option():
    def check(saved, base=None, own=None):
        checkpoint = {"state_dict": saved} | ({} if own is None else {"base": own})
        named = None if base is None else {"model_path": "BASE", "fingerprint": base, "architecture": "A"}
        check_checkpoint(checkpoint, named, None, WEIGHTS, WEIGHTS)

    check(WEIGHTS)
    with pytest.raises(
        DataError, match=r"^model.model_path or model.scratch: the checkpoint's model.b is \[4\], the mod"
    ):
        check(WEIGHTS | {"model.b": torch.ones(4)})
    with pytest.raises(DataError, match=r"^model.lora: the checkpoint's model.b is \[4\], the model's \[3\]"):
        check(WEIGHTS | {"model.b": torch.ones(4)}, "f", {"fingerprint": "f"})
    with pytest.raises(DataError, match="^the model lacks 1 weights of the checkpoint, model.c among them"):
        check(WEIGHTS | {"model.c": torch.ones(4)})
    with pytest.raises(DataError, match="^model.model_path: the checkpoint belongs to None"):
        check(WEIGHTS, "f", "no dict")
