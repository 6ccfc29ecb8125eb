"""Video backbones with a region-of-interest head, by name."""

from microg.models.har.backbones.registry import backbone, build, names
from microg.models.har.backbones.spec import BackboneSpec, RoiScale

__all__ = ["BackboneSpec", "RoiScale", "backbone", "build", "names"]
