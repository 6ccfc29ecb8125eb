"""pytorchvideo's builders as plain callables: their annotations say `Tuple[int]` for any tuple, among other slips."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytorchvideo.layers import nonlocal_net
from pytorchvideo.models import head, resnet, slowfast, x3d

create_nonlocal: Callable[..., Any] = nonlocal_net.create_nonlocal
create_resnet: Callable[..., Any] = resnet.create_resnet
create_roi_head: Callable[..., Any] = head.create_res_roi_pooling_head
create_slowfast: Callable[..., Any] = slowfast.create_slowfast
create_x3d: Callable[..., Any] = x3d.create_x3d
