"""Procedurally rendered weightless people in a spacecraft, with exact boxes, actions, captions and questions."""
