"""One table of cases, run on the embedded hypervisor and on real Xen by the same code."""
