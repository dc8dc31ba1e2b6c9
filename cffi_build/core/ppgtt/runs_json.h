#ifndef XD_RUNS_JSON_H
#define XD_RUNS_JSON_H
#include <stdint.h>
#include "walk.h"

/* Bytes that the text of one run takes at most, with its comma. */
enum { XD_RUN_JSON = 112 };

/*
 * Writes `count` runs as JSON, `[va,length,gpa,writable,cache]` each, with commas between them and none after the last.
 *
 * to: room for count * XD_RUN_JSON bytes. Returns how many bytes were written. Any thread may call it. Called by
 * ppgtt/read.py.
 */
uint64_t xd_runs_json(const xd_run *runs, uint64_t count, char *to);

#endif
