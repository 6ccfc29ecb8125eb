"""What the openai engine sends as a video is, in vLLM's own loader, exactly the frames that were sampled."""

from __future__ import annotations

import numpy as np
import pytest

from microg.models.vlm.api.openai import OpenAiEngine
from microg.models.vlm.base import Frames, Request, Sampling
from microg.models.vlm.sampling import Uniform


@pytest.mark.slow
def test_vllm_reads_the_pixels_and_indices_that_were_sampled_and_samples_no_more(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VLLM_NO_USAGE_STATS", "1")
    image = pytest.importorskip("vllm.multimodal.media.image")
    video = pytest.importorskip("vllm.multimodal.media.video")
    engine = OpenAiEngine("m", "http://127.0.0.1:1/v1", frames_as="video", picture_format="png")
    for count in (1, 3, 6, 8, 9, 16, 90):
        indices = tuple(Uniform(count=count).indices(90, 30))
        pixels = np.random.default_rng(count).integers(0, 256, (count, 20, 30, 3)).astype(np.uint8)
        body = engine.body(Request("k", "p", frames=Frames(pixels, indices, 30.0, 90)), Sampling())
        kind, _, data = (
            body["messages"][0]["content"][0]["video_url"]["url"].removeprefix("data:").partition(";base64,")
        )
        options = body["extra_body"]["media_io_kwargs"]["video"]
        read = video.VideoMediaIO(image.ImageMediaIO(), **options).load_base64(kind, data)
        seen, about = getattr(read, "media", read)
        assert np.array_equal(np.asarray(seen), pixels)
        assert list(about["frames_indices"]) == list(indices)
        assert (about["total_num_frames"], about["fps"], about["do_sample_frames"]) == (90, 30.0, False)
