/* Runs as JSON text, because a million of them take seconds in Python. */
#include "runs_json.h"

/* Writes a decimal number; returns the end of it. */
static char *number(char *to, uint64_t value)
{
    char digits[20];
    unsigned count = 0;
    do
        digits[count++] = (char)('0' + value % 10);
    while (value /= 10);
    while (count)
        *to++ = digits[--count];
    return to;
}

uint64_t xd_runs_json(const xd_run *runs, uint64_t count, char *to)
{
    char *at = to;
    for (uint64_t i = 0; i < count; i++) {
        const uint64_t fields[] = {runs[i].va, runs[i].length, runs[i].gpa, runs[i].writable, runs[i].cache};
        for (unsigned field = 0; field < 5; field++) {
            *at++ = field ? ',' : '[';
            at = number(at, fields[field]);
        }
        *at++ = ']';
        *at++ = ',';
    }
    return (uint64_t)(at - to) - (count != 0);
}
