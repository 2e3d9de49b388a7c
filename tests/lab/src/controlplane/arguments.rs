//! The command lines of the control plane's processes. They run in the state folder, so that files are named without it:
//! a socket's path may hold no more than about a hundred bytes.

use super::credentials;

/// etcd wants a port even of a socket file, and takes it for a part of the file's name.
const ETCD: &str = "unix://etcd:0";
const ETCD_PEER: &str = "unix://etcd-peer:0";
/// The controller manager is a user like any other.
pub(super) const CONTROLLER_MANAGER_KUBECONFIG: &str = "controller-manager.kubeconfig";

pub(super) fn etcd() -> Vec<String> {
    vec![
        "--name=lab".to_owned(),
        "--data-dir=etcd-data".to_owned(),
        // The data lives no longer than the process.
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
        format!("--listen-client-urls={ETCD}"),
        format!("--advertise-client-urls={ETCD}"),
        format!("--listen-peer-urls={ETCD_PEER}"),
        format!("--initial-advertise-peer-urls={ETCD_PEER}"),
        format!("--initial-cluster=lab={ETCD_PEER}"),
    ]
}

pub(super) fn apiserver(port: u16) -> Vec<String> {
    vec![
        format!("--etcd-servers={ETCD}"),
        "--bind-address=127.0.0.1".to_owned(),
        // Otherwise it looks for the default route's address, which not every machine has.
        "--advertise-address=127.0.0.1".to_owned(),
        "--external-hostname=127.0.0.1".to_owned(),
        format!("--secure-port={port}"),
        "--permit-port-sharing".to_owned(),
        format!("--tls-cert-file={}", credentials::SERVING_CERT_FILE),
        format!("--tls-private-key-file={}", credentials::SERVING_KEY_FILE),
        format!("--token-auth-file={}", credentials::TOKENS_FILE),
        "--authorization-mode=RBAC".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!(
            "--service-account-key-file={}",
            credentials::ACCOUNT_PUBLIC_KEY_FILE
        ),
        format!(
            "--service-account-signing-key-file={}",
            credentials::ACCOUNT_KEY_FILE
        ),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        // Nobody reaches the API server by a Service here, and a loopback address may not be an endpoint.
        "--endpoint-reconciler-type=none".to_owned(),
        "--profiling=false".to_owned(),
    ]
}

pub(super) fn controller_manager() -> Vec<String> {
    vec![
        format!("--kubeconfig={CONTROLLER_MANAGER_KUBECONFIG}"),
        "--leader-elect=false".to_owned(),
        // It needs no port: that it works is seen in what it does.
        "--secure-port=0".to_owned(),
        "--use-service-account-credentials".to_owned(),
        // Each of its fifty controllers asks for a token at the start, at the default rate for five seconds.
        "--kube-api-qps=1000".to_owned(),
        "--kube-api-burst=2000".to_owned(),
        format!(
            "--service-account-private-key-file={}",
            credentials::ACCOUNT_KEY_FILE
        ),
        format!("--root-ca-file={}", credentials::CA_FILE),
    ]
}
