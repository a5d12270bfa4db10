"""What happens to an image on its way to the network: one file per channel, found by name."""

from trompe.attacks.channels.base import Channel, channels
from trompe.attacks.channels.identity import Identity

__all__ = ["Channel", "Identity", "channels"]
