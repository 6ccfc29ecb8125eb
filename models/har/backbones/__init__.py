"""Video backbones with a region-of-interest head, by name."""

from microg.models.har.backbones.registry import BackboneSpec, RoiScale, backbone, build, names

__all__ = ["BackboneSpec", "RoiScale", "backbone", "build", "names"]
