"""Upper bounds that are true: how far an explanation can be moved within a ball, at most."""

from trompe.certificates.certificate import Certificate
from trompe.certificates.certify import certify
from trompe.certificates.methods import CertificateMethod, ProvedBound, certificates
from trompe.certificates.noise_certificate import NoiseCertificate
from trompe.certificates.noise_sandwich import NoiseLayer, NoiseSandwich, noise_sandwich
from trompe.certificates.sandwich import Sandwich, sandwich
from trompe.certificates.worst_case import Strongest, strongest_change

__all__ = [
    "Certificate",
    "CertificateMethod",
    "NoiseCertificate",
    "NoiseLayer",
    "NoiseSandwich",
    "ProvedBound",
    "Sandwich",
    "Strongest",
    "certificates",
    "certify",
    "noise_sandwich",
    "sandwich",
    "strongest_change",
]
