from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lightning_arc.data.options import check_prediction
from lightning_arc.errors import DataError
from lightning_arc.model.adapters import Adapters
from lightning_arc.model.arc_model import ArcModel
from lightning_arc.model.ensemble import ModelEnsemble
from lightning_arc.model.load import Lora, fingerprint
from lightning_arc.model.ttt import TestTimeTrainer, TestTimeTrainingConfig

from .helpers import Trees, disturb, logits, loss


@pytest.fixture
def base(model, tmp_path) -> str:
    """The folder of a base model."""
    model.float().save_pretrained(tmp_path / "base")
    return str(tmp_path / "base")


def built(base: str, **settings) -> ArcModel:
    module = ArcModel(model_path=base, **settings)
    module.build()
    module.eval()
    return module


def trained_adapter(base: str, path: Path, seed: int = 0, **lora) -> tuple[str, torch.Tensor]:
    """A checkpoint of an adapter, and the logits of its model."""
    module = built(base, lora=Lora(r=4, **lora))
    disturb({name: p for name, p in module.model.named_parameters() if "lora_" in name and p.requires_grad}, seed)
    checkpoint = {"state_dict": module.state_dict(), "hyper_parameters": {"lora": {"r": 4, **lora}}}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)
    module.model.save_pretrained(path.with_suffix(""))
    return str(path), logits(module.model)


@pytest.mark.parametrize("lora", [{}, {"use_dora": True}, {"init": "orthogonal"}, {"dropout": 0.5}])
def test_every_member_has_the_logits_that_it_has_alone(base, tmp_path, lora):
    paths, alone = zip(
        *(trained_adapter(base, tmp_path / f"{seed}.ckpt", seed, **lora) for seed in (1, 2)), strict=True
    )
    module = built(base, ensemble=[paths[0], str(tmp_path / "2")])
    plain = logits(module.model)
    for number, expected in enumerate((plain, *alone)):
        with module.models.activate(number) as model:
            assert torch.equal(logits(model), expected)
    assert len({member.fingerprint for member in module.models.members}) == 3
    adapted = built(base, lora=Lora(r=4, **lora), ensemble=[paths[1]])
    adapted.load_state_dict(torch.load(paths[0], weights_only=True)["state_dict"], strict=False)
    for number, expected in enumerate(alone):
        with adapted.models.activate(number) as model:
            assert torch.equal(logits(model), expected)


def test_an_adapter_is_not_put_on_weights_that_it_was_not_trained_on(base, tmp_path):
    path, _ = trained_adapter(base, tmp_path / "a.ckpt")
    module = built(base, ensemble=[path])
    disturb(dict(module.model.named_parameters()), 5)  # as a checkpoint of all weights does
    with pytest.raises(DataError, match=r"^\S+a\.ckpt: was trained on \S+base, the first model has other weights"):
        _ = module.models


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_an_adapter_that_changed_its_base_shares_it_with_no_other(base, tmp_path, init):
    plain, _ = trained_adapter(base, tmp_path / "plain.ckpt")
    changing, _ = trained_adapter(base, tmp_path / "changing.ckpt", init=init)
    for module in (
        built(base, ensemble=[changing]),
        built(base, ensemble=[str(tmp_path / "changing")]),
        built(base, lora=Lora(r=4, init=init), ensemble=[plain]),
    ):
        with pytest.raises(DataError, match="changes its base"):
            _ = module.models


@pytest.mark.parametrize("kind", ["checkpoint", "folder"])
def test_whole_models_that_are_loaded_while_predicting_can_learn(base, tmp_path, kind):
    other = built(base)
    disturb(dict(other.model.named_parameters()), 5)
    torch.save({"state_dict": other.state_dict()}, tmp_path / "other.ckpt")
    other.model.save_pretrained(tmp_path / "other")
    module = built(base, ensemble=[str(tmp_path / ("other.ckpt" if kind == "checkpoint" else "other"))])
    with torch.no_grad():
        models = module.models
        assert models.members[1].fingerprint == fingerprint(other.model)

        def make(adapters: Adapters) -> TestTimeTrainer:
            return TestTimeTrainer(adapters, TestTimeTrainingConfig(steps=1, r=4), loss, tmp_path / "adapters", "s")

        models.add_trainers(make)
        assert models.adapt(1, Trees(1)).tokens > 0


