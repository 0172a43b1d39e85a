/* What a program can ask about its surroundings: clocks through the vdso, /proc/self, cpuid,
 * rdtsc, uname, descriptors, resource limits. */
#include <cpuid.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

static void clocks(void)
{
    struct timespec a, b, raw;
    struct timeval tv;

    clock_gettime(CLOCK_MONOTONIC, &a);
    for (volatile int i = 0; i < 1000; i++)
        clock_gettime(CLOCK_MONOTONIC, &b);
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &raw);
    printf("monotonic %d, near the kernel's %d\n",
           b.tv_sec * 1000000000l + b.tv_nsec > a.tv_sec * 1000000000l + a.tv_nsec,
           raw.tv_sec - b.tv_sec <= 1);
    gettimeofday(&tv, NULL);
    printf("time %d\n", labs(tv.tv_sec - time(NULL)) <= 1);
    uint64_t t = __rdtsc();
    unsigned aux;
    printf("rdtsc %d\n", __rdtscp(&aux) > t);
}

static void proc_self(char **argv)
{
    char exe[4096], line[512], name[32] = "";
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);

    exe[n > 0 ? n : 0] = 0;
    printf("exe %s\n", strrchr(exe, '/'));
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/exe", getpid());
    n = readlink(path, line, sizeof line - 1);
    printf("same by pid %d\n", n > 0 && !strncmp(line, exe, (size_t)n));
    FILE *f = fopen("/proc/self/cmdline", "r");
    n = (ssize_t)fread(line, 1, sizeof line, f);
    fclose(f);
    printf("cmdline %zd %d\n", n - (ssize_t)strlen(argv[0]), !strcmp(line, argv[0]));
    f = fopen("/proc/self/maps", "r");
    int self = 0, stack = 0, code = 0, foreign = 0;
    while (fgets(line, sizeof line, f)) {
        unsigned long from, to;
        char prot[5];
        sscanf(line, "%lx-%lx %4s", &from, &to, prot);
        self |= strstr(line, exe) != NULL;
        stack |= from <= (uintptr_t)&from && (uintptr_t)&from < to && strstr(line, "[stack]");
        code |= from <= (uintptr_t)proc_self && (uintptr_t)proc_self < to && prot[2] == 'x';
        foreign |= strstr(line, "emu") && !strstr(line, exe);
    }
    fclose(f);
    printf("maps: program %d stack %d code %d\n", self, stack, code);
    (void)foreign;
    f = fopen("/proc/self/comm", "r");
    if (f && fgets(name, sizeof name, f))
        printf("comm %s", name);
    fclose(f);
    f = fopen("/proc/self/stat", "r");
    int pid;
    if (fscanf(f, "%d", &pid) == 1)
        printf("stat %d\n", pid == getpid());
    fclose(f);
}

static void descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *e;
    int low = 0;

    while ((e = readdir(dir)))
        low += e->d_name[0] >= '0' && e->d_name[0] <= '9' && atoi(e->d_name) < 100;
    printf("open descriptors %d, next %d\n", low, open("/dev/null", O_RDONLY));
    closedir(dir);
}

static void machine(void)
{
    unsigned a, b, c, d;
    struct utsname name;
    struct rlimit limit;

    __cpuid_count(0, 0, a, b, c, d);
    printf("cpuid %.4s%.4s%.4s\n", (char *)&b, (char *)&d, (char *)&c);
    __cpuid_count(7, 0, a, b, c, d);
    printf("leaf 7: %08x\n", b);
    uname(&name);
    printf("%s %s %s\n", name.sysname, name.release, name.machine);
    getrlimit(RLIMIT_STACK, &limit);
    printf("stack limit %lu\n", (unsigned long)limit.rlim_cur);
    printf("page %ld, cpus %d\n", sysconf(_SC_PAGESIZE), sysconf(_SC_NPROCESSORS_ONLN) > 0);
    printf("bad call %ld\n", syscall(9999));
}

int main(int argc, char **argv)
{
    (void)argc;
    clocks();
    proc_self(argv);
    descriptors();
    machine();
    return 0;
}
