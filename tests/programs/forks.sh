# Thousands of forks.
# needs: bash perl
$RUN bash -c 'n=0; for i in {1..2000}; do n=$((n + $(echo 1))); done; echo $n
    for i in {1..300}; do (exit $((i % 7))); s+=$?; done; echo ${#s}
    for i in {1..50}; do echo $i | cat | tr 0-9 a-j | rev; done | sort | md5sum'
$FOLLOW bash -c 'for i in {1..200}; do /bin/true || echo bad; done; seq 100 | xargs -n1 -P4 echo | sort -n | md5sum'
$RUN perl -e '$SIG{CHLD} = sub { while ((my $p = waitpid(-1, 1)) > 0) { $n++ } };
    for (1..300) { my $p = fork; exit 0 unless $p } select undef, undef, undef, 0.01 while $n < 300; print "$n\n"'
