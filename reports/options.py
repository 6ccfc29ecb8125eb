"""How much a report shows."""

from __future__ import annotations

from dataclasses import dataclass, field

from microg.reports.clips.pictures import PictureStyle


@dataclass(frozen=True)
class ReportOptions:
    """The title of a page, how many clips with pictures a section shows, and how pictures are made."""

    title: str | None = None
    max_clips: int = 12
    picture: PictureStyle = field(default_factory=lambda: PictureStyle(width=480, quality=70, form="webp"))
