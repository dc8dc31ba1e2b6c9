#include "eventfd_channels.h"

#include <errno.h>
#include <sys/types.h>
#include <unistd.h>

int xd_eventfd_take(void *channels)
{
    xd_eventfd_channels *all = channels;
    uint64_t rings;
    int fired = 0;
    if (read(all->fd, &rings, sizeof(rings)) < 0 && errno != EAGAIN && errno != EINTR)
        return -errno;
    for (uint32_t port = 0; port < all->most; port++) {
        uint32_t raised = __atomic_load_n(&all->words[2 * port], __ATOMIC_ACQUIRE);
        if (all->wake[port] && raised != all->taken[port]) {
            all->taken[port] = raised;
            fired++;
        }
    }
    return fired;
}

int xd_eventfd_unmask(void *channels)
{
    (void)channels;
    return 0;
}

int xd_eventfd_notify(void *channels, uint32_t port)
{
    const xd_eventfd_channels *all = channels;
    uint64_t one = 1;
    if (port >= all->most || !all->wake[port])
        return -ENOTCONN;
    if (!__atomic_load_n(&all->words[2 * port + 1], __ATOMIC_ACQUIRE))
        return 0;
    if (write(all->wake[port], &one, sizeof(one)) < 0 && errno != EAGAIN) /* it is full, so the vCPU has been told */
        return -errno;
    return 0;
}
