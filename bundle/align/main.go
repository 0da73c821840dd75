// align holds the libraries that the other programs share with Kubernetes at Kubernetes' versions, so that a package is
// compiled once for all of them: `go -C align run .` after a version was moved.
//
// It excludes higher versions rather than replacing them: Go's build cache knows a package by the version that was
// asked for, so that a replaced one would be compiled again.
// A program's own family (etcd's client for etcd, containerd's API for containerd) is never touched, and runc is left
// out: what it shares is small, and it is the one that confines containers.
package main

import (
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
)

const (
	reference = "kube"
	note      = "// Held at the versions of ../kube/go.mod by ../align, so that shared packages are compiled once."
)

// follower is a module folder and the path prefix of what belongs to its program.
type follower struct{ folder, family string }

var followers = []follower{
	{"etcd", "go.etcd.io/etcd/"},
	{"containerd", "github.com/containerd/"},
	{"cni", "github.com/containernetworking/"},
	{"coredns", "github.com/coredns/"},
	{"local-path-provisioner", "github.com/rancher/"},
	{"flannel", "github.com/flannel-io/"},
	{"metrics-server", "sigs.k8s.io/metrics-server"},
}

// What is asked for by tests of libraries only is in no go.mod, but must move in step with its family all the same.
const inStep = "go.opentelemetry.io/otel"

func main() {
	log.SetFlags(0)
	if err := os.Chdir(".."); err != nil {
		log.Fatal(err)
	}
	wanted := chosen(reference)
	run(reference, "mod", "tidy")
	wanted[inStep+"/exporters/otlp/otlptrace/otlptracehttp"] = wanted[inStep+"/exporters/otlp/otlptrace"]
	for _, f := range followers {
		align(f, wanted)
	}
}

// align asks for the wanted version of what differs, and excludes what is chosen in its place, until all agree.
func align(f follower, wanted map[string]string) {
	held, excluded := map[string]bool{}, map[string]bool{}
	rewrite(f.folder, wanted, held, excluded)
	run(f.folder, "mod", "tidy")
	for {
		odd := differing(f, wanted)
		if len(odd) == 0 { // but a tidy file may list what was not needed before
			run(f.folder, "mod", "tidy")
			if odd = differing(f, wanted); len(odd) == 0 {
				break
			}
		}
		for module, version := range odd {
			if held[module] {
				excluded[module+" "+version] = true
			}
			held[module] = true
		}
		rewrite(f.folder, wanted, held, excluded)
	}
	run(f.folder, "mod", "tidy") // listing modules leaves more sums than are needed
	fmt.Printf("%s: %d modules held, %d versions excluded\n", f.folder, len(held), len(excluded))
}

// differing are the shared modules of which another version than the wanted one is chosen.
func differing(f follower, wanted map[string]string) map[string]string {
	required := requirements(f.folder)
	odd := map[string]string{}
	for module, version := range chosen(f.folder) {
		w, shared := wanted[module]
		needed := required[module] || strings.HasPrefix(module, inStep)
		if shared && needed && w != version && !strings.HasPrefix(module, f.family) {
			odd[module] = version
		}
	}
	return odd
}

// rewrite gives held modules their wanted version and makes the excluded ones the last block of the file.
func rewrite(folder string, wanted map[string]string, held, excluded map[string]bool) {
	text, _, _ := strings.Cut(read(folder), "\n"+note)
	var lines []string
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) > 1 && held[fields[0]] {
			line = strings.Replace(line, fields[1], wanted[fields[0]], 1)
		}
		lines = append(lines, line)
	}
	text = strings.Join(lines, "")
	if len(excluded) > 0 {
		lines = nil
		for version := range excluded {
			lines = append(lines, "\t"+version+"\n")
		}
		sort.Strings(lines)
		text += "\n" + note + "\nexclude (\n" + strings.Join(lines, "") + ")\n"
	}
	if err := os.WriteFile(filepath.Join(folder, "go.mod"), []byte(text), 0o644); err != nil {
		log.Fatal(err)
	}
}

// requirements are the modules that a tidy go.mod lists: each gives the build, or its tests, a package.
func requirements(folder string) map[string]bool {
	listed, _, _ := strings.Cut(read(folder), "\n"+note)
	found := map[string]bool{}
	for line := range strings.Lines(listed) {
		fields := strings.Fields(strings.TrimPrefix(line, "require "))
		if len(fields) >= 2 && strings.HasPrefix(fields[1], "v") {
			found[fields[0]] = true
		}
	}
	return found
}

// chosen are the versions that Go picks for every module of the graph; one that gives no package may not be to be had.
func chosen(folder string) map[string]string {
	found := map[string]string{}
	for line := range strings.Lines(run(folder, "list", "-m", "-e", "all")) {
		if fields := strings.Fields(line); len(fields) > 1 {
			found[fields[0]] = fields[1]
		}
	}
	return found
}

func read(folder string) string {
	text, err := os.ReadFile(filepath.Join(folder, "go.mod"))
	if err != nil {
		log.Fatal(err)
	}
	return string(text)
}

func run(folder string, args ...string) string {
	command := exec.Command("go", args...)
	command.Dir = folder
	command.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod")
	out, err := command.Output()
	if err != nil {
		log.Fatalf("%s: go %s: %v\n%s", folder, strings.Join(args, " "), err, err.(*exec.ExitError).Stderr)
	}
	return string(out)
}
