"""Adapters: several LoRA adapters on one causal language model, any of which can be active at a time."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from peft import LoraConfig, PeftModel
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import nn
from torch.nn import Parameter
from transformers import PreTrainedModel

from lightning_arc.errors import DataError, first_line
from lightning_arc.model.adapter_folder import check_adapter, check_complete
from lightning_arc.model.fast_layers import use_fast_lora
from lightning_arc.model.load import without_wrapper


class Adapters:
    """The adapters on a model: those that it came with, and added ones, which `remove` takes off again.

    Args:
        model: a causal language model, or one with adapters as peft makes it.
    """

    def __init__(self, model: PreTrainedModel | PeftModel) -> None:
        self.peft = model if isinstance(model, PeftModel) else None
        self.model = without_wrapper(model)
        self.own: tuple[str, ...] = () if self.peft is None else tuple(self.peft.active_adapters)
        self._added: list[str] = []
        self._learned = {id(p) for p in model.parameters() if p.requires_grad}

    def add(self, name: str, config: LoraConfig) -> dict[str, Parameter]:
        """Add an adapter that changes nothing yet; return its weights, in float32 where they are narrower."""
        if self.peft is None:
            self.peft = PeftModel(self.model, config, name)
        else:
            self.peft.add_adapter(name, config)
        use_fast_lora(self.model)
        self._added.append(name)
        self.use(self.own)
        return self.weights(name)

    def load(self, name: str, folder: str) -> None:
        """Add a saved adapter.

        Raises:
            DataError: if the folder has none for this model.
        """
        check_adapter(folder)
        try:
            if self.peft is None:
                self.peft = PeftModel.from_pretrained(self.model, folder, name)
            else:
                self.peft.load_adapter(folder, name)
        except Exception as error:  # settings that do not fit the model make peft fail in many ways
            raise DataError(f"{folder}: no adapter could be loaded: {first_line(error)}") from error
        check_complete(self.peft, name, folder)
        use_fast_lora(self.model)
        self._added.append(name)
        self.use(self.own)

    def weights(self, name: str) -> dict[str, Parameter]:
        """Return an adapter's weights by their names in the model."""
        adapted = () if self.peft is None else self.peft.named_parameters()
        return {key: p for key, p in adapted if f".{name}." in f"{key}."}

    def use(self, names: Sequence[str]) -> None:
        """Activate the adapters of these names and no others; none of them is trained."""
        if self.peft is None:
            return
        tuner = self.peft.base_model
        assert isinstance(tuner, BaseTuner)
        if names:
            tuner.enable_adapter_layers()
            tuner.set_adapter(list(names), inference_mode=True)
        else:
            tuner.disable_adapter_layers()

    @contextmanager
    def in_use(self, names: Sequence[str]) -> Iterator[PreTrainedModel]:
        """Activate adapters within a context; afterwards those that the model came with are active."""
        self.use(names)
        try:
            yield self.model
        finally:
            self.use(self.own)

    def remove(self) -> None:
        """Take off the added adapters: layers, their names and the trained parameters are as before."""
        if self.peft is not None and self._added:
            if self.own:
                for name in self._added:
                    self.peft.delete_adapter(name)
            else:
                self.peft.unload()
                self.peft = None
        self._added = []
        self.use(self.own)
        for p in (self.model if self.peft is None else self.peft).parameters():
            p.requires_grad_(id(p) in self._learned)


def linear_names(model: nn.Module, but: Collection[nn.Module] = ()) -> list[str]:
    """Return the names, without those of parent modules, of all linear layers, including those with adapters.

    Args:
        model: a model.
        but: layers that are left out.
    """
    names: dict[str, None] = {}
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if name.startswith(inside) and inside:
            continue
        if isinstance(module, BaseTunerLayer):
            inside += (f"{name}.",)
        elif not isinstance(module, nn.Linear) or module in but:
            continue
        names[name.rpartition(".")[2]] = None
    return list(names)
