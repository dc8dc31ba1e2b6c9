"""The scenarios: GUESTS (programs to compile), SECONDS (time limit of the machine), run() -> figures, in dom0."""
