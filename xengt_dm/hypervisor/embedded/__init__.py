"""An in-process hypervisor: one HVM domain as Xen keeps it for a device model, for tests and for hosts without Xen."""

from xengt_dm.hypervisor.embedded.domain import EmbeddedDomain
from xengt_dm.hypervisor.embedded.port import EmbeddedPort
from xengt_dm.hypervisor.embedded.vcpu import Vcpu

__all__ = ["EmbeddedDomain", "EmbeddedPort", "Vcpu"]
