//! A plain client for tests: it looks at status line and body, and knows nothing of Proxmox.

use std::{sync::Arc, time::Duration};

use proxmox_simulator::{Credentials, Simulator, SimulatorConfig};
use reqwest::{Certificate, Method, Response};
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::pem::PemObject};
use serde_json::Value;

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) reason: String,
    pub(crate) body: Value,
    pub(crate) text: String,
}

impl Answer {
    async fn of(response: Response) -> Self {
        let (status, reason) = (response.status().as_u16(), reason(&response));
        let text = response.text().await.unwrap();
        Self {
            status,
            reason,
            body: serde_json::from_str(&text).unwrap_or(Value::Null),
            text,
        }
    }
}

/// Somebody who calls.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    headers: Vec<(String, String)>,
    pub(crate) node: String,
}

pub(crate) async fn simulator() -> Simulator {
    Simulator::start(SimulatorConfig::default()).await.unwrap()
}

fn trusting(ca: &str) -> reqwest::Client {
    let mut roots = RootCertStore::empty();
    roots
        .add(rustls::pki_types::CertificateDer::from_pem_slice(ca.as_bytes()).unwrap())
        .unwrap();
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let _ = Certificate::from_pem(ca.as_bytes()).unwrap();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .timeout(Duration::from_secs(20))
        .build()
        .unwrap()
}

impl Client {
    pub(crate) fn anonymous(simulator: &Simulator) -> Self {
        Self {
            http: trusting(&simulator.ca_pem()),
            url: simulator.url(),
            headers: Vec::new(),
            node: "pve".to_owned(),
        }
    }

    pub(crate) fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// What proves who calls.
    pub(crate) fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    pub(crate) fn token(simulator: &Simulator, token: &Credentials) -> Self {
        Self::anonymous(simulator).with_header(
            "Authorization",
            &format!("PVEAPIToken={}={}", token.id, token.secret),
        )
    }

    pub(crate) fn operator(simulator: &Simulator) -> Self {
        Self::token(simulator, &simulator.token())
    }

    pub(crate) async fn login(simulator: &Simulator, user: &str) -> Self {
        let password = simulator.password_of(user).unwrap();
        let anonymous = Self::anonymous(simulator);
        let answer = anonymous
            .post(
                "/access/ticket",
                &[("username", user), ("password", &password)],
            )
            .await;
        let field = |name: &str| answer.body["data"][name].as_str().unwrap().to_owned();
        anonymous
            .with_header("Cookie", &format!("PVEAuthCookie={}", field("ticket")))
            .with_header("CSRFPreventionToken", &field("CSRFPreventionToken"))
    }

    pub(crate) async fn call(&self, method: &str, path: &str, form: &[(&str, &str)]) -> Answer {
        Answer::of(self.try_call(method, path, form).await.unwrap()).await
    }

    pub(crate) async fn try_call(
        &self,
        method: &str,
        path: &str,
        form: &[(&str, &str)],
    ) -> reqwest::Result<Response> {
        let path = if path.starts_with("/api2") || !path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/api2/json{path}")
        };
        let mut request = self.http.request(
            Method::from_bytes(method.as_bytes()).unwrap(),
            format!("{}{path}", self.url),
        );
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if !form.is_empty() {
            request = request.form(form);
        }
        request.send().await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[]).await
    }

    pub(crate) async fn post(&self, path: &str, form: &[(&str, &str)]) -> Answer {
        self.call("POST", path, form).await
    }

    pub(crate) async fn put(&self, path: &str, form: &[(&str, &str)]) -> Answer {
        self.call("PUT", path, form).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.call("DELETE", path, &[]).await
    }

    /// Calls what begins a task, and follows it to its exit status.
    pub(crate) async fn task(&self, method: &str, path: &str, form: &[(&str, &str)]) -> String {
        let answer = self.call(method, path, form).await;
        let upid = answer.body["data"]
            .as_str()
            .unwrap_or_else(|| {
                panic!(
                    "{method} {path}: no task but {} {}",
                    answer.status, answer.reason
                )
            })
            .to_owned();
        self.follow(&upid).await
    }

    pub(crate) async fn follow(&self, upid: &str) -> String {
        for _ in 0..1000 {
            let status = self
                .get(&format!("/nodes/{}/tasks/{upid}/status", self.node))
                .await;
            if status.body["data"]["status"] == "stopped" {
                return status.body["data"]["exitstatus"]
                    .as_str()
                    .unwrap()
                    .to_owned();
            }
            assert_eq!(status.status, 200, "{}", status.text);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{upid} goes on for ever");
    }

    pub(crate) async fn create(&self, vmid: u32, more: &[(&str, &str)]) -> String {
        let vmid = vmid.to_string();
        let mut form = vec![
            ("vmid", vmid.as_str()),
            (
                "ostemplate",
                "local:vztmpl/ubuntu-24.04-standard_24.04-2_amd64.tar.zst",
            ),
            ("rootfs", "lxc-disks:8"),
            ("storage", "lxc-disks"),
            (
                "net0",
                "name=eth0,bridge=vmbr0,ip=10.0.0.200/24,gw=10.0.0.1",
            ),
        ];
        form.retain(|(key, _)| !more.iter().any(|(other, _)| other == key));
        form.extend(more);
        self.task("POST", "/nodes/pve/lxc", &form).await
    }

    pub(crate) async fn config(&self, vmid: u32) -> Value {
        self.get(&format!("/nodes/pve/lxc/{vmid}/config"))
            .await
            .body["data"]
            .clone()
    }

    /// Converts to a template and waits for it.
    pub(crate) async fn seal(&self, vmid: u32) {
        assert_eq!(
            self.post(&format!("/nodes/pve/lxc/{vmid}/template"), &[])
                .await
                .text,
            r#"{"data":null}"#
        );
        for _ in 0..1000 {
            if self.config(vmid).await["template"] == 1 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{vmid} doesn't become a template");
    }
}

fn reason(response: &Response) -> String {
    let phrase = response.extensions().get::<hyper::ext::ReasonPhrase>();
    phrase.map_or_else(
        || {
            response
                .status()
                .canonical_reason()
                .unwrap_or_default()
                .to_owned()
        },
        |phrase| String::from_utf8_lossy(phrase.as_bytes()).into_owned(),
    )
}
