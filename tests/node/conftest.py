import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from nodekit import settings, write_toy_model  # noqa: E402


@pytest.fixture
def models(tmp_path):
    """A models folder with the toy model."""
    write_toy_model(tmp_path / "models" / "toy.onnx")
    return tmp_path / "models"


@pytest.fixture
def toy_node(start_node, pacs, models):
    """toy_node(**changes by section) -> a ready node with the toy model whose only PACS is the `pacs` fixture."""

    def start(**changes):
        return start_node(pacs=[pacs], changes=settings(models, **changes))

    return start
