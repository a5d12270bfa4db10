"""The live page: choose a photo, draw what its explanation shall show, and watch it happen.

``live`` and ``pictures`` know nothing of the page; only ``page`` and ``serve`` import gradio, which
is optional.
"""
