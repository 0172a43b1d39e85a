# The compilers and the collector of V8, with worker threads, timers, child processes and zlib.
# needs: node
cat >work.js <<'END'
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const crypto = require('crypto'), zlib = require('zlib'), child = require('child_process');
if (!isMainThread) {
    let s = 0, o = [];
    for (let i = 0; i < 2e6; i++) { s = (s * 31 + i * workerData) | 0; if (i % 64 == 0) o.push({ i, s }); }
    let shape = o.map(x => x.s ^ x.i).reduce((a, b) => a ^ b, 0);
    parentPort.postMessage([workerData, s, shape]);
} else {
    const results = [];
    for (let n = 1; n <= 4; n++)
        new Worker(__filename, { workerData: n }).on('message', m => {
            results.push(m);
            if (results.length == 4) finish();
        });
    function finish() {
        console.log(results.sort((a, b) => a[0] - b[0]));
        const big = Buffer.alloc(1 << 20, 'some text that compresses ');
        console.log(crypto.createHash('sha256').update(zlib.gzipSync(big, { level: 9 })).digest('hex'));
        console.log(child.execFileSync('/bin/echo', ['child']).toString());
        const re = /^(a+)+b/; console.log(re.test('aaaaaaaaaaaaaaaaaac'));
        let f = x => { if (x > 3) throw new Error('deep ' + x); return f(x + 1); };
        try { f(0); } catch (e) { console.log(e.message); }
        let deep = n => n ? deep(n - 1) + 1 : 0;
        try { deep(1e7); } catch (e) { console.log(e instanceof RangeError); }
        setTimeout(() => { console.log('timer'); process.exit(7); }, 20);
    }
}
END
$RUN node work.js
echo $?
$RUN node --stress-compaction --expose-gc -e '
let a = []; for (let i = 0; i < 50000; i++) { a.push({ v: [i, "x" + i] }); if (i % 20000 == 0) gc(); }
console.log(a.length, a[777].v)'
$FOLLOW node -e 'console.log(require("child_process").execSync("node -p 6*7").toString())'
