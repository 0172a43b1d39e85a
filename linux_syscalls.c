/* linux_syscalls.c: one row per system call, and the bodies of the small ones.
 *
 * Guest and host are the same kernel's clients with the same addresses: a call is passed on as it
 * is unless the kernel must not see it raw, and then its row has a body. This file knows the
 * numbers and arguments of x86_64 Linux. It must not know how code is run. */
#include "emu.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ADDRESS_END 0x7ffffffff000ull /* TASK_SIZE_MAX */
#define SIGRET      (-513)            /* what QEMU's plugins see as the result of rt_sigreturn */

/* x32 calls: a table of their own behind the common numbers, and a bit that selects it. */
#define X32_FIRST   512
#define X32_LAST    547
#define X32_BIT     0x40000000

struct syscall_row {
    const char *name;
    const char *format; /* arguments, for -strace: legend in linux_strace.c */
    syscall_body *body; /* NULL: the kernel does it */
};

int64_t host_syscall(long nr, const uint64_t *arg)
{
    long ret = syscall(nr, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);

    return ret == -1 ? -errno : ret;
}

bool guest_copy_string(char *buf, size_t size, uint64_t addr)
{
    while (size) {
        /* Page by page: the string may end where mapped memory ends. */
        size_t part = GUEST_PAGE - addr % GUEST_PAGE;

        if (part > size)
            part = size;
        if (!guest_copy(buf, (const void *)addr, part))
            return false;
        if (memchr(buf, '\0', part))
            return true;
        buf += part;
        addr += part;
        size -= part;
    }
    return false;
}

/* ---- ending ---- */

void preexit_cleanup(struct cpu *cpu, int status)
{
    (void)cpu;
    qemu_plugin_atexit_cb();
    stats_print();
    for (;;)
        syscall(SYS_exit_group, status);
}

static bool do_exit_group(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    (void)ret;
    preexit_cleanup(cpu, (int)arg[0]);
}

/* ---- signals: signal.c keeps the guest's dispositions ---- */

static bool do_sigaction(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    *ret = signal_sigaction(cpu, (int)arg[0], arg[1], arg[2], arg[3]);
    return true;
}

static bool do_ptrace(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    (void)cpu, (void)ret;
    if (arg[0] == PTRACE_TRACEME)
        signal_be_traced();
    return false;
}
static bool do_sigprocmask(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    *ret = signal_sigprocmask(cpu, (int)arg[0], arg[1], arg[2], arg[3]);
    return true;
}

static bool do_sigaltstack(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    *ret = signal_sigaltstack(cpu, arg[0], arg[1]);
    return true;
}

/* Moves the cpu: there is no result to store. */
static bool do_sigreturn(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    (void)arg;
    signal_sigreturn(cpu);
    *ret = SIGRET;
    return true;
}

/* ---- calls that would pull the ground from under emu ---- */

/* Calls that are refused as a kernel without them would. */
static bool do_nosys(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    (void)cpu, (void)arg;
    *ret = -ENOSYS;
    return true;
}

static int64_t store_base(uint64_t addr, uint64_t base)
{
    return guest_copy((void *)addr, &base, sizeof base) ? 0 : -EFAULT;
}

static int64_t set_base(uint64_t *base, uint64_t value)
{
    if (value >= ADDRESS_END)
        return -EPERM;
    *base = value;
    return 0;
}

static bool do_arch_prctl(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    enum {
        SET_GS = 0x1001,
        SET_FS,
        GET_FS,
        GET_GS,
        XCOMP_FIRST = 0x1021, /* ARCH_GET_XCOMP_SUPP .. ARCH_REQ_XCOMP_GUEST_PERM: harmless */
        XCOMP_LAST = 0x1025
    };

    if (arg[0] >= XCOMP_FIRST && arg[0] <= XCOMP_LAST)
        return false;
    switch (arg[0]) {
    case SET_GS:
        *ret = set_base(&cpu->gs_base, arg[1]);
        if (*ret == 0)
            cpu->gs_selector = 0;
        break;
    case SET_FS:
        *ret = set_base(&cpu->fs_base, arg[1]);
        break;
    case GET_FS:
        *ret = store_base(arg[1], cpu->fs_base);
        break;
    case GET_GS:
        *ret = store_base(arg[1], cpu->gs_base);
        break;
    default:
        *ret = -EINVAL; /* shadow stacks, cpuid faulting, another vDSO */
        break;
    }
    return true;
}

