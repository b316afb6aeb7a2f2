"""Token trees: one shared prefix and many branches, as token ids with the targets that are scored or trained."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

IGNORE = -100
"""The target of a position that is neither scored nor trained (PyTorch's ``ignore_index``)."""


class PromptKind(IntEnum):
    """What a target token is part of; losses and metrics are kept apart by it."""

    OUTPUT_FROM_EXAMPLES = 0
    VERIFY_OUTPUT_FROM_EXAMPLES = 1
    SELECT_OUTPUT_FROM_EXAMPLES = 2
    INPUT_FROM_INPUTS = 3
    OUTPUT_FROM_OUTPUTS = 4
    CODE_FROM_EXAMPLES = 5
    OUTPUT_FROM_CODE = 6
    INPUT_FROM_CODE = 7

    @property
    def label(self) -> str:
        """The kind's name as in prompt versions: ``output-from-examples`` and so on."""
        return self.name.lower().replace("_", "-")


@dataclass(frozen=True, eq=False)
class Branch:
    """One continuation of a tree's prefix.

    The first token is the last token of the prompt, so that the branch's first own token has a position that
    predicts it; position ``i`` predicts ``targets[i]``, which is ``tokens[i + 1]`` but for the last one.

    Args:
        tokens: ``(length,)`` ``int32`` token ids.
        targets: ``(length,)`` ``int32`` next tokens, ``IGNORE`` where none is scored.
        kinds: ``(length,)`` ``int8`` values of `PromptKind`; meaningless where the target is ``IGNORE``.
        weights: ``(length,)`` ``float32`` loss weights, 0 where a target is scored but not trained.
        answer: place of the judged answer in the episode's answers (`LabeledCandidate.index`), -1 if it is about none.
        correct: whether that answer is right; ``None`` where that is not known.
        positions: ``(length, 3)`` ``int32`` grid, row and column of each token; ``None`` for sequence positions.
    """

    tokens: NDArray[np.int32]
    targets: NDArray[np.int32]
    kinds: NDArray[np.int8]
    weights: NDArray[np.float32]
    answer: int = -1
    correct: bool | None = None
    positions: NDArray[np.int32] | None = None


@dataclass(frozen=True, eq=False)
class TokenTree:
    """One prompt with all its continuations.

    Args:
        prefix: ``(P,)`` ``int32`` prompt tokens without the last one, which every branch begins with.
        prefix_targets: ``(P,)`` ``int32`` next tokens that are trained within the prefix (outputs of demonstrations,
            as `PromptKind.OUTPUT_FROM_EXAMPLES`), ``IGNORE`` elsewhere.
        branches: the continuations.
        prompt: name and version of the prompt, for example ``verify-output-from-examples-v1``.
        positions: ``(P, 3)`` ``int32``, as of `Branch`.
    """

    prefix: NDArray[np.int32]
    prefix_targets: NDArray[np.int32]
    branches: tuple[Branch, ...]
    prompt: str = ""
    positions: NDArray[np.int32] | None = None

    def sequence(self, i: int) -> NDArray[np.int32]:
        """Return all token ids of branch ``i`` as one sequence, prefix and last target included."""
        branch = self.branches[i]
        tail = branch.targets[-1:] if branch.targets[-1] != IGNORE else branch.targets[:0]
        return np.concatenate([self.prefix, branch.tokens, tail])

    @property
    def longest(self) -> int:
        """Tokens of the longest single sequence that the model runs, prefix included."""
        return len(self.prefix) + max((len(b.tokens) for b in self.branches), default=0)
