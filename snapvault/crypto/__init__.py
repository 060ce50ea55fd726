"""Keys, signatures and envelopes.  All primitives come from ``cryptography`` and ``blake3``; see docs/format/crypto.md."""
