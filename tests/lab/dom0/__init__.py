"""The part of the lab that runs in dom0, with its Python and nothing of the project's own code."""
