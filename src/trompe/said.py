"""What is said of an error of a model's own code, in the same words wherever it is met."""

from __future__ import annotations

from trompe.errors import TrompeError

NO_LONGER = (
    "the model's output no longer depends differentiably on its input: no detach(), and nothing "
    "that switches gradients off, may come later in its code"
)
OVERWRITES = (
    "the model overwrites numbers that its own gradient needs, by an operation in place such as "
    "x.mul_(): write it out of place, x = x.mul(...)"
)


def known(error: BaseException) -> str | None:
    """What an error of a model's code means, if it is one of those that are known."""
    text = str(error)
    if "does not require grad" in text:  # it did when the model was tried
        return NO_LONGER
    if "modified by an inplace operation" in text:
        return OVERWRITES
    return None


def reason(error: BaseException, called: str | None = None) -> str:
    """An error as one line, with its kind.

    Args:
        error: whatever was raised.
        called: the image that was worked on alone, which the error knows as image 0.
    """
    text = str(error)
    if isinstance(error, TrompeError) and called is not None:
        text = text.replace("image 0", f"image '{called}'")
    kind = "ModelError" if known(error) else type(error).__name__
    return " ".join(f"{kind}: {known(error) or text}".split())
