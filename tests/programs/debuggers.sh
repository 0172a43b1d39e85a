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
