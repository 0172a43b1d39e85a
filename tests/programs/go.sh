# Goroutines preempted by signals, a stack that moves, and a program that a Go compiler under emu
# has built.
# needs: go
cat >work.go <<'END'
package main

import ("fmt"; "os"; "os/exec"; "runtime"; "sync"; "time")

type node struct{ left, right *node }

func tree(d int) *node { if d == 0 { return &node{} }; return &node{tree(d - 1), tree(d - 1)} }
func (n *node) count() int { if n.left == nil { return 1 }; return 1 + n.left.count() + n.right.count() }
func deep(n int) int { var pad [64]int; if n == 0 { return pad[n] }; return deep(n-1) + 1 }

func main() {
	var wg sync.WaitGroup
	var mu sync.Mutex
	sum := 0
	for g := 0; g < 200; g++ {
		wg.Add(1)
		go func(g int) { defer wg.Done(); s := 0; for i := 0; i < 200000; i++ { s += i % (g + 1) }; mu.Lock(); sum += s; mu.Unlock() }(g)
	}
	spin := make(chan bool)
	go func() { for i := 0; ; i++ { select { case <-spin: return; default: } } }()
	wg.Wait(); close(spin)
	fmt.Println(sum, tree(16).count(), deep(100000))
	func() { defer func() { fmt.Println(recover()) }(); var p *node; fmt.Println(p.left) }()
	runtime.GC()
	out, err := exec.Command("echo", "child").Output()
	fmt.Printf("%q %v\n", out, err)
	t := time.NewTicker(time.Millisecond); for i := 0; i < 20; i++ { <-t.C }
	os.Exit(4)
}
END
export HOME=$PWD GOCACHE=$PWD/cache GOFLAGS=-mod=mod GO111MODULE=off
go build -o native work.go
$RUN ./native; echo $?
rm -rf cache
$FOLLOW go build -o built work.go; echo $?
cmp native built && ./built; echo $?