/* Parts of PR_SET_MM that would move emu's own heap or name its file; the rest describes the guest
 * to the kernel, which elf.c has done before. */
static bool is_emu_part(uint64_t part)
{
    return part == PR_SET_MM_START_BRK || part == PR_SET_MM_BRK || part == PR_SET_MM_EXE_FILE ||
           part == PR_SET_MM_MAP;
}

static bool do_prctl(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    static const struct {
        int option, error;
    } refused[] = {
        {22, EINVAL}, /* PR_SET_SECCOMP: the filter would also judge emu's calls */
        {26, EINVAL}, /* PR_SET_TSC: emu may read the time stamp counter */
        {59, EINVAL}, /* PR_SET_SYSCALL_USER_DISPATCH: emu makes the guest's calls */
        {65, EINVAL}, /* PR_SET_MDWE: translations are writable code */
    };

    if (arg[0] == PR_GET_TID_ADDRESS)
        return clone_get_tid_address(cpu, arg, ret);
    if (arg[0] == PR_SET_MM && is_emu_part(arg[1])) {
        *ret = -EPERM;
        return true;
    }
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        if ((int)arg[0] == refused[i].option) {
            *ret = -refused[i].error;
            return true;
        }
    }
    return false;
}

/* ---- emu's own descriptors: programs that close everything must not close the log ---- */

static bool is_own_fd(uint64_t fd)
{
    return next_own_fd((unsigned)fd) == (int)fd;
}

static bool do_close(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    (void)cpu;
    *ret = -EBADF;
    return is_own_fd(arg[0]);
}

/* Refused as a number above the limit is. */
static bool do_dup2(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    (void)cpu;
    *ret = -EBADF;
    return is_own_fd(arg[1]);
}

static bool do_close_range(struct cpu *cpu, const uint64_t *arg, int64_t *ret)
{
    unsigned first = (unsigned)arg[0], last = (unsigned)arg[1];
    int own;

    (void)cpu;
    *ret = first > last ? -EINVAL : 0;
    while (!*ret && first <= last && (own = next_own_fd(first)) >= 0 && (unsigned)own <= last) {
        const uint64_t part[6] = {first, (uint64_t)own - 1, arg[2]};

        *ret = first < (unsigned)own ? host_syscall(SYS_close_range, part) : 0;
        first = (unsigned)own + 1;
    }
    if (!*ret && first <= last)
        *ret = host_syscall(SYS_close_range, (const uint64_t[6]){first, last, arg[2]});
    return true;
}

/* ---- the table ---- */

