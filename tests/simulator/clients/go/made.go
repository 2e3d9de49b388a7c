package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/luthermonson/go-proxmox"
)

func (l *life) make(ctx context.Context) (seen, error) {
	result := seen{}
	for _, step := range []func(context.Context, seen) error{l.look, l.create, l.use, l.snapshot, l.clone, l.list, l.refusals} {
		if err := step(ctx, result); err != nil {
			return nil, err
		}
	}
	return result, nil
}

// look reads what is there before anything is made.
func (l *life) look(ctx context.Context, result seen) error {
	version, err := l.client.Version(ctx)
	if err != nil {
		return fmt.Errorf("asking for the version: %w", err)
	}
	// The library answers what it had before the call, and keeps what it read.
	if version, err = l.client.Version(ctx); err != nil {
		return fmt.Errorf("asking for the version: %w", err)
	}
	nodes, err := l.client.Nodes(ctx)
	if err != nil {
		return fmt.Errorf("listing nodes: %w", err)
	}
	names := []string{}
	for _, node := range nodes {
		names = append(names, node.Node)
	}
	storage, err := l.node.Storage(ctx, "local")
	if err != nil {
		return fmt.Errorf("asking for a storage: %w", err)
	}
	content, err := storage.GetContent(ctx)
	if err != nil {
		return fmt.Errorf("listing archives: %w", err)
	}
	archives := []string{}
	for _, item := range content {
		archives = append(archives, item.Volid)
	}
	slices.Sort(archives)
	cluster, err := l.client.Cluster(ctx)
	if err != nil {
		return fmt.Errorf("asking for the cluster: %w", err)
	}
	free, err := cluster.CheckID(ctx, first)
	if err != nil || !free {
		return fmt.Errorf("is %d free: %t, %w", first, free, err)
	}
	result["version"], result["nodes"], result["archives"], result["free"] = version.Version, names, archives, first
	return nil
}

func (l *life) create(ctx context.Context, result seen) error {
	option := func(name string, value any) proxmox.ContainerOption {
		return proxmox.ContainerOption{Name: name, Value: value}
	}
	task, err := l.node.NewContainer(ctx, first,
		option("ostemplate", "local:vztmpl/"+template),
		option("hostname", "independent"),
		option("description", "made by somebody else's client\nin two lines: ü"),
		option("rootfs", "lxc-disks:8"),
		option("cores", 2),
		option("memory", 1024),
		option("unprivileged", true),
		option("cmode", "shell"),
		option("tags", "one;two"),
		option("net0", "name=eth0,bridge=vmbr0,ip=10.0.0.200/24,gw=10.0.0.1"),
	)
	if err := l.follow(ctx, task, err); err != nil {
		return fmt.Errorf("creating: %w", err)
	}
	result["created"], err = l.config(ctx, first)
	return err
}

// use starts the container, types into its console, and stops it.
func (l *life) use(ctx context.Context, result seen) error {
	container, err := l.node.Container(ctx, first)
	if err != nil {
		return err
	}
	task, err := container.Start(ctx)
	if err := l.follow(ctx, task, err); err != nil {
		return fmt.Errorf("starting: %w", err)
	}
	if err := container.Ping(ctx); err != nil {
		return err
	}
	result["started"] = container.Status
	if result["console"], err = l.console(ctx); err != nil {
		return fmt.Errorf("at the console: %w", err)
	}
	task, err = container.Stop(ctx)
	if err := l.follow(ctx, task, err); err != nil {
		return fmt.Errorf("stopping: %w", err)
	}
	err = container.Ping(ctx)
	result["stopped"] = container.Status
	return err
}

func (l *life) snapshot(ctx context.Context, result seen) error {
	container, err := l.node.Container(ctx, first)
	if err != nil {
		return err
	}
	task, err := container.NewSnapshot(ctx, "before")
	if err := l.follow(ctx, task, err); err != nil {
		return fmt.Errorf("taking a snapshot: %w", err)
	}
	if _, err := container.Config(ctx,
		proxmox.ContainerOption{Name: "hostname", Value: "mistaken"},
		proxmox.ContainerOption{Name: "memory", Value: 512},
	); err != nil {
		return fmt.Errorf("changing: %w", err)
	}
	changed, err := l.config(ctx, first)
	if err != nil {
		return err
	}
	snapshots, err := container.Snapshots(ctx)
	if err != nil {
		return fmt.Errorf("listing snapshots: %w", err)
	}
	names := []string{}
	for _, snapshot := range snapshots {
		names = append(names, snapshot.Name)
	}
	slices.Sort(names)
	task, err = container.Snapshot("before").Rollback(ctx, false)
	if err := l.follow(ctx, task, err); err != nil {
		return fmt.Errorf("rolling back: %w", err)
	}
	back, err := l.config(ctx, first)
	if err != nil {
		return err
	}
	task, err = container.Snapshot("before").Delete(ctx)
	if err := l.follow(ctx, task, err); err != nil {
		return fmt.Errorf("deleting the snapshot: %w", err)
	}
	task, err = container.Resize(ctx, "rootfs", "+2G")
	if err := l.follow(ctx, task, err); err != nil {
		return fmt.Errorf("resizing: %w", err)
	}
	resized, err := l.config(ctx, first)
	if err != nil {
		return err
	}
	result["changed"], result["snapshots"] = changed["hostname"], names
	result["rolled_back"], result["resized"] = back["hostname"], resized["rootfs"]
	return nil
}

func (l *life) clone(ctx context.Context, result seen) error {
	container, err := l.node.Container(ctx, first)
	if err != nil {
		return err
	}
	if err := container.Template(ctx); err != nil {
		return fmt.Errorf("making it a template: %w", err)
	}
	for until := time.Now().Add(patience); ; time.Sleep(interval) {
		config, err := l.config(ctx, first)
		if err != nil {
			return err
		}
		if config["template"] == true {
			break
		}
		if time.Now().After(until) {
			return fmt.Errorf("the container does not become a template")
		}
	}
	for _, options := range []proxmox.ContainerCloneOptions{
		{NewID: linked, Hostname: "linked"},
		{NewID: full, Hostname: "full", Full: true, Storage: "lxc-disks"},
	} {
		_, task, err := container.Clone(ctx, &options)
		if err := l.follow(ctx, task, err); err != nil {
			return fmt.Errorf("cloning to %d: %w", options.NewID, err)
		}
	}
	cloned := map[string]any{}
	for _, vmid := range []int{first, linked, full} {
		config, err := l.config(ctx, vmid)
		if err != nil {
			return err
		}
		cloned[strconv.Itoa(vmid)] = config["rootfs"]
	}
	result["cloned"] = cloned
	return nil
}

func (l *life) list(ctx context.Context, result seen) error {
	cluster, err := l.client.Cluster(ctx)
	if err != nil {
		return err
	}
	resources, err := cluster.Resources(ctx, "vm")
	if err != nil {
		return fmt.Errorf("listing resources: %w", err)
	}
	listed := map[string]any{}
	for _, item := range resources {
		listed[strconv.FormatUint(item.VMID, 10)] = []any{item.Name, item.Status, item.Template}
	}
	result["listed"] = listed
	return nil
}
