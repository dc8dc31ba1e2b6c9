"""The scenarios: GUESTS (programs to compile), run() -> figures, in dom0; tests/lab/README.md has the rest."""
