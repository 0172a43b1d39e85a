# The server under redis-benchmark; persistence by a forked child.
# needs: redis-server redis-benchmark redis-cli
port=$((20000 + $$ % 20000))
cli() { redis-cli -p $port "$@"; }
$RUN redis-server --port $port --save '' --dir "$PWD" --io-threads 2 --logfile log &
server=$!
for i in {1..300}; do cli ping 2>/dev/null | grep -q PONG && break; sleep 0.2; done
redis-benchmark -p $port -q -n 20000 -c 20 -P 4 -t set,get,incr,lpush,lpop,sadd,hset,zadd,mset |
    tr '\r' '\n' | grep -c 'requests per second'
cli set answer 42
cli eval 'local s = 0; for i = 1, 100000 do s = s + i end; return {KEYS[1], s}' 1 k
cli lastsave >before
cli bgsave
for i in {1..300}; do cli info persistence | grep -q 'rdb_bgsave_in_progress:0' && break; sleep 0.1; done
cli info persistence | grep rdb_last_bgsave_status
cli get answer
cli dbsize
cli shutdown nosave
wait $server
echo $?
$RUN redis-server --port $port --dir "$PWD" --logfile log &
server=$!
for i in {1..300}; do cli ping 2>/dev/null | grep -q PONG && break; sleep 0.2; done
cli get answer
kill -TERM $server
wait $server
echo $?