/* clang-format off */
static const struct syscall_row rows[] = {
    [0] = {"read", "dBu", NULL},
    [1] = {"write", "dbu", NULL},
    [2] = {"open", "Lom", proc_open},
    [3] = {"close", "d", do_close},
    [4] = {"stat", "Lp", NULL},
    [5] = {"fstat", "dp", NULL},
    [6] = {"lstat", "Lp", NULL},
    [7] = {"poll", "pud", NULL},
    [8] = {"lseek", "dld", NULL},
    [9] = {"mmap", "=puPMdx", mem_mmap},
    [10] = {"mprotect", "puP", mem_mprotect},
    [11] = {"munmap", "pu", mem_munmap},
    [12] = {"brk", "=p", mem_brk},
    [13] = {"rt_sigaction", "Sppu", do_sigaction},
    [14] = {"rt_sigprocmask", "dppu", do_sigprocmask},
    [15] = {"rt_sigreturn", "", do_sigreturn},
    [16] = {"ioctl", "dxx", NULL},
    [17] = {"pread64", "dBul", NULL},
    [18] = {"pwrite64", "dbul", NULL},
    [19] = {"readv", "dVd", NULL},
    [20] = {"writev", "dpd", NULL},
    [21] = {"access", "Ld", NULL},
    [22] = {"pipe", "p", NULL},
    [23] = {"select", "dpppp", NULL},
    [24] = {"sched_yield", "", NULL},
    [25] = {"mremap", "=puuxp", mem_mremap},
    [26] = {"msync", "pux", NULL},
    [27] = {"mincore", "pup", NULL},
    [28] = {"madvise", "pud", mem_madvise},
    [29] = {"shmget", "dux", NULL},
    [30] = {"shmat", "=dpx", mem_shmat},
    [31] = {"shmctl", "ddp", NULL},
    [32] = {"dup", "d", NULL},
    [33] = {"dup2", "dd", do_dup2},
    [34] = {"pause", "", NULL},
    [35] = {"nanosleep", "pp", NULL},
    [36] = {"getitimer", "dp", NULL},
    [37] = {"alarm", "u", NULL},
    [38] = {"setitimer", "dpp", NULL},
    [39] = {"getpid", "", NULL},
    [40] = {"sendfile", "ddpu", NULL},
    [41] = {"socket", "dxd", NULL},
    [42] = {"connect", "dpu", NULL},
    [43] = {"accept", "dpp", NULL},
    [44] = {"sendto", "dbuxpu", NULL},
    [45] = {"recvfrom", "dBuxpp", NULL},
    [46] = {"sendmsg", "dpx", NULL},
    [47] = {"recvmsg", "dHx", NULL},
    [48] = {"shutdown", "dd", NULL},
    [49] = {"bind", "dpu", NULL},
    [50] = {"listen", "dd", NULL},
    [51] = {"getsockname", "dpp", NULL},
    [52] = {"getpeername", "dpp", NULL},
    [53] = {"socketpair", "dxdp", NULL},
    [54] = {"setsockopt", "dddpu", NULL},
    [55] = {"getsockopt", "dddpp", NULL},
    [56] = {"clone", "Cpppp", clone_clone},
    [57] = {"fork", "", clone_fork},
    [58] = {"vfork", "", clone_vfork},
    [59] = {"execve", "sAp", exec_execve},
    [60] = {"exit", "d", clone_exit},
    [61] = {"wait4", "dpxp", NULL},
    [62] = {"kill", "dS", NULL},
    [63] = {"uname", "p", NULL},
    [64] = {"semget", "ddx", NULL},
    [65] = {"semop", "dpu", NULL},
    [66] = {"semctl", "dddx", NULL},
    [67] = {"shmdt", "p", mem_shmdt},
    [68] = {"msgget", "dx", NULL},
    [69] = {"msgsnd", "dpux", NULL},
    [70] = {"msgrcv", "dpulx", NULL},
    [71] = {"msgctl", "ddp", NULL},
    [72] = {"fcntl", "ddx", NULL},
    [73] = {"flock", "dd", NULL},
    [74] = {"fsync", "d", NULL},
    [75] = {"fdatasync", "d", NULL},
    [76] = {"truncate", "sl", NULL},
    [77] = {"ftruncate", "dl", NULL},
    [78] = {"getdents", "dpu", NULL},
    [79] = {"getcwd", "Bu", NULL},
    [80] = {"chdir", "s", NULL},
    [81] = {"fchdir", "d", NULL},
    [82] = {"rename", "ss", NULL},
    [83] = {"mkdir", "sm", NULL},
    [84] = {"rmdir", "s", NULL},
    [85] = {"creat", "sm", NULL},
    [86] = {"link", "ss", NULL},
    [87] = {"unlink", "s", NULL},
    [88] = {"symlink", "ss", NULL},
    [89] = {"readlink", "LBu", proc_readlink},
    [90] = {"chmod", "sm", NULL},
    [91] = {"fchmod", "dm", NULL},
    [92] = {"chown", "sdd", NULL},
    [93] = {"fchown", "ddd", NULL},
    [94] = {"lchown", "sdd", NULL},
    [95] = {"umask", "m", NULL},
    [96] = {"gettimeofday", "pp", NULL},
    [97] = {"getrlimit", "dp", NULL},
    [98] = {"getrusage", "dp", NULL},
    [99] = {"sysinfo", "p", NULL},
    [100] = {"times", "p", NULL},
    [101] = {"ptrace", "ddpp", do_ptrace},
    [102] = {"getuid", "", NULL},
    [103] = {"syslog", "dBu", NULL},
    [104] = {"getgid", "", NULL},
    [105] = {"setuid", "d", NULL},
    [106] = {"setgid", "d", NULL},
    [107] = {"geteuid", "", NULL},
    [108] = {"getegid", "", NULL},
    [109] = {"setpgid", "dd", NULL},
    [110] = {"getppid", "", NULL},
    [111] = {"getpgrp", "", NULL},
    [112] = {"setsid", "", NULL},
    [113] = {"setreuid", "dd", NULL},
    [114] = {"setregid", "dd", NULL},
    [115] = {"getgroups", "dp", NULL},
    [116] = {"setgroups", "dp", NULL},
    [117] = {"setresuid", "ddd", NULL},
    [118] = {"getresuid", "ppp", NULL},
    [119] = {"setresgid", "ddd", NULL},
    [120] = {"getresgid", "ppp", NULL},
    [121] = {"getpgid", "d", NULL},
    [122] = {"setfsuid", "d", NULL},
    [123] = {"setfsgid", "d", NULL},
    [124] = {"getsid", "d", NULL},
    [125] = {"capget", "pp", NULL},
    [126] = {"capset", "pp", NULL},
    [127] = {"rt_sigpending", "pu", NULL},
    [128] = {"rt_sigtimedwait", "pppu", NULL},
    [129] = {"rt_sigqueueinfo", "dSp", NULL},
    [130] = {"rt_sigsuspend", "pu", NULL},
    [131] = {"sigaltstack", "pp", do_sigaltstack},
    [132] = {"utime", "sp", NULL},
    [133] = {"mknod", "smx", NULL},
    [134] = {"uselib", "s", NULL},
    [135] = {"personality", "x", NULL},
    [136] = {"ustat", "dp", NULL},
    [137] = {"statfs", "Lp", NULL},
    [138] = {"fstatfs", "dp", NULL},
    [139] = {"sysfs", "dpp", NULL},
    [140] = {"getpriority", "dd", NULL},
    [141] = {"setpriority", "ddd", NULL},
    [142] = {"sched_setparam", "dp", NULL},
    [143] = {"sched_getparam", "dp", NULL},
    [144] = {"sched_setscheduler", "ddp", NULL},
    [145] = {"sched_getscheduler", "d", NULL},
    [146] = {"sched_get_priority_max", "d", NULL},
    [147] = {"sched_get_priority_min", "d", NULL},
    [148] = {"sched_rr_get_interval", "dp", NULL},
    [149] = {"mlock", "pu", NULL},
    [150] = {"munlock", "pu", NULL},
    [151] = {"mlockall", "x", NULL},
    [152] = {"munlockall", "", NULL},
    [153] = {"vhangup", "", NULL},
    [154] = {"modify_ldt", "dpu", NULL},
    [155] = {"pivot_root", "ss", NULL},
    [156] = {"_sysctl", "p", NULL},
    [157] = {"prctl", "dxxxx", do_prctl},
    [158] = {"arch_prctl", "xp", do_arch_prctl},
    [159] = {"adjtimex", "p", NULL},
    [160] = {"setrlimit", "dp", NULL},
    [161] = {"chroot", "s", NULL},
    [162] = {"sync", "", NULL},
    [163] = {"acct", "s", NULL},
    [164] = {"settimeofday", "pp", NULL},
    [165] = {"mount", "sssxp", NULL},
    [166] = {"umount2", "sx", NULL},
    [167] = {"swapon", "sx", NULL},
    [168] = {"swapoff", "s", NULL},
    [169] = {"reboot", "xxxp", NULL},
    [170] = {"sethostname", "bu", NULL},
    [171] = {"setdomainname", "bu", NULL},
    [172] = {"iopl", "d", NULL},
    [173] = {"ioperm", "uud", NULL},
    [174] = {"create_module", "su", NULL},
    [175] = {"init_module", "pus", NULL},
    [176] = {"delete_module", "sx", NULL},
    [177] = {"get_kernel_syms", "p", NULL},
    [178] = {"query_module", "sdpup", NULL},
    [179] = {"quotactl", "xsdp", NULL},
    [180] = {"nfsservctl", "dpp", NULL},
    [181] = {"getpmsg", "", NULL},
    [182] = {"putpmsg", "", NULL},
    [183] = {"afs_syscall", "", NULL},
    [184] = {"tuxcall", "", NULL},
    [185] = {"security", "", NULL},
    [186] = {"gettid", "", NULL},
    [187] = {"readahead", "dlu", NULL},
    [188] = {"setxattr", "sspux", NULL},
    [189] = {"lsetxattr", "sspux", NULL},
    [190] = {"fsetxattr", "dspux", NULL},
    [191] = {"getxattr", "LsBu", NULL},
    [192] = {"lgetxattr", "LsBu", NULL},
    [193] = {"fgetxattr", "dsBu", NULL},
    [194] = {"listxattr", "LBu", NULL},
    [195] = {"llistxattr", "LBu", NULL},
    [196] = {"flistxattr", "dBu", NULL},
    [197] = {"removexattr", "ss", NULL},
    [198] = {"lremovexattr", "ss", NULL},
    [199] = {"fremovexattr", "ds", NULL},
    [200] = {"tkill", "dS", NULL},
    [201] = {"time", "p", NULL},
    [202] = {"futex", "pxupxu", NULL},
    [203] = {"sched_setaffinity", "dup", NULL},
    [204] = {"sched_getaffinity", "dup", NULL},
    [205] = {"set_thread_area", "p", NULL},
    [206] = {"io_setup", "up", NULL},
    [207] = {"io_destroy", "p", NULL},
    [208] = {"io_getevents", "pllpp", NULL},
    [209] = {"io_submit", "plp", NULL},
    [210] = {"io_cancel", "ppp", NULL},
    [211] = {"get_thread_area", "p", NULL},
    [212] = {"lookup_dcookie", "uBu", NULL},
    [213] = {"epoll_create", "d", NULL},
    [214] = {"epoll_ctl_old", "", NULL},
    [215] = {"epoll_wait_old", "", NULL},
    [216] = {"remap_file_pages", "puxux", NULL},
    [217] = {"getdents64", "dpu", NULL},
    [218] = {"set_tid_address", "p", clone_set_tid_address},
    [219] = {"restart_syscall", "", NULL},
    [220] = {"semtimedop", "dpup", NULL},
    [221] = {"fadvise64", "dlud", NULL},
    [222] = {"timer_create", "dpp", NULL},
    [223] = {"timer_settime", "dxpp", NULL},
    [224] = {"timer_gettime", "dp", NULL},
    [225] = {"timer_getoverrun", "d", NULL},
    [226] = {"timer_delete", "d", NULL},
    [227] = {"clock_settime", "dp", NULL},
    [228] = {"clock_gettime", "dp", NULL},
    [229] = {"clock_getres", "dp", NULL},
    [230] = {"clock_nanosleep", "dxpp", NULL},
    [231] = {"exit_group", "d", do_exit_group},
    [232] = {"epoll_wait", "dpdd", NULL},
    [233] = {"epoll_ctl", "dddp", NULL},
    [234] = {"tgkill", "ddS", NULL},
    [235] = {"utimes", "sp", NULL},
    [236] = {"vserver", "", NULL},
    [237] = {"mbind", "puxpux", NULL},
    [238] = {"set_mempolicy", "dpu", NULL},
    [239] = {"get_mempolicy", "ppupx", NULL},
    [240] = {"mq_open", "soxp", NULL},
    [241] = {"mq_unlink", "s", NULL},
    [242] = {"mq_timedsend", "dbuup", NULL},
    [243] = {"mq_timedreceive", "dBupp", NULL},
    [244] = {"mq_notify", "dp", NULL},
    [245] = {"mq_getsetattr", "dpp", NULL},
    [246] = {"kexec_load", "pupx", NULL},
    [247] = {"waitid", "ddpxp", NULL},
    [248] = {"add_key", "sspud", NULL},
    [249] = {"request_key", "sssd", NULL},
    [250] = {"keyctl", "dxxxx", NULL},
    [251] = {"ioprio_set", "ddx", NULL},
    [252] = {"ioprio_get", "dd", NULL},
    [253] = {"inotify_init", "", NULL},
    [254] = {"inotify_add_watch", "dsx", NULL},
    [255] = {"inotify_rm_watch", "dd", NULL},
    [256] = {"migrate_pages", "dupp", NULL},
    [257] = {"openat", "fLom", proc_openat},
    [258] = {"mkdirat", "fsm", NULL},
    [259] = {"mknodat", "fsmx", NULL},
    [260] = {"fchownat", "fsddx", NULL},
    [261] = {"futimesat", "fsp", NULL},
    [262] = {"newfstatat", "fLpx", NULL},
    [263] = {"unlinkat", "fsx", NULL},
    [264] = {"renameat", "fsfs", NULL},
    [265] = {"linkat", "fsfsx", NULL},
    [266] = {"symlinkat", "sfs", NULL},
    [267] = {"readlinkat", "fLBu", proc_readlinkat},
    [268] = {"fchmodat", "fsm", NULL},
    [269] = {"faccessat", "fLd", NULL},
    [270] = {"pselect6", "dppppp", NULL},
    [271] = {"ppoll", "pupup", NULL},
    [272] = {"unshare", "C", NULL},
    [273] = {"set_robust_list", "pu", NULL},
    [274] = {"get_robust_list", "dpp", NULL},
    [275] = {"splice", "dpdpux", NULL},
    [276] = {"tee", "ddux", NULL},
    [277] = {"sync_file_range", "dllx", NULL},
    [278] = {"vmsplice", "dpux", NULL},
    [279] = {"move_pages", "duppp", NULL},
    [280] = {"utimensat", "fspx", NULL},
    [281] = {"epoll_pwait", "dpddpu", NULL},
    [282] = {"signalfd", "dpu", NULL},
    [283] = {"timerfd_create", "dx", NULL},
    [284] = {"eventfd", "u", NULL},
    [285] = {"fallocate", "dxll", NULL},
    [286] = {"timerfd_settime", "dxpp", NULL},
    [287] = {"timerfd_gettime", "dp", NULL},
    [288] = {"accept4", "dppx", NULL},
    [289] = {"signalfd4", "dpux", NULL},
    [290] = {"eventfd2", "ux", NULL},
    [291] = {"epoll_create1", "x", NULL},
    [292] = {"dup3", "ddo", do_dup2},
    [293] = {"pipe2", "po", NULL},
    [294] = {"inotify_init1", "x", NULL},
    [295] = {"preadv", "dVdll", NULL},
    [296] = {"pwritev", "dpdll", NULL},
    [297] = {"rt_tgsigqueueinfo", "ddSp", NULL},
    [298] = {"perf_event_open", "pdddx", NULL},
    [299] = {"recvmmsg", "dpuxp", NULL},
    [300] = {"fanotify_init", "xx", NULL},
    [301] = {"fanotify_mark", "dxxfs", NULL},
    [302] = {"prlimit64", "ddpp", NULL},
    [303] = {"name_to_handle_at", "fsppx", NULL},
    [304] = {"open_by_handle_at", "dpo", NULL},
    [305] = {"clock_adjtime", "dp", NULL},
    [306] = {"syncfs", "d", NULL},
    [307] = {"sendmmsg", "dpux", NULL},
    [308] = {"setns", "dx", NULL},
    [309] = {"getcpu", "ppp", NULL},
    [310] = {"process_vm_readv", "dVupux", NULL},
    [311] = {"process_vm_writev", "dpupux", NULL},
    [312] = {"kcmp", "dddxx", NULL},
    [313] = {"finit_module", "dsx", NULL},
    [314] = {"sched_setattr", "dpx", NULL},
    [315] = {"sched_getattr", "dpux", NULL},
    [316] = {"renameat2", "fsfsx", NULL},
    [317] = {"seccomp", "xxp", do_nosys},
    [318] = {"getrandom", "pux", NULL},
    [319] = {"memfd_create", "sx", NULL},
    [320] = {"kexec_file_load", "ddusx", NULL},
    [321] = {"bpf", "dpu", NULL},
    [322] = {"execveat", "fsApx", exec_execveat},
    [323] = {"userfaultfd", "x", NULL},
    [324] = {"membarrier", "dxd", NULL},
    [325] = {"mlock2", "pux", NULL},
    [326] = {"copy_file_range", "dpdpux", NULL},
    [327] = {"preadv2", "dVdllx", NULL},
    [328] = {"pwritev2", "dpdllx", NULL},
    [329] = {"pkey_mprotect", "puPd", mem_mprotect},
    [330] = {"pkey_alloc", "xx", NULL},
    [331] = {"pkey_free", "d", NULL},
    [332] = {"statx", "fLxxp", NULL},
    [333] = {"io_pgetevents", "pllppp", NULL},
    [334] = {"rseq", "puxx", do_nosys},
    [424] = {"pidfd_send_signal", "dSpx", NULL},
    [425] = {"io_uring_setup", "up", NULL},
    [426] = {"io_uring_enter", "duuxpu", NULL},
    [427] = {"io_uring_register", "ddpu", NULL},
    [428] = {"open_tree", "fsx", NULL},
    [429] = {"move_mount", "fsfsx", NULL},
    [430] = {"fsopen", "sx", NULL},
    [431] = {"fsconfig", "ddspd", NULL},
    [432] = {"fsmount", "dxx", NULL},
    [433] = {"fspick", "fsx", NULL},
    [434] = {"pidfd_open", "dx", NULL},
    [435] = {"clone3", "pu", do_nosys},
    [436] = {"close_range", "uux", do_close_range},
    [437] = {"openat2", "fLpu", proc_openat2},
    [438] = {"pidfd_getfd", "ddx", NULL},
    [439] = {"faccessat2", "fLdx", NULL},
    [440] = {"process_madvise", "dpudx", NULL},
    [441] = {"epoll_pwait2", "dpdppu", NULL},
    [442] = {"mount_setattr", "fsxpu", NULL},
    [443] = {"quotactl_fd", "dxdp", NULL},
    [444] = {"landlock_create_ruleset", "pux", NULL},
    [445] = {"landlock_add_rule", "ddpx", NULL},
    [446] = {"landlock_restrict_self", "dx", NULL},
    [447] = {"memfd_secret", "x", NULL},
    [448] = {"process_mrelease", "dx", NULL},
    [449] = {"futex_waitv", "puxpd", NULL},
    [450] = {"set_mempolicy_home_node", "puux", NULL},
    [451] = {"cachestat", "dppx", NULL},
    [452] = {"fchmodat2", "fsmx", NULL},
    [453] = {"map_shadow_stack", "pux", NULL},
    [454] = {"futex_wake", "pxdx", NULL},
    [455] = {"futex_wait", "pxxxpd", NULL},
    [456] = {"futex_requeue", "pxdd", NULL},
    [457] = {"statmount", "ppux", NULL},
    [458] = {"listmount", "ppux", NULL},
    [459] = {"lsm_get_self_attr", "xppx", NULL},
    [460] = {"lsm_set_self_attr", "xpux", NULL},
    [461] = {"lsm_list_modules", "ppx", NULL},
    [462] = {"mseal", "pux", NULL},
};
/* clang-format on */

