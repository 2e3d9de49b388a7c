package main

import (
	"os"
	_ "time/tzdata" // time zones of CronJobs, on machines that have no database of them

	_ "k8s.io/client-go/plugin/pkg/client/auth" // how a kubeconfig may name its credentials
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
)

func runAPIServer() {
	if code := cli.Run(apiserver.NewAPIServerCommand()); code != 0 {
		os.Exit(code)
	}
}

func runControllerManager() {
	if code := cli.Run(controllermanager.NewControllerManagerCommand()); code != 0 {
		os.Exit(code)
	}
}

func runKubectl() {
	// kubectl reads its preferences and plug-ins while it builds its commands, before it parses any flag, so the
	// verbosity has to be known earlier than that.
	_, _ = logs.GlogSetter(kubectl.GetLogVerbosity(os.Args))
	if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
		kubectlutil.CheckErr(err)
	}
}