def test_what_members_learn_of_a_task_has_names_of_its_own(base, tmp_path):
    path, _ = trained_adapter(base, tmp_path / "a.ckpt")
    models, names = built(base, ensemble=[path]).models, []
    models._trainers = {id(models.members[0].adapters): SimpleNamespace(adapt=lambda name, *_: names.append(name))}
    for number in range(2):
        for dataset in ("task", "task@pair1", "task.1"):
            models.adapt(number, SimpleNamespace(name=dataset))
    assert len(set(names)) == 6


@pytest.mark.parametrize("content", [b"", b"text", {"a": 1}, torch.zeros(2)])
def test_a_file_that_is_no_checkpoint_is_one_clear_error(model, tmp_path, content):
    path = tmp_path / "x.ckpt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(DataError, match=r"^\S+x\.ckpt: no .*\(model\.ensemble\)"):
        ModelEnsemble(model, [str(path)])


def test_what_a_task_is_learned_with_is_in_the_signature(base):
    plain = built(base, test_time=TestTimeTrainingConfig())
    assert plain.signature == built(base, test_time=TestTimeTrainingConfig(), loss_weights={}).signature
    weighted = built(base, test_time=TestTimeTrainingConfig(), loss_weights={"verify-output-from-examples": 3.0})
    others = [
        built(base, test_time=TestTimeTrainingConfig(**{name: 3})).signature
        for name in ("steps", "r", "alpha", "trees")
    ]
    assert len({plain.signature, weighted.signature, built(base).signature, *others}) == 7
    assert built(base).signature == built(base, loss_weights={"verify-output-from-examples": 3.0}).signature


def test_what_an_interrupted_prediction_left_is_gone_before_the_next_run(base, tmp_path):
    module = built(base, lora=Lora(r=4), ensemble=[trained_adapter(base, tmp_path / "a.ckpt")[0]])
    before = [(name, p.requires_grad) for name, p in module.named_parameters()]
    assert len(module.models.members) == 2
    assert [(name, p.requires_grad) for name, p in module.named_parameters()] != before
    module.setup("fit")
    assert [(name, p.requires_grad) for name, p in module.named_parameters()] == before


def test_settings_of_data_and_model_that_do_not_go_together_are_named():
    def data(**settings):
        return SimpleNamespace(**{"generate": False, "leave_one_out": False, "test_time_scope": None} | settings)

    check_prediction(data(test_time_scope="task", leave_one_out=True), ensemble=True, scope="task")
    check_prediction(data(test_time_scope="set"), ensemble=False, scope="set")
    with pytest.raises(DataError, match=r"data\.test_time_scope is None, expected task"):
        check_prediction(data(), ensemble=False, scope="task")
    with pytest.raises(DataError, match=r"model\.ensemble: "):
        check_prediction(data(generate=True), ensemble=True, scope=None)
    with pytest.raises(DataError, match=r"model\.test_time\.scope: "):
        check_prediction(data(test_time_scope="set", leave_one_out=True), ensemble=False, scope="set")


def test_adapters_of_an_ensemble_are_taken_off(base, tmp_path):
    module = built(base, ensemble=[trained_adapter(base, tmp_path / "a.ckpt")[0]])
    before = [name for name, _ in module.named_parameters()]
    _ = module.models
    module.teardown("predict")
    assert [name for name, _ in module.named_parameters()] == before
    assert not any("lora" in type(m).__module__ for m in module.modules())
