from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, load_file, save_file
from torch import nn

from lightning_arc.data.batch import TreeBatch
from lightning_arc.errors import DataError
from lightning_arc.model.adapters import Adapters
from lightning_arc.model.attention.tree import use_tree_attention
from lightning_arc.model.load import Lora, add_lora, fingerprint
from lightning_arc.model.scoring import score_batch
from lightning_arc.model.ttt import TestTimeTrainer, TestTimeTrainingConfig

from .helpers import NO, YES, Trees, loss, random_tree

SETTINGS = TestTimeTrainingConfig(steps=6, trees=2, learning_rate=1e-2, r=4)


@pytest.fixture(params=["adapter", "second adapter", "all", "all with Muon"])
def case(request):
    return request.param


@pytest.fixture
def trained(case, model):
    use_tree_attention(model)
    return add_lora(model, Lora(r=4), None).eval() if case == "second adapter" else model.eval()


@pytest.fixture
def settings(case):
    if not case.startswith("all"):
        return SETTINGS
    return replace(SETTINGS, weights="all", optimizer="muon" if "Muon" in case else "adamw")


def trainer(
    model: nn.Module, folder, signature: str = "s", settings: TestTimeTrainingConfig = SETTINGS
) -> TestTimeTrainer:
    return TestTimeTrainer(Adapters(model), settings, loss, folder, signature)


def scores(one: TestTimeTrainer, adapted: bool) -> torch.Tensor:
    batch = TreeBatch.collate([random_tree(seed) for seed in (1000, 2000)], YES, NO)
    with one.adapted(one.adapters.own) if adapted else one.adapters.in_use(one.adapters.own) as model:
        scored = score_batch(model, batch)
    return torch.stack([scored.log_odds, scored.log_likelihood])


def test_training_on_a_dataset_lowers_its_loss_and_leaves_the_model_as_it_was(trained, settings, tmp_path):
    before, weights = fingerprint(trained), {name: p.clone() for name, p in trained.named_parameters()}
    one, dataset = trainer(trained, tmp_path, settings=settings), Trees(1)
    plain, batches = scores(one, adapted=False), [dataset.batch(number, 2) for number in range(6)]
    with torch.no_grad():  # as in prediction
        assert one.adapt("task", dataset, one.adapters.own).tokens == sum(sum(batch.n_tokens) for batch in batches)
    batch = batches[0]
    with one.adapted(one.adapters.own) as model:
        adapted_loss = loss(model, batch, [])
    with one.adapters.in_use(one.adapters.own) as model:
        plain_loss = loss(model, batch, [])
    assert adapted_loss < 0.95 * plain_loss
    assert torch.equal(scores(one, adapted=False), plain) and not torch.allclose(scores(one, adapted=True), plain)
    one.adapters.remove()
    assert fingerprint(trained) == before
    assert all(torch.equal(p, weights[name]) for name, p in trained.named_parameters())


def test_weights_that_are_trained_in_16_bits_are_not_those_of_the_first_step(model, tmp_path):
    settings = replace(SETTINGS, weights="all", steps=8)
    one, batch = trainer(model.eval(), tmp_path, settings=settings), Trees(1).batch(0, 2)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):  # which keeps its copies of weights
        one.adapt("task", Trees(1), one.adapters.own)
    other = trainer(model, tmp_path / "float32", settings=settings)
    other.adapt("task", Trees(1), other.adapters.own)
    losses = []
    for each in (one, other):
        with each.adapted(each.adapters.own) as adapted, torch.no_grad():
            losses.append(float(loss(adapted, batch, [])))
    assert losses[0] == pytest.approx(losses[1], rel=0.2)


def test_what_is_learned_of_a_task_does_not_depend_on_the_tasks_before(trained, settings, tmp_path):
    alone = trainer(trained, tmp_path / "alone", settings=settings)
    alone.adapt("second", Trees(2), alone.adapters.own)
    expected = scores(alone, adapted=True)
    alone.adapters.remove()
    after = trainer(trained, tmp_path / "after", settings=settings)
    torch.manual_seed(5)
    after.adapt("first", Trees(1), after.adapters.own)
    assert not torch.allclose(scores(after, adapted=True), expected)
    after.adapt("second", Trees(2), after.adapters.own)
    assert torch.equal(scores(after, adapted=True), expected)


