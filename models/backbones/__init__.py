"""Video backbones with a region-of-interest head, by name."""

from models.backbones.registry import BackboneSpec, RoiScale, backbone, build, names

__all__ = ["BackboneSpec", "RoiScale", "backbone", "build", "names"]
