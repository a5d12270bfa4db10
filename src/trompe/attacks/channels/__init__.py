"""What happens to an image on its way to the network: one file per channel, found by name."""

from trompe.attacks.channels.base import Channel, channels
from trompe.attacks.channels.identity import Identity
from trompe.attacks.channels.jpeg import Jpeg
from trompe.attacks.channels.noise import Noise
from trompe.attacks.channels.resize import Resize
from trompe.attacks.channels.rounding import Rounding

__all__ = ["Channel", "Identity", "Jpeg", "Noise", "Resize", "Rounding", "channels"]
