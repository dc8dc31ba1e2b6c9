"""The device model's side of a hypervisor that is another process: ``xengt-dm sim``, :mod:`xengt_dm.sim.process`.

Theory of operation
===================

The embedded hypervisor runs in the process of ``xengt-dm sim``, with the domain, its vCPUs and the guest's program. A
device model in another process needs four things of it. None of them is a lock: what a device model holds is dropped
when its connection ends, at whatever instant that is, and nothing else is touched.

Hypercalls
    One message over a UNIX socket of type SOCK_SEQPACKET, and one message back (:mod:`.messages`). The kernel delivers
    a message whole or not at all, so a client that dies while it sends leaves no half message. Each connection has a
    thread of the sim to itself, which holds no lock while it receives or sends. A message that is not well formed, or
    asks for what is not there, is answered with an errno. A client is dropped when its connection ends.

Guest memory
    A file without a name (memfd), passed at the first message. A frame of the guest is a frame of that file. To map
    frames, a device model asks which frames of the file they are, and maps these itself. The sim counts one reference
    for each. When the guest gives back a frame that has references, the guest gets another frame of the file in its
    place, and the old one keeps its content until its last reference goes: a live mapping shows the old frame, stale,
    as on Xen. A device model drops a reference after it has unmapped the frame.

Slots
    A page in a file of its own, one for each ioreq server whose slots a device model has mapped. It exists until its
    last mapping is gone. Slots are shared memory with atomic accesses, as on Xen.

Event channels
    To the device model: an array of counters in a file, one for each local port, which the sim alone writes, and an
    eventfd that it writes after the counter. The device model compares the counters with what it last saw, so it needs
    no masks and no lock. To the vCPU: an eventfd for each vCPU, passed when a channel is bound. A notify is one write
    to it, and wakes the vCPU's thread with no other thread between. A vCPU looks at its slots after an event only.

With these descriptors a device model can write guest memory and slots, and wake vCPUs, as it can on Xen. It cannot
shrink the files, because they are sealed; it can make them larger, which takes nothing. It can harm the sim itself in
one way only: by making the eventfds blocking and filling them. The socket is for the sim's own user alone.

This side is Python on shared memory, eventfds and messages. It does not load the embedded hypervisor.
"""
