/* stats.c: what -d stats shows when a program ends.
 *
 * Neutral. The others count where C code runs anyway, generated code never. */
#include "emu.h"

#include <time.h>
#include <unistd.h>

struct stats stats;

static uint64_t read_clock(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

uint64_t stats_clock(void)
{
    return read_clock(CLOCK_THREAD_CPUTIME_ID);
}

/* One write: processes share the log. */
void stats_print(void)
{
    if (!(opt.log & LOG_STATS) || !this_cpu || this_cpu->vfork_child)
        return;
    log_printf("stats of process %d\n"
               "superblocks          %lu\n"
               "blocks               %lu\n"
               "instructions         %lu\n"
               "guest bytes          %lu\n"
               "host bytes           %lu\n"
               "flushes              %lu\n"
               "missed by direct     %lu\n"
               "missed by indirect   %lu\n"
               "missed by return     %lu\n"
               "translation us       %lu\n"
               "CPU us               %lu\n",
               (int)getpid(), stats.superblocks, stats.blocks, stats.insns, stats.guest_bytes,
               stats.host_bytes, stats.flushes, stats.looked_up[EXIT_LINK],
               stats.looked_up[EXIT_MISS], stats.looked_up[EXIT_RETURN],
               stats.translation_ns / 1000, read_clock(CLOCK_PROCESS_CPUTIME_ID) / 1000);
}
