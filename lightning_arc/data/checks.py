"""What the settings of the data module may be."""

from typing import TYPE_CHECKING

from lightning_arc.augment.composition import DEFAULT_WEIGHTS
from lightning_arc.augment.distractors import MAKERS
from lightning_arc.augment.weights import shares
from lightning_arc.errors import DataError
from lightning_arc.prompt.templates import FROM_CODE, PROMPTS, VERIFY
from lightning_arc.prompt.tree import PromptKind

if TYPE_CHECKING:
    from lightning_arc.data.module import ArcDataModule


def check_settings(data: "ArcDataModule") -> None:
    """Raise a `DataError` that names the first setting of a data module that is not as it must be."""
    options = data.options
    for name in (
        "verify_correct_output_probability",
        "compose_new_task_probability",
        "keep_background_probability",
        "distractor_probability",
    ):
        if not 0 <= getattr(options, name) <= 1:
            raise DataError(f"data.{name} is {getattr(options, name)}, expected 0 to 1")
    if not 0 <= data.held_out_fraction < 1:
        raise DataError(f"data.held_out_fraction is {data.held_out_fraction}, expected 0 to less than 1")
    if data.drop_leaks and data.allow_leaks:
        raise DataError("data.drop_leaks and data.allow_leaks are both true, expected at most one of them")
    for name, value in (
        ("batch_size", data.batch_size),
        ("n_views", data.n_views),
        ("max_seq_len", options.max_seq_len),
        ("max_tokens_per_batch", 1 if data.max_tokens_per_batch is None else data.max_tokens_per_batch),
        ("samples_per_epoch", data.samples_per_epoch),
        ("wrong_per_episode", options.wrong_per_episode),
    ):
        if value < 1:
            raise DataError(f"data.{name} is {value}, expected at least 1")
    if not 1 <= options.pool_demonstrations[0] <= options.pool_demonstrations[-1]:
        raise DataError(f"data.pool_demonstrations is {list(options.pool_demonstrations)}, expected 1 <= least <= most")
    if data.num_workers < 0:
        raise DataError(f"data.num_workers is {data.num_workers}, expected 0 or more")
    shares(options.compose_new_task_weights, DEFAULT_WEIGHTS, "data.compose_new_task_weights")
    shares(options.distractor_weights, MAKERS, "data.distractor_weights")
    if PROMPTS.get(data.predict_prompt) is not PromptKind.VERIFY_OUTPUT_FROM_EXAMPLES:
        raise DataError(f"data.predict_prompt {data.predict_prompt!r}: expected a verification prompt such as {VERIFY}")
    for prompt in data.test_time_prompts:
        if PROMPTS.get(prompt) in (None, *FROM_CODE):
            raise DataError(
                f"data.test_time_prompts: {prompt!r}: expected a prompt that needs no code, such as {VERIFY}"
            )


def check_prediction(data: "ArcDataModule", ensemble: bool, scope: str | None) -> None:
    """Raise a `DataError` where a prediction's data and its model do not go together.

    Args:
        data: what is predicted.
        ensemble: whether several models are asked.
        scope: of test-time training, as ``model.test_time`` has it.
    """
    if data.generate and ensemble:
        raise DataError("model.ensemble: candidates are written by one model; ranking takes the files of several")
    if data.test_time_scope != scope:
        raise DataError(
            f"data.test_time_scope is {data.test_time_scope}, expected {scope} as follows from model.test_time"
        )
    if scope == "set" and data.leave_one_out:
        raise DataError(
            "model.test_time.scope: set trains with the outputs that data.leave_one_out asks about; use scope: task"
        )
