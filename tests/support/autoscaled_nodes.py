"""What the autoscaler of a test's cluster starts nodes with."""

from __future__ import annotations

from functools import partial
from typing import Any
from unittest.mock import patch

from ray._private import parameter
from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider


class Provider(FakeMultiNodeProvider):
    """Ray's own provider for such tests, and nodes have the memory that their type says: Ray's refuses such types."""

    def _create_node_with_resources_and_labels(
        self, node_config: Any, tags: Any, count: int, resources: dict[str, float], labels: dict[str, str]
    ) -> None:
        others = {name: amount for name, amount in resources.items() if name != "memory"}
        with patch.object(parameter, "RayParams", partial(parameter.RayParams, memory=resources.get("memory"))):
            super()._create_node_with_resources_and_labels(node_config, tags, count, others, labels)
