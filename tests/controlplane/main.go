// Command controlplane is a Kubernetes control plane in one file: etcd, kube-apiserver, kube-controller-manager
// and kubectl, each the released program with its own command line. The applet is the name it is called by
// (a link named kubectl) or, under any other name, the first argument.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// applets maps a name to a program. Each takes its arguments from os.Args, as the released program does, and
// does not return unless it succeeded.
var applets = map[string]func(){
	"etcd":                    runEtcd,
	"kube-apiserver":          runAPIServer,
	"kube-controller-manager": runControllerManager,
	"kubectl":                 runKubectl,
}

func main() {
	run, args, err := choose(os.Args)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	lifeline, args := takeLifeline(args)
	os.Args = args
	if lifeline != nil {
		go lifeline.watch(os.Stdin)
	}
	run()
}

// choose finds the applet and returns the arguments as that applet expects them, its own name first.
func choose(args []string) (func(), []string, error) {
	if run, ok := applets[filepath.Base(args[0])]; ok {
		return run, args, nil
	}
	if len(args) > 1 {
		if run, ok := applets[args[1]]; ok {
			return run, args[1:], nil
		}
	}
	names := make([]string, 0, len(applets))
	for name := range applets {
		names = append(names, name)
	}
	slices.Sort(names)
	return nil, nil, fmt.Errorf("usage: controlplane {%s} [arguments]", strings.Join(names, "|"))
}
