/* Lines of a trace in C: a page may need 512 of them, which take half a millisecond in Python. */
#include <string.h>
#include "decimal.h"
#include "page_lines.h"

static char *text(char *to, const char *from)
{
    size_t length = strlen(from);
    memcpy(to, from, length);
    return to + length;
}

static char *line(char *to, uint64_t gpa, uint32_t length, uint64_t value)
{
    to = text(to, length > 1 ? "{\"op\":\"fill\",\"gpa\":" : "{\"op\":\"store\",\"gpa\":");
    to = xd_decimal(to, gpa);
    to = text(to, length > 1 ? ",\"count\":" : ",\"size\":");
    to = xd_decimal(to, length > 1 ? length : 8);
    to = text(to, ",\"value\":");
    to = xd_decimal(to, value);
    return text(to, "}\n");
}

static char *page_lines(char *to, const xd_page_change *page)
{
    const uint64_t *before = page->before, *after = page->after;
    for (uint32_t i = 0, next; i < XD_PAGE_WORDS; i = next) {
        next = i + 1;
        if (before && before[i] == after[i])
            continue;
        while (next < XD_PAGE_WORDS && after[next] == after[i] && !(before && before[next] == after[next]))
            next++;
        to = line(to, page->gpa + 8 * (uint64_t)i, next - i, after[i]);
    }
    return to;
}

uint64_t xd_page_lines(char *to, const xd_page_change *pages, uint32_t count)
{
    char *at = to;
    for (uint32_t i = 0; i < count; i++)
        at = page_lines(at, &pages[i]);
    return (uint64_t)(at - to);
}
