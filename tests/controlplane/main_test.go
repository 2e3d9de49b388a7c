package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestChoose(t *testing.T) {
	for _, row := range []struct {
		called, expected []string
	}{
		{[]string{"/bin/kubectl", "get", "pods"}, []string{"/bin/kubectl", "get", "pods"}},
		{[]string{"controlplane", "etcd", "--name=x"}, []string{"etcd", "--name=x"}},
		// Its own name decides before an argument does.
		{[]string{"kubectl", "etcd"}, []string{"kubectl", "etcd"}},
	} {
		_, args, err := choose(row.called)
		if err != nil || !slices.Equal(args, row.expected) {
			t.Errorf("%q gives %q, %v", row.called, args, err)
		}
	}
	for _, called := range [][]string{{"controlplane"}, {"controlplane", "kubelet"}} {
		if _, _, err := choose(called); err == nil || !strings.Contains(err.Error(), "etcd|kube-apiserver") {
			t.Errorf("%q gives %v", called, err)
		}
	}
}

func TestTakeLifeline(t *testing.T) {
	for _, row := range []struct {
		args, rest []string
		line       *lifeline
	}{
		{[]string{"etcd", "--die-with-parent", "--then-remove=/x", "--name=a"}, []string{"etcd", "--name=a"}, &lifeline{"/x"}},
		{[]string{"etcd", "--die-with-parent", "--name=a"}, []string{"etcd", "--name=a"}, &lifeline{}},
		{[]string{"etcd"}, []string{"etcd"}, nil},
		// The flags of the lifeline come first or they are the applet's.
		{[]string{"kubectl", "exec", "--die-with-parent"}, []string{"kubectl", "exec", "--die-with-parent"}, nil},
		{[]string{"etcd", "--then-remove=/x"}, []string{"etcd", "--then-remove=/x"}, nil},
	} {
		line, rest := takeLifeline(row.args)
		if !slices.Equal(rest, row.rest) || (line == nil) != (row.line == nil) || line != nil && *line != *row.line {
			t.Errorf("%q gives %v, %q", row.args, line, rest)
		}
	}
}

// The test's binary, called again as a process that only the lifeline can end.
func TestMain(m *testing.M) {
	if dir := os.Getenv("LIFELINE_OF"); dir != "" {
		go (&lifeline{scratch: dir}).watch(os.Stdin)
		time.Sleep(time.Minute)
		os.Exit(3)
	}
	os.Exit(m.Run())
}

func TestTheProcessEndsWithItsParentsPipe(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.MkdirAll(filepath.Join(dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(os.Args[0])
	command.Env = []string{"LIFELINE_OF=" + dir}
	stdin, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(stdin, "this means nothing"); err != nil {
		t.Fatal(err)
	}
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := command.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its folder is still there: %v", err)
	}
}
