# stress-ng's own checks of what it exercises: NAME OPERATIONS.
# needs: stress-ng
while read -r name operations; do
    $RUN stress-ng -q --verify --"$name" 1 --"$name"-ops "$operations" --timeout 60 \
        ${STRESS_OPTIONS-}
    echo "$name: $?"
done <<END
clone 200
fork 400
vfork 400
exec 40
daemon 40
pthread 400
futex 5000
sigfpe 2000
sigsegv 2000
sigtrap 2000
sigsuspend 2000
sigq 5000
sigrt 5000
sigchld 500
sigio 100
mmap 2
mremap 2
mprotect 200
munmap 2
vm 2000
madvise 4
shm 20
sem 5000
pipe 50000
eventfd 20000
timerfd 2000
epoll 500
longjmp 2000
bad-altstack 200
stack 5
context 100
cpu 100
matrix 20
vecmath 20
crypt 20
hash 20
qsort 4
x86syscall 1000
x86cpuid 20
rdrand 20
tsc 200
icache 20
rseq 2000
membarrier 200
END
