"""The ways to certify: one file per certificate, found by name."""

from trompe.certificates.methods.base import CertificateMethod, ProvedBound, certificates, proved

__all__ = ["CertificateMethod", "ProvedBound", "certificates", "proved"]