static const struct syscall_row *find_row(int nr)
{
    if (nr < 0 || (size_t)nr >= sizeof rows / sizeof *rows || !rows[nr].name)
        return NULL;
    return &rows[nr];
}

/* Of an unknown call: six numbers. */
static const char *find_format(int nr)
{
    const struct syscall_row *row = find_row(nr);

    return row ? row->format : "xxxxxx";
}

static bool is_x32(int nr)
{
    return (nr >= X32_FIRST && nr <= X32_LAST) || (nr >= 0 && (nr & X32_BIT));
}

/* ---- -L: calls that look up a file, which may be one under the prefix ---- */

static bool has_path(const struct syscall_row *row)
{
    return opt.ld_prefix && row && strchr(row->format, 'L');
}

/* Does the call with the prefixed path if there is such a file. */
static bool try_prefix(int nr, const struct syscall_row *row, const uint64_t *arg, int64_t *ret)
{
    size_t i = strcspn(row->format, "L");
    char path[PATH_MAX], full[PATH_MAX];
    uint64_t call[6];

    if (!guest_copy_string(path, sizeof path, arg[i]) || path[0] != '/' ||
        (size_t)snprintf(full, sizeof full, "%s%s", opt.ld_prefix, path) >= sizeof full ||
        access(full, F_OK) < 0)
        return false;
    memcpy(call, arg, sizeof call);
    call[i] = (uint64_t)full;
    *ret = host_syscall(nr, call);
    return true;
}

