"""A daemon is killed after every instruction or line of a request, and its successor must end where it would have.

    python -m tests.single_step [--points N] [--case WORDS]

Each run is a domain of its own, on a sim (:mod:`.harness`): a guest prepares tables, spaces and registers; a request or
a command (:mod:`.cases`) is begun; the daemon ends itself by SIGKILL after so many steps (:mod:`.stepping`); and a
successor answers. Then guest memory, registers, spaces, mappings, frames that trap, and what an orderly stop leaves are
compared with those of a run without a kill (:mod:`.sweep`).
"""
