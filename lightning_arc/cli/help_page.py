"""The page of ``COMMAND --help``: a command's own options first, and none that it does not use.

Hidden options are still accepted, so that a command reads the config of another one.
"""

from argparse import SUPPRESS, Action
from collections.abc import Mapping, Sequence
from typing import Any

from jsonargparse._link_arguments import ActionLink
from lightning.pytorch.cli import LightningArgumentParser

from lightning_arc.cli.callback_groups import GROUPS

USED_BY: Mapping[str, str] = {
    "fit": """
        model.scratch model.lora model.gradient_checkpointing model.compile model.optimizer model.learning_rate
        model.weight_decay model.betas model.schedule model.warmup_steps model.loss_weights
        data.train_datasets data.evaluation_tasks data.drop_leaks data.allow_leaks data.samples_per_epoch
        data.learn_demonstrations data.wrong_per_episode data.distractor_probability data.distractor_weights
        data.verify_correct_output_probability data.compose_new_task_probability data.compose_new_task_weights
        data.keep_background_probability
        trainer.max_epochs trainer.min_epochs trainer.max_steps trainer.min_steps trainer.max_time
        trainer.limit_train_batches trainer.overfit_batches trainer.val_check_interval trainer.check_val_every_n_epoch
        trainer.num_sanity_val_steps trainer.log_every_n_steps trainer.enable_checkpointing
        trainer.accumulate_grad_batches trainer.gradient_clip_val trainer.gradient_clip_algorithm
        trainer.detect_anomaly trainer.sync_batchnorm trainer.reload_dataloaders_every_n_epochs
        trainer.enable_autolog_hparams trainer.model_registry
        dry_run dry_run_steps
    """,
    "fit validate": "data.val_dataset trainer.limit_val_batches",
    "fit predict": "data.drop_demonstrations data.pool_demonstrations",
    "validate predict": "model.ranker trainer.inference_mode",
    "predict": """
        model.decoding model.stopping model.ensemble model.test_time
        data.tasks data.candidates data.generate data.leave_one_out data.with_right_output data.only_with_candidates
        data.test_time_prompts data.predict_prompt data.n_views
        trainer.limit_predict_batches
    """,
    "": """
        model data trainer trainer.limit_test_batches trainer.use_distributed_sampler return_predictions
        weights_only verbose
    """,
}
"""Options by the commands that show them; ``fit``, ``validate`` and ``predict`` show all others."""

EXPORTED = """
    config help seed_everything model.model_path model.adapter_path model.trim_vocabulary data.grid_encoder
    data.chat_template data.chat_template_kwargs folder ckpt_path merge dtype
"""
"""The options that ``export --help`` shows."""

TITLES = {
    "model": "model",
    "data": "data",
    **{name: group.title for name, group in GROUPS.items()},
    "trainer": "Lightning's trainer",
}
"""Headings of groups of options."""

CHECKPOINT = (
    "file of a checkpoint; ``last`` for the newest whole one under ``trainer.default_root_dir``, ``hpc`` for the one "
    "that was saved when a cluster's time was over"
)


class CommandParser(LightningArgumentParser):
    """The parser of a command. Its help hides options that its printed and saved settings keep."""

    _hidden: Sequence[Action] = ()

    def arrange(self, command: str, program: str) -> None:
        """Put the command's own options first in its help, and hide those that it does not use.

        Args:
            command: name of the command.
            program: name of the program.
        """
        self.usage = f"{program} {command} [--config FILE.yaml] [OPTIONS]"
        for action in self._actions:
            if action.dest == "ckpt_path":
                action.help = CHECKPOINT
        self._hidden = [action for action in self._actions if not shown(action, command)]
        assert self.groups is not None  # as options have been added
        for name, title in TITLES.items():
            self.groups[name].title = title
        own = [group for group in self._action_groups if any(a.dest == "ckpt_path" for a in group._group_actions)]
        for group in own:
            group.title = "of this command"
        first, *others = (group for group in self._action_groups if group not in own)
        self._action_groups = [first, *own, *others]

    def format_help(self, *args: Any) -> str:
        """Return the help without hidden options."""
        kept = [(action, action.help) for action in self._hidden]
        try:
            for action in self._hidden:  # elsewhere, suppressed help would take an option out of the settings
                action.help = SUPPRESS
            return super().format_help(*args)
        finally:
            for action, text in kept:
                action.help = text


def shown(action: Action, command: str) -> bool:
    """Return whether a command's help shows an option."""
    name = action.dest.removesuffix(".help")
    if command == "export":
        return name in EXPORTED.split()
    group = name.partition(".")[0]
    if group in GROUPS:
        return command in GROUPS[group].commands and name != group
    commands = next((commands for commands, names in USED_BY.items() if name in names.split()), None)
    return not isinstance(action, ActionLink) and (commands is None or command in commands.split())
