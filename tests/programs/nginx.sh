# Master and workers under load, a reload while they work, and the end.
# needs: nginx ab curl
port=$((20000 + $$ % 20000))
mkdir html logs
seq 20000 >html/big.txt
echo small >html/index.html
cat >nginx.conf <<END
worker_processes 2;
daemon off;
pid $PWD/pid;
error_log $PWD/logs/error;
events { worker_connections 256; }
http {
    access_log off; gzip on; gzip_types text/plain; default_type text/plain;
    client_body_temp_path $PWD/b; proxy_temp_path $PWD/p; fastcgi_temp_path $PWD/f;
    uwsgi_temp_path $PWD/u; scgi_temp_path $PWD/s;
    server { listen 127.0.0.1:$port; root $PWD/html; }
    server { listen 127.0.0.1:$((port + 1)); location / { proxy_pass http://127.0.0.1:$port; } }
}
END
chmod -R a+rX .
$RUN nginx -c "$PWD/nginx.conf" -p "$PWD" &
server=$!
url=http://127.0.0.1:$port
for i in {1..300}; do curl -s $url >/dev/null && break; sleep 0.2; done
load() { ab -q -n "$1" -c 20 "$2" 2>&1 | grep -E 'Complete requests|Failed requests|Non-2xx'; }
load 5000 $url/
load 500 $url/big.txt
load 500 http://127.0.0.1:$((port + 1))/big.txt
kill -HUP $server
load 3000 $url/
curl -s --compressed $url/big.txt | md5sum
curl -s -r 100-199 $url/big.txt | md5sum
kill -QUIT $server
wait $server
echo $?
grep -cE 'emerg|alert|crit' logs/error
