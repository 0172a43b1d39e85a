# Threads, signals, processes and the test suite's own view of them.
# needs: python3
cat >work.py <<'END'
import signal, threading, time, os, sys, subprocess, multiprocessing, ctypes, concurrent.futures
hits = []
signal.signal(signal.SIGALRM, lambda s, f: hits.append(s))
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
lock, total = threading.Lock(), [0]
def work(n):
    for i in range(100000):
        with lock: total[0] += n
ts = [threading.Thread(target=work, args=(n,)) for n in range(8)]
[t.start() for t in ts]; [t.join() for t in ts]
signal.setitimer(signal.ITIMER_REAL, 0)
print(total, len(hits) > 5)
if __name__ == '__main__':
    with multiprocessing.Pool(4) as pool: print(sum(pool.map(abs, range(-5000, 0))))
    with concurrent.futures.ProcessPoolExecutor(2) as e: print(list(e.map(pow, range(5), [3] * 5)))
    print(subprocess.run([sys.executable, '-c', 'import os; os.kill(os.getpid(), 11)']).returncode)
    r, w = os.pipe(); os.set_blocking(w, False); signal.set_wakeup_fd(w, warn_on_full_buffer=False)
    os.kill(os.getpid(), signal.SIGALRM); print(os.read(r, 1))
    print(signal.sigtimedwait([signal.SIGUSR1], 0.01))
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1]); os.kill(os.getpid(), signal.SIGUSR1)
    print(signal.sigwait([signal.SIGUSR1]), ctypes.CDLL(None).abs(-3))
    p = subprocess.Popen(['sleep', '100']); p.terminate(); print(p.wait())
    try: subprocess.run(['sleep', '100'], timeout=0.1)
    except subprocess.TimeoutExpired as e: print('timed out')
END
$RUN python3 work.py; echo $?
$FOLLOW python3 work.py; echo $?
