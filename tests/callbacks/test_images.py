"""Pictures go to any logger that takes them; the others are named once."""

import numpy as np
import pytest

from lightning_arc.callbacks import images
from lightning_arc.callbacks.images import log_picture, picture_loggers


class Taker:
    def __init__(self):
        self.taken = []

    def log_image(self, key, images, step=None):
        self.taken.append((key, len(images), step))


class Refuser:
    pass


def test_a_logger_that_takes_pictures_gets_them_and_another_is_named_once(monkeypatch):
    monkeypatch.setattr(images, "_refused", set())
    taker = Taker()
    with pytest.warns(UserWarning, match="^Refuser takes no pictures") as warned:
        for _ in range(2):
            log_picture(picture_loggers([taker, Refuser()]), "name", np.zeros((2, 2, 3), np.uint8), 5)
    assert taker.taken == [("name", 1, 5)] * 2 and len(warned) == 1
