"""Prompt settings of a person or a checkpoint: grid encoder, chat template and its arguments."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from lightning_arc.errors import DataError
from lightning_arc.prompt.chat_prompt import ChatTemplatePrompt
from lightning_arc.prompt.chat_template import check_arguments, read_template
from lightning_arc.prompt.grid_encoders import GridEncoder
from lightning_arc.prompt.parser import parse_encoder
from lightning_arc.prompt.positions import Positions, model_has_grid_positions
from lightning_arc.prompt.prompt_encoder import PromptEncoder
from lightning_arc.prompt.tokenizer import load_tokenizer
from lightning_arc.prompt.vocabulary import prompt_vocabulary

_KINDS = {"grid_encoder": str, "chat_template": str, "chat_template_kwargs": dict}


@dataclass(frozen=True)
class PromptOptions:
    """How prompts are written.

    Args:
        model_path: the model whose tokenizer is used (follows ``model.model_path``); ``null`` for the compact one.
        positions: positions of a model from scratch (follows ``model.scratch``); other models' configurations say it.
        trim_vocabulary: whether tokens are numbered among those that prompts can hold (follows the model's).
        grid_encoder: how grids are written, as an encoder, its string form, or ``null`` for the model's own.
        chat_template: file of a Jinja chat template; ``null`` for the model's own, or ChatML where it has none.
        chat_template_kwargs: further names that the template uses, such as ``enable_thinking``.

    Raises:
        DataError: names the argument of the template that cannot be given.
    """

    model_path: str | None = None
    positions: Positions = "sequence"
    trim_vocabulary: bool = False
    grid_encoder: GridEncoder | str | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        check_arguments(self.chat_template_kwargs or {})


@dataclass(frozen=True)
class PromptSettings:
    """How prompts are written, with encoder and template read. ``None`` means that of the model or the checkpoint.

    Args:
        grid_encoder: how grids are written.
        chat_template: text of a Jinja template.
        chat_template_kwargs: further names that the template uses.
    """

    grid_encoder: GridEncoder | None = None
    chat_template: str | None = None
    chat_template_kwargs: Mapping[str, Any] | None = None

    @classmethod
    def read(cls, options: PromptOptions) -> "PromptSettings":
        """Parse the string form of the encoder, and read the file of the template.

        Raises:
            DataError: if one of them is invalid.
        """
        encoder, path = options.grid_encoder, options.chat_template
        encoder = parse_encoder(encoder) if isinstance(encoder, str) else encoder
        return cls(encoder, None if path is None else read_template(path), options.chat_template_kwargs)

    def load(self, options: PromptOptions) -> PromptEncoder:
        """Make the prompt encoder of the model that the options name.

        Raises:
            DataError: if the model's tokenizer or configuration cannot be loaded, or prompts cannot be made with them.
        """
        grid_positions = model_has_grid_positions(options.model_path, options.positions)
        prompt_encoder = self.prompt_encoder(load_tokenizer(options.model_path), None, grid_positions)
        if options.trim_vocabulary:
            prompt_encoder = self.prompt_encoder(
                prompt_encoder.tokenizer, prompt_vocabulary(prompt_encoder), grid_positions
            )
        return prompt_encoder

    def prompt_encoder(
        self,
        tokenizer: PreTrainedTokenizerBase,
        kept: NDArray[np.int32] | None = None,
        grid_positions: bool = False,
    ) -> PromptEncoder:
        """Make a prompt encoder; its tokenizer keeps the chat template, which is therefore exported too."""
        template = self.chat_template, self.chat_template_kwargs
        prompt_encoder = PromptEncoder(tokenizer, self.grid_encoder, kept, *template, grid_positions)
        if isinstance(prompt_encoder.template, ChatTemplatePrompt):
            tokenizer.chat_template = prompt_encoder.template.template
        return prompt_encoder

    def resumed(self, prompt_encoder: PromptEncoder, state: Mapping[str, Any]) -> PromptEncoder:
        """Return a prompt encoder like another one, with a checkpoint's settings wherever these are ``None``.

        Raises:
            DataError: if the checkpoint's prompts have tokens that a trimmed vocabulary lacks.
        """
        try:
            return self.or_remembered(state).prompt_encoder(
                prompt_encoder.tokenizer, prompt_encoder.kept, prompt_encoder.grid_positions
            )
        except DataError as error:
            if prompt_encoder.kept is None:
                raise
            raise DataError(
                f"{error}; with model.trim_vocabulary, give the data.chat_template, data.chat_template_kwargs and "
                "data.grid_encoder of the checkpoint's training"
            ) from error

    def or_remembered(self, state: Mapping[str, Any]) -> "PromptSettings":
        """Return these settings with a checkpoint's in place of those that are ``None``.

        Raises:
            DataError: if the checkpoint's settings do not have the form that `remembered` returns.
        """
        for name, kind in _KINDS.items():
            if name in state and not isinstance(state[name], kind):
                raise DataError(
                    f"ckpt_path: the checkpoint's {name} is {state[name]!r:.40}, expected a {kind.__name__}"
                )
        found = {name: state[name] for name in _KINDS if getattr(self, name) is None and name in state}
        if "grid_encoder" in found:
            found["grid_encoder"] = parse_encoder(found["grid_encoder"])
        return replace(self, **found)


def remembered(prompt_encoder: PromptEncoder) -> dict[str, Any]:
    """Return the prompt settings as a checkpoint keeps them."""
    state: dict[str, Any] = {"grid_encoder": str(prompt_encoder.grid_encoder)}
    if isinstance(prompt_encoder.template, ChatTemplatePrompt):
        state |= {
            "chat_template": prompt_encoder.template.template,
            "chat_template_kwargs": prompt_encoder.template.arguments,
        }
    return state
