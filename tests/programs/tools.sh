# make, gcc, git, archives and openssl.
# needs: make gcc git xz tar gzip openssl
mkdir tree
for i in {1..12}; do
    echo "#include <stdio.h>
int f$i(int n) { double d = n; for (int i = 0; i < n; i++) d = d * 1.5 + i; return printf(\"%g\\n\", d); }" >tree/f$i.c
done
{ for i in {1..12}; do echo "int f$i(int);"; done; echo "int main(void) { return 0"; for i in {1..12}; do echo "+ f$i($i)"; done; echo ";}"; } >tree/main.c
printf 'program: %s main.o; $(CC) -O2 -o $@ $^\n' "$(echo f{1..12}.o)" >tree/Makefile
$RUN make -s -j2 -C tree CFLAGS=-O2 && tree/program; echo $?
md5sum <tree/program
(cd tree && rm -f *.o program)
$FOLLOW make -s -j2 -C tree CFLAGS=-O2 && tree/program; echo $?
md5sum <tree/program
cd tree
export GIT_AUTHOR_DATE='1700000000 +0000' GIT_COMMITTER_DATE='1700000000 +0000' HOME=$PWD GIT_CONFIG_NOSYSTEM=1
$FOLLOW git init -q -b main .
git config user.name N; git config user.email e@x
$FOLLOW git add . && $FOLLOW git commit -q -m one && $FOLLOW git gc -q && $FOLLOW git fsck && $RUN git log --stat
$FOLLOW git clone -q . ../clone && git -C ../clone rev-parse HEAD
cd ..
seq 400000 >numbers
$RUN xz -T2 -3 -k --block-size=256KiB numbers && md5sum <numbers.xz && $RUN xz -T2 -dc numbers.xz | md5sum
$RUN tar cf - --mtime=@0 --sort=name --owner=0 --group=0 numbers | $RUN gzip -n | md5sum
$RUN openssl speed -seconds 1 -evp aes-256-gcm >/dev/null 2>&1; echo $?
$RUN openssl speed -seconds 1 rsa2048 ecdsap256 sha256 >/dev/null 2>&1; echo $?
