"""Means over the steps since they were last read."""

import pytest
import torch

from lightning_arc.model.recent import Recent


def test_each_name_has_the_mean_of_the_steps_that_gave_it_and_then_begins_anew():
    recent = Recent()
    recent.add({"loss": torch.tensor(1.0, requires_grad=True), "share": 0.5})
    recent.add({"loss": torch.tensor(4.0)})
    recent.add({"loss": torch.tensor(4.0), "share": 0.0})
    assert recent.means() == {"loss": pytest.approx(3.0), "share": pytest.approx(0.25)}
    assert recent.means() == {}
    recent.add({"share": 1.0})
    assert recent.means() == {"share": 1.0}
