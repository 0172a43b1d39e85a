# gdb and strace, run by emu, of native programs. What gdb tries out on a child that it does not
# execute (ret_to_nx), it tries out on emu.
# needs: gdb strace gcc
cat >p.c <<'END'
#include <stdio.h>
#include <unistd.h>
int global = 5;
int square(int n) { global += n; return n * n; }
int main(void) { int s = 0; for (int i = 1; i < 5; i++) s += square(i); printf("%d %d\n", s, global); return 3; }
END
gcc -g -O0 -o p p.c
$RUN gdb -nx -q -batch -ex 'break square' -ex run -ex bt -ex 'p n' -ex 'watch global' -ex c -ex c -ex 'info registers eflags' \
    -ex 'x/3i $pc' -ex stepi -ex delete -ex c ./p 2>&1 | grep -v -e debuginfod -e ret_to_nx -e 'Inferior 1'
echo ${PIPESTATUS[0]}
$RUN strace -f -e trace=write,execve,exit_group -o log ./p
echo $?
sed 's/^[0-9]* //; s/0x[0-9a-f]*/ADDRESS/; s/ *[0-9]* vars/ vars/' log
$RUN strace -c -o counts ./p
grep -cE ' (write|mmap|execve)$' counts
# A core dump shows the guest: where it was, its libraries, arguments and threads.
cat >crash.c <<'END'
#include <stdlib.h>
#include <string.h>
static int inner(int *p) { return *p; }
int middle(int *p) { return inner(p) + 1; }
int main(int argc, char **argv) { if (!strcmp(argv[1], "abort")) abort(); return middle((int *)8); }
END
gcc -g -O0 -o crash crash.c
ulimit -c unlimited
case $(cat /proc/sys/kernel/core_pattern) in core*)
    for way in abort fault; do
        ($RUN ./crash $way; echo $?) 2>/dev/null
        gdb -nx -q -batch -ex bt -ex 'p $_siginfo.si_signo' -ex 'info sharedlibrary' \
            -ex 'p $_siginfo._sifields._sigfault.si_addr == (void *)8' ./crash core* 2>&1 |
            sed 's/0x0000[0-9a-f]*/ADDRESS/g; s/argv=0x[0-9a-f]*/argv/' |
            grep -E '^#|^\$|Yes'
        rm -f core*
    done ;;
esac
