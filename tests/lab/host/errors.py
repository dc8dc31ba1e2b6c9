"""The one exception by which any part of the lab says why a run cannot pass."""


class LabError(Exception):
    """The run failed; the message is the reason that the verdict line shows."""