/* ---- dispatch ---- */

/* close is frequent, and there is mostly nothing to guard. */
static bool guards_fds(const struct syscall_row *row)
{
    return row && (row->body == do_close || row->body == do_dup2);
}

enum syscall_route linux_syscall_route(int nr)
{
    const struct syscall_row *row = find_row(nr);

    if (is_x32(nr) || plugin_wants_syscall() || (opt.log & LOG_STRACE) || has_path(row))
        return ROUTE_C;
    if (guards_fds(row) && next_own_fd(0) < 0)
        return ROUTE_PASS;
    return row && row->body ? ROUTE_C : ROUTE_PASS;
}

static void read_args(const struct cpu *cpu, uint64_t args[8])
{
    for (int i = 0; i < 6; i++)
        args[i] = guest_syscall_arg(cpu, i);
    args[6] = args[7] = 0;
}

static void log_call(int nr, const uint64_t *arg, const int64_t *ret)
{
    const struct syscall_row *row = find_row(nr);
    char name[24];

    if (row) {
        strace_log(row->name, row->format, arg, ret);
    } else {
        snprintf(name, sizeof name, "syscall_%d", nr);
        strace_log(name, find_format(nr), arg, ret);
    }
}

/* Calls that end the process or thread are logged before they are made: later there is nobody. */
static bool ends_here(const struct syscall_row *row)
{
    return row && (row->body == clone_exit || row->body == do_exit_group ||
                   row->body == exec_execve || row->body == exec_execveat);
}

