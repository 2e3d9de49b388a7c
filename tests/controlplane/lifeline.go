package main

import (
	"errors"
	"io"
	"os"
	"strings"
	"time"
)

const (
	lifelineFlag = "--die-with-parent"
	scratchFlag  = "--then-remove="
)

// lifeline ties the process to whoever holds the other end of its standard input. The kernel closes that end
// however its holder ends, SIGKILL included, which no signal handler or destructor could promise.
type lifeline struct {
	// scratch is the folder to delete on the way out: the holder can no longer do it.
	scratch string
}

// takeLifeline removes the lifeline's flags from the front of the arguments: they must precede the applet's own,
// so that an applet's argument is never mistaken for one of them.
func takeLifeline(args []string) (*lifeline, []string) {
	if len(args) < 2 || args[1] != lifelineFlag {
		return nil, args
	}
	line, rest := &lifeline{}, args[2:]
	if len(rest) > 0 {
		if dir, found := strings.CutPrefix(rest[0], scratchFlag); found {
			line.scratch, rest = dir, rest[1:]
		}
	}
	return line, append([]string{args[0]}, rest...)
}

// watch blocks until the other end is closed and then ends the process at once: the state is a throw-away, so
// there is nothing to shut down in order.
func (l *lifeline) watch(stdin io.Reader) {
	// What is written to the pipe carries no meaning; an error means that it is broken, as an end of file does.
	_, _ = io.Copy(io.Discard, stdin)
	if l.scratch != "" {
		removeBusy(l.scratch)
	}
	os.Exit(0)
}

// removeBusy deletes a folder that processes which are just ending may still write to.
func removeBusy(dir string) {
	for range 20 {
		_ = os.RemoveAll(dir)
		time.Sleep(50 * time.Millisecond)
		if _, err := os.Lstat(dir); errors.Is(err, os.ErrNotExist) {
			return
		}
	}
}
