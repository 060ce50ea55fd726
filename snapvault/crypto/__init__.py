"""Keys, signatures, envelopes.  All primitives are those of ``cryptography`` and ``blake3``; docs/format/crypto.md."""
