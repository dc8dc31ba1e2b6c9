"""The part of the lab that runs on the developer's machine: images, guests, QEMU, verdict."""