/* Everything that happens behind a call: log, callbacks, result. */
static void finish_call(struct cpu *cpu, int nr, const uint64_t *args, int64_t ret)
{
    if (opt.log & LOG_STRACE)
        log_call(nr, args, ret == SIGRET ? NULL : &ret);
    if (plugin_wants_syscall())
        qemu_plugin_vcpu_syscall_ret(cpu, nr, ret);
    if (ret != SIGRET)
        guest_set_result(cpu, ret);
}

/* Answers the call without the kernel's help where that is possible. */
static bool answer_call(struct cpu *cpu, int nr, const uint64_t *args, int64_t *ret)
{
    const struct syscall_row *row = find_row(nr);

    if (plugin_wants_syscall() && qemu_plugin_vcpu_syscall_filter(cpu, nr, args, ret))
        return true;
    if (is_x32(nr))
        return do_nosys(cpu, args, ret);
    if (row && row->body && row->body(cpu, args, ret))
        return true;
    return has_path(row) && try_prefix(nr, row, args, ret);
}

enum syscall_next linux_syscall(struct cpu *cpu)
{
    int nr = guest_syscall_number(cpu);
    uint64_t args[8];
    int64_t ret;

    read_args(cpu, args);
    if (plugin_wants_syscall())
        qemu_plugin_vcpu_syscall(cpu, nr, args);
    if ((opt.log & LOG_STRACE) && ends_here(find_row(nr)))
        log_call(nr, args, NULL);
    if (!answer_call(cpu, nr, args, &ret)) {
        mem_open_results(find_format(nr), args);
        return SYSCALL_FORWARD;
    }
    finish_call(cpu, nr, args, ret);
    return SYSCALL_DONE;
}

void linux_syscall_ret(struct cpu *cpu, int64_t ret)
{
    uint64_t args[8];

    read_args(cpu, args);
    finish_call(cpu, guest_syscall_number(cpu), args, ret);
}
