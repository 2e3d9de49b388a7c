// A container's life as go-proxmox leads it, printed as JSON: what was seen on the way.
//
// Called as `PROGRAM make` and then `PROGRAM destroy`, with PVE_HOST, PVE_CA, PVE_TOKEN, PVE_USER and PVE_PASSWORD in its
// environment. It decides nothing about what is right: whoever calls it looks at what it prints.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/luthermonson/go-proxmox"
)

const (
	nodeName = "pve"
	template = "ubuntu-24.04-standard_24.04-2_amd64.tar.zst"
	first    = 200
	linked   = 201
	full     = 202
	patience = 30 * time.Second
	interval = 20 * time.Millisecond
)

type life struct {
	client *proxmox.Client
	node   *proxmox.Node
	tasks  []string
}

// seen is what is printed: names as the caller reads them, values as the library gave them.
type seen map[string]any

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 2 {
		return fmt.Errorf("say make or destroy")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	id, secret, _ := strings.Cut(os.Getenv("PVE_TOKEN"), "=")
	client := connect(proxmox.WithAPIToken(id, secret))
	node, err := client.Node(ctx, nodeName)
	if err != nil {
		return fmt.Errorf("asking for the node: %w", err)
	}
	of := &life{client: client, node: node}
	var result seen
	switch os.Args[1] {
	case "make":
		result, err = of.make(ctx)
	case "destroy":
		result, err = of.destroy(ctx)
	default:
		err = fmt.Errorf("say make or destroy, not %s", os.Args[1])
	}
	if err != nil {
		return err
	}
	result["tasks"] = of.tasks
	return json.NewEncoder(os.Stdout).Encode(result)
}

func connect(who proxmox.Option) *proxmox.Client {
	return proxmox.NewClient(
		"https://"+os.Getenv("PVE_HOST")+"/api2/json",
		who,
		proxmox.WithRootCAFile(os.Getenv("PVE_CA")),
		proxmox.WithTimeout(patience),
	)
}

// follow waits for the task that a call began, and keeps how it ended. A call that failed fails here.
func (l *life) follow(ctx context.Context, task *proxmox.Task, err error) error {
	if err != nil {
		return err
	}
	if task == nil {
		return fmt.Errorf("the call began no task")
	}
	if err := task.Wait(ctx, interval, patience); err != nil {
		return fmt.Errorf("following %s: %w", task.UPID, err)
	}
	l.tasks = append(l.tasks, task.Type+" "+task.ExitStatus)
	return nil
}

// config is what the configuration says, in the caller's names.
func (l *life) config(ctx context.Context, vmid int) (seen, error) {
	container, err := l.node.Container(ctx, vmid)
	if err != nil {
		return nil, fmt.Errorf("reading %d: %w", vmid, err)
	}
	config := container.ContainerConfig
	found := seen{
		"hostname":     config.Hostname,
		"description":  config.Description,
		"rootfs":       config.RootFS,
		"cores":        config.Cores,
		"tags":         config.Tags,
		"net0":         config.Nets["net0"],
		"ostype":       config.OSType,
		"template":     bool(config.Template),
		"unprivileged": map[bool]int{true: 1}[bool(config.Unprivileged)],
	}
	if config.Memory != nil {
		found["memory"] = *config.Memory
	}
	if config.CMode != nil {
		found["cmode"] = *config.CMode
	}
	return found, nil
}