def test_a_task_that_comes_again_is_not_trained_on_again(trained, settings, tmp_path):
    one, first, second = trainer(trained, tmp_path, settings=settings), Trees(1), Trees(2)
    one.adapt("first", first)
    expected = scores(one, adapted=True)
    one.adapt("second", second)
    assert one.adapt("first", first).tokens == 0 and first.n_batches == 6
    assert torch.equal(scores(one, adapted=True), expected)
    one.adapters.remove()
    resumed = trainer(trained, tmp_path, settings=settings)
    assert resumed.adapt("first", first).tokens == 0 and torch.equal(scores(resumed, adapted=True), expected)


@pytest.mark.parametrize("damage", ["other signature", "half", "text", "other names", "other shapes"])
def test_a_file_of_anything_else_is_not_taken_for_the_adapter(model, tmp_path, damage):
    use_tree_attention(model)
    one, dataset = trainer(model.eval(), tmp_path), Trees(1)
    one.adapt("task", dataset)
    expected = scores(one, adapted=True)
    path = tmp_path / "task.safetensors"
    one.adapters.remove()
    settings = SETTINGS
    if damage == "half":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "text":
        path.write_text("no tensors")
    elif damage == "other names":
        other = trainer(model, tmp_path, settings=TestTimeTrainingConfig(steps=1, trees=2, target_modules=["q_proj"]))
        path.unlink()
        other.adapt("task", dataset)
        other.adapters.remove()
    elif damage == "other shapes":
        with safe_open(path, "pt") as file:
            about = file.metadata()
        save_file({name: p[..., :3].contiguous() for name, p in load_file(path).items()}, path, about)
    again = trainer(model, tmp_path, "other" if damage == "other signature" else "s", settings)
    assert again.adapt("task", dataset).tokens > 0
    assert torch.equal(scores(again, adapted=True), expected)


def test_layers_are_run_again_in_the_backward_pass_where_that_is_wanted(trained, settings, tmp_path):
    plain = trainer(trained, tmp_path / "plain", settings=settings)
    plain.adapt("task", Trees(1), plain.adapters.own)
    expected = scores(plain, adapted=True)
    plain.adapters.remove()
    (trained.get_base_model() if hasattr(trained, "peft_config") else trained).gradient_checkpointing_enable(
        {"use_reentrant": False}
    )
    one, runs = trainer(trained, tmp_path / "again", settings=settings), []
    with one.adapted(one.adapters.own) as model:
        decoder, modules = model.get_decoder(), [*model.modules()]
    hook = decoder.layers[0].mlp.register_forward_pre_hook(lambda *_: runs.append(1))
    modes = [module.training for module in modules]
    with torch.no_grad():
        one.adapt("task", Trees(1), one.adapters.own)
    hook.remove()
    assert len(runs) == 2 * SETTINGS.steps
    assert torch.allclose(scores(one, adapted=True), expected)
    assert modes == [module.training for module in modules]


def test_an_empty_dataset_leaves_the_model_as_it_is(model, tmp_path):
    use_tree_attention(model)
    one = trainer(model.eval(), tmp_path)
    assert one.adapt("task", Trees(1, empty=True)).tokens == 0
    assert torch.equal(scores(one, adapted=True), scores(one, adapted=False))


