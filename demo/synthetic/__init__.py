"""Procedurally rendered weightless people in a spacecraft, with exact boxes, actions, captions and questions.

`generate_dataset` makes clips, `generate_footage` raw footage with cuts; `annotate` labels what was curated from it.
"""

from microg.demo.synthetic.annotate import annotate
from microg.demo.synthetic.dataset import generate_dataset
from microg.demo.synthetic.footage import generate_footage

__all__ = ["annotate", "generate_dataset", "generate_footage"]
