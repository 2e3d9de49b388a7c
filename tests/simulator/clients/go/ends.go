package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/luthermonson/go-proxmox"
)

const heardAtConsole = "answer=42 in independent"

// console types a line into the container's console, by a ticket: the library refuses to try it with a token.
func (l *life) console(ctx context.Context) (string, error) {
	client := connect(proxmox.WithCredentials(&proxmox.Credentials{
		Username: os.Getenv("PVE_USER"),
		Password: os.Getenv("PVE_PASSWORD"),
	}))
	node, err := client.Node(ctx, nodeName)
	if err != nil {
		return "", fmt.Errorf("logging in: %w", err)
	}
	container, err := node.Container(ctx, first)
	if err != nil {
		return "", err
	}
	term, err := container.TermProxy(ctx)
	if err != nil {
		return "", fmt.Errorf("asking for a proxy: %w", err)
	}
	send, receive, failed, closed, err := container.TermWebSocket(term)
	if err != nil {
		return "", fmt.Errorf("connecting: %w", err)
	}
	send <- []byte("echo answer=$((6*7)) in $(hostname)\n")
	heard := ""
	late := time.After(patience)
	for !strings.Contains(heard, heardAtConsole) {
		select {
		case bytes := <-receive:
			heard += string(bytes)
		case err := <-failed:
			return "", fmt.Errorf("after %q: %w", heard, err)
		case <-late:
			return "", fmt.Errorf("nothing more comes after %q", heard)
		}
	}
	// What still arrives has to be taken: the library's reader waits for a listener.
	go func() {
		for range receive {
		}
	}()
	go func() {
		for range failed {
		}
	}()
	if err := closed(); err != nil {
		return "", fmt.Errorf("closing: %w", err)
	}
	return heardAtConsole, l.follow(ctx, proxmox.NewTask(proxmox.UPID(term.UPID), l.client), nil)
}

// refusals are calls that Proxmox answers with an error, in the library's words.
func (l *life) refusals(ctx context.Context, result seen) error {
	refused := map[string]string{}
	note := func(name string, err error) {
		if err == nil {
			refused[name] = "nothing was refused"
			return
		}
		refused[name] = err.Error()
	}
	var nothing any
	note("taken", l.client.Get(ctx, fmt.Sprintf("/cluster/nextid?vmid=%d", first), &nothing))
	_, err := l.node.Container(ctx, 999)
	note("absent", err)
	container, err := l.node.Container(ctx, linked)
	if err != nil {
		return err
	}
	_, err = container.Config(ctx, proxmox.ContainerOption{Name: "cores", Value: "many"})
	note("invalid", err)
	_, err = container.Config(ctx, proxmox.ContainerOption{Name: "nonsense", Value: 1})
	note("unknown", err)
	id, _, _ := strings.Cut(os.Getenv("PVE_TOKEN"), "=")
	_, err = connect(proxmox.WithAPIToken(id, "00000000-0000-0000-0000-000000000000")).Version(ctx)
	note("stranger", err)
	_, err = connect(proxmox.WithCredentials(&proxmox.Credentials{Username: os.Getenv("PVE_USER"), Password: "wrong"})).Version(ctx)
	note("password", err)
	result["refused"] = refused
	return nil
}

func (l *life) destroy(ctx context.Context) (seen, error) {
	base, err := l.node.Container(ctx, first)
	if err != nil {
		return nil, err
	}
	result := seen{}
	task, err := base.Delete(ctx, nil)
	if err != nil {
		result["base"] = err.Error()
	} else if err := task.Wait(ctx, interval, patience); err != nil {
		return nil, err
	} else {
		result["base"] = task.ExitStatus
	}
	for vmid, options := range map[int]*proxmox.ContainerDeleteOptions{
		linked: {Purge: true, DestroyUnreferencedDisks: true},
		full:   {Purge: true},
	} {
		container, err := l.node.Container(ctx, vmid)
		if err != nil {
			return nil, err
		}
		task, err := container.Delete(ctx, options)
		if err := l.follow(ctx, task, err); err != nil {
			return nil, fmt.Errorf("destroying %d: %w", vmid, err)
		}
	}
	task, err = base.Delete(ctx, nil)
	if err := l.follow(ctx, task, err); err != nil {
		return nil, fmt.Errorf("destroying the template: %w", err)
	}
	left, err := l.node.Containers(ctx)
	if err != nil {
		return nil, err
	}
	vmids := []int{}
	for _, container := range left {
		vmids = append(vmids, int(container.VMID))
	}
	result["left"] = vmids
	return result, nil
}