def test_an_interrupted_training_goes_on_as_if_nothing_had_been(trained, settings, tmp_path, monkeypatch):
    settings = replace(settings, scope="set")
    whole = trainer(trained, tmp_path / "whole", settings=settings)
    whole.adapt("task", Trees(1), whole.adapters.own)
    expected = scores(whole, adapted=True)
    whole.adapters.remove()
    monkeypatch.setattr("lightning_arc.model.ttt.SAVE_SECONDS", -1.0)
    torn = trainer(trained, tmp_path / "torn", settings=settings)

    class Killed(Trees):
        def batch(self, number, n_trees):
            if number == 4:
                raise KeyboardInterrupt
            return super().batch(number, n_trees)

    with pytest.raises(KeyboardInterrupt):
        torn.adapt("task", Killed(1), torn.adapters.own)
    torn.adapters.remove()
    for signature, steps in (("other", 6), ("s", 2)):
        again, dataset = trainer(trained, tmp_path / "torn", signature, settings), Trees(1)
        if signature == "other":  # of another run: from the beginning, and what was saved is replaced
            kept = (tmp_path / "torn" / "task.training").read_bytes()
        result = again.adapt("task", dataset, again.adapters.own)
        assert dataset.n_batches == steps and result.seconds > 0
        assert result.tokens == sum(sum(Trees(1).batch(number, 2).n_tokens) for number in range(6))
        assert torch.equal(scores(again, adapted=True), expected)
        again.adapters.remove()
        assert [path.name for path in (tmp_path / "torn").iterdir()] == ["task.safetensors"]
        (tmp_path / "torn" / "task.safetensors").unlink()
        (tmp_path / "torn" / "task.training").write_bytes(kept)
    path = tmp_path / "torn" / "task.training"
    with safe_open(path, "pt") as file:
        about = file.metadata()
    tensors = load(path.read_bytes())  # not from the file, which is written over
    last = max(name for name in tensors if name.startswith(("exp_avg/", "momentum_buffer/")))
    for damage in ("half", "another shape", "a weight less", "no step"):  # nothing of such a file is taken
        path.write_bytes(kept)
        if damage == "half":
            path.write_bytes(kept[: len(kept) // 2])
        elif damage == "another shape":
            save_file(tensors | {last: tensors[last][:1].contiguous()}, path, about)
        elif damage == "a weight less":
            save_file({name: p for name, p in tensors.items() if name != last}, path, about)
        else:
            save_file(tensors, path, about | {"step": "many"})
        again, dataset = trainer(trained, tmp_path / "torn", settings=settings), Trees(1)
        again.adapt("task", dataset, again.adapters.own)
        assert dataset.n_batches == 6 and torch.equal(scores(again, adapted=True), expected), damage
        again.adapters.remove()
        (tmp_path / "torn" / "task.safetensors").unlink()


def test_a_training_ends_within_its_seconds(model, tmp_path):
    use_tree_attention(model)
    one, dataset = (
        trainer(model.eval(), tmp_path, settings=TestTimeTrainingConfig(steps=10**9, max_seconds=0.5, r=4)),
        Trees(1),
    )
    result = one.adapt("task", dataset)
    assert 0.5 <= result.seconds < 5 and 1 < dataset.n_batches < 1000


def test_the_rate_of_a_set_falls_with_its_steps_or_seconds_whichever_are_sooner_over():
    whole = TestTimeTrainingConfig(scope="set", steps=10, max_seconds=100.0, learning_rate=1.0)
    rates = [whole.rate(*at) for at in ((0, 0.0), (4, 20.0), (4, 75.0), (10, 20.0), (4, 100.0))]
    assert rates == pytest.approx([1.0, 0.6, 0.25, 0.0, 0.0])
    alone = TestTimeTrainingConfig(steps=10, learning_rate=1.0)
    assert [alone.rate(step, 1e9) for step in (0, 9, 10)] == [1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("name", "value"), [("max_seconds", 0), ("steps", -1), ("trees", 0), ("r", 0), ("alpha", 0), ("learning_rate", 0.0)]
)
def test_settings_that_cannot_be_are_named(name, value):
    with pytest.raises(DataError, match=rf"test_time\.{name} is {value}"):
        TestTimeTrainingConfig(**{name: value})


def test_a_layer_that_there_is_none_of_is_one_clear_error(model, tmp_path):
    with pytest.raises(DataError, match=r"test_time\.target_modules: "):
        trainer(model, tmp_path, settings=TestTimeTrainingConfig(target_modules=["nothing"]))


def test_copied_weights_are_used_in_the_precision_of_the_model(model, tmp_path):
    use_tree_attention(model)
    model.to(torch.bfloat16)
    settings = replace(SETTINGS, weights="all")
    for again in (False, True):  # learned, and read from the file
        one, dataset = trainer(model.eval(), tmp_path, settings=settings), Trees(1)
        assert (one.adapt("task", dataset).tokens == 0) == again
        with one.adapted() as copy:
            assert {p.dtype for p in copy.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in load_file(tmp_path / "task.safetensors").values()} == {torch.float32}


def test_all_weights_of_a_model_with_an_adapter_are_one_clear_error(model, tmp_path):
    adapted = add_lora(model, Lora(r=4), None)
    with pytest.raises(DataError, match=r"test_time\.weights is all, but the model has an adapter: export it"):
        trainer(adapted, tmp_path, settings=replace(SETTINGS, weights="all"))
