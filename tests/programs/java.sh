# HotSpot: implicit null checks by SIGSEGV, safepoints, deoptimization, parallel streams, and the
# interpreter alone.
# needs: java
cat >Work.java <<'END'
import java.util.*;
import java.util.concurrent.*;
import java.util.stream.*;

public class Work {
    static int[] none;
    static class Node { Node next; int value; }

    static int touch(Node n) { return n.next.value; }

    static int nulls() {
        int caught = 0;
        Node full = new Node(), empty = new Node();
        full.next = empty;
        for (int i = 0; i < 200000; i++)
            try { caught += touch(i % 1000 == 999 ? empty : full); }
            catch (NullPointerException e) { caught++; }
        try { caught += none.length; } catch (NullPointerException e) { caught += 1000; }
        return caught;
    }

    static int depth(int n) { return depth(n + 1) + 1; }

    public static void main(String[] args) throws Exception {
        System.out.println("nulls " + nulls());
        System.out.println(IntStream.range(0, 2000000).parallel().mapToLong(i -> (long) i * i % 7).sum());
        System.out.println(Stream.iterate(1, i -> i + 1).limit(20000).parallel()
            .map(i -> "k" + i % 97).collect(Collectors.groupingByConcurrent(s -> s,
                ConcurrentSkipListMap::new, Collectors.counting())).hashCode());
        try { depth(0); } catch (StackOverflowError e) { System.out.println("overflow"); }
        try { System.out.println(1 / (args.length)); } catch (ArithmeticException e) { System.out.println(e); }
        try { int[] few = new int[3]; System.out.println(few[args.length + 5]); }
        catch (ArrayIndexOutOfBoundsException e) { System.out.println(e); }
        List<byte[]> keep = new ArrayList<>();
        for (int i = 0; i < 2000; i++) { byte[] b = new byte[50000]; if (i % 50 == 0) keep.add(b); }
        System.gc();
        ExecutorService pool = Executors.newFixedThreadPool(8);
        List<Future<Integer>> all = new ArrayList<>();
        for (int t = 0; t < 32; t++) {
            final int n = t;
            all.add(pool.submit(() -> { int s = 0; for (int i = 0; i < 100000; i++) s += i ^ n; return s; }));
        }
        long sum = 0;
        for (Future<Integer> f : all) sum += f.get();
        pool.shutdown();
        System.out.println(sum + " " + keep.size());
        Process p = new ProcessBuilder("echo", "child").start();
        System.out.println(new String(p.getInputStream().readAllBytes()).trim() + p.waitFor());
        System.exit(9);
    }
}
END
for flags in "" -Xint "-XX:TieredStopAtLevel=1" "-XX:+UseParallelGC -Xmx128m"; do
    $RUN java $flags Work.java
    echo "$flags: $?"
done
