/* What the client can do, one function a word of its command line; each prints a line a check (gpu.h). */
#ifndef CHECKS_H
#define CHECKS_H

/* Callers: guest/i915/main.c. `size` is the optional number after a word. */
void check_stores(unsigned size);
void check_clock(unsigned size);
void check_contexts(unsigned size);
void check_spaces(unsigned size);
void check_batches(unsigned size);
void check_registers(unsigned size);
void check_privilege(unsigned size);
void check_waits(unsigned size);
void check_blits(unsigned size);
void check_aperture(unsigned size);
void check_errors(unsigned size);
void check_hangs(unsigned size);

#endif
