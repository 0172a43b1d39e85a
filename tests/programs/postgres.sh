# initdb, a server with its processes and shared memory, pgbench, a crash of one backend, shutdown.
# needs: psql
bin=$(echo /usr/lib/postgresql/*/bin)
as() { if [ "$(id -u)" = 0 ]; then runuser -u postgres -- env LC_ALL=C "$@"; else "$@"; fi; }
[ "$(id -u)" != 0 ] || chown postgres .
port=$((20000 + $$ % 20000))
query() { as psql -X -q -h "$PWD" -p $port -d postgres -At "$@"; }
as $FOLLOW $bin/initdb -D "$PWD/data" -A trust -N >log 2>&1
echo "initdb $?"
tail -3 log | grep -i error
as $FOLLOW $bin/pg_ctl -D "$PWD/data" -l "$PWD/data/log" -w -t 120 start \
    -o "-p $port -k $PWD -c listen_addresses= -c fsync=off -c max_worker_processes=4" >/dev/null
echo "start $?"
as $RUN $bin/pgbench -h "$PWD" -p $port -i -s 1 -q postgres >/dev/null 2>&1
echo "fill $?"
as $RUN $bin/pgbench -h "$PWD" -p $port -c 4 -j 2 -t 100 postgres 2>&1 |
    grep -E 'actually processed|failed transactions'
query -c 'select count(*), sum(abalance) = (select sum(bbalance) from pgbench_branches) from pgbench_accounts'
query -c 'set max_parallel_workers_per_gather = 2; set min_parallel_table_scan_size = 0;
    set parallel_setup_cost = 0; select count(*), sum(aid) from pgbench_accounts where aid % 7 = 3'
query -c 'create table t as select g, md5(g::text) m from generate_series(1, 20000) g;
    create index on t (m); analyze t; select min(m), max(m), count(distinct left(m, 2)) from t'
query -c 'do $$ begin perform 1 / 0; exception when division_by_zero then raise notice $x$caught$x$; end $$' 2>&1
query -c "set statement_timeout = 200; select pg_sleep(60)" 2>&1
as $FOLLOW $bin/pg_ctl -D "$PWD/data" -w -t 120 stop -m fast >/dev/null
echo "stop $?"
grep -cE 'PANIC|terminated by signal' data/log
