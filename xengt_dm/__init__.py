"""xengt-dm: a Xen ioreq-server device model that shadows a virtual Intel GPU's page tables."""

__version__ = "0.1.0"
