//! The simulator in the place of a recorded host, and those who call it.

use std::collections::{BTreeMap, BTreeSet};

use proxmox_simulator::{HostShape, Simulator, SimulatorConfig, Timing};
use regex::Regex;
use serde_json::Value;

use super::{
    marks::Known,
    recording::Exchange,
    wire::{self, Answer, Connection, Wire},
};

/// A simulator in the place of the recorded host.
pub(crate) struct Host {
    pub(crate) simulator: Simulator,
    pub(crate) wire: Wire,
    connections: BTreeMap<String, Connection>,
    headers: BTreeMap<String, Vec<(String, String)>>,
    pub(crate) known: Known,
    /// Volumes in which a process sits.
    pub(crate) busy: BTreeSet<String>,
    /// Containers with a lock that was set by hand.
    pub(crate) locked: BTreeSet<u32>,
    /// What the last console said when it was opened.
    pub(crate) console: Value,
}

impl Host {
    pub(crate) async fn new(waits: f64) -> Self {
        let config = SimulatorConfig {
            host: HostShape::recorded(),
            timing: Timing {
                waits,
                ..Timing::instant()
            },
            ..SimulatorConfig::default()
        };
        let simulator = Simulator::start(config).await.unwrap();
        Self {
            wire: Wire::new(&simulator),
            simulator,
            connections: BTreeMap::new(),
            headers: BTreeMap::new(),
            known: Known::default(),
            busy: BTreeSet::new(),
            locked: BTreeSet::new(),
            console: Value::Null,
        }
    }

    pub(crate) fn token(&self) -> String {
        let token = self.simulator.token_of("root@pam!op").unwrap();
        format!("{}={}", token.id, token.secret)
    }

    /// The headers of an identity.
    pub(crate) async fn identity(&mut self, auth: &str) -> Vec<(String, String)> {
        if let Some(headers) = self.headers.get(auth) {
            return headers.clone();
        }
        let authorization = |value: String| vec![("Authorization".to_owned(), value)];
        let headers = if auth == "none" {
            Vec::new()
        } else if let Some(raw) = auth.strip_prefix("raw:") {
            // Recordings show the secret that the token had then.
            let secret = self.simulator.token_of("root@pam!op").unwrap().secret;
            let then = Regex::new("TOKEN-SECRET|[1-9a-f][0-9a-f]{7}(-[0-9a-f]{4}){3}-[0-9a-f]{12}");
            authorization(then.unwrap().replace(raw, secret.as_str()).into_owned())
        } else if let Some((user, rest)) = auth.split_once("-ticket") {
            let user = if user == "root" {
                "root@pam".to_owned()
            } else {
                format!("{user}@pve")
            };
            self.login(&user, rest != "-nocsrf").await
        } else {
            // One that the host doesn't know is refused as a wrong one.
            let secret = self.simulator.token_of(auth).map(|token| token.secret);
            authorization(format!("PVEAPIToken={auth}={}", secret.unwrap_or_default()))
        };
        self.headers.insert(auth.to_owned(), headers.clone());
        headers
    }

    async fn login(&mut self, user: &str, csrf: bool) -> Vec<(String, String)> {
        let password = self.simulator.password_of(user).unwrap_or_default();
        let form = [("username", user), ("password", &password)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let kind = (
            "Content-Type".to_owned(),
            "application/x-www-form-urlencoded".to_owned(),
        );
        let answer = self
            .ask(
                "none",
                "POST",
                "/api2/json/access/ticket",
                &[kind],
                Some(&wire::encoded(&form)),
            )
            .await;
        let field = |name: &str| {
            answer.body["data"][name]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        let mut headers = vec![(
            "Cookie".to_owned(),
            format!("PVEAuthCookie={}", field("ticket")),
        )];
        if csrf {
            headers.push((
                "CSRFPreventionToken".to_owned(),
                field("CSRFPreventionToken"),
            ));
        }
        headers
    }

    /// Sends a request, on a kept connection where there is one.
    pub(crate) async fn ask(
        &mut self,
        auth: &str,
        method: &str,
        path: &str,
        headers: &[(String, String)],
        body: Option<&str>,
    ) -> Answer {
        let bytes = wire::request(method, path, headers, body);
        if let Some(mut connection) = self.connections.remove(auth)
            && connection.send(&bytes).await.is_ok()
            && let Some(answer) = connection.answer().await
        {
            self.keep(auth, connection, &answer);
            return answer;
        }
        let mut connection = self.wire.open().await;
        connection.send(&bytes).await.unwrap();
        let Some(answer) = connection.answer().await else {
            return Answer::default();
        };
        self.keep(auth, connection, &answer);
        answer
    }

    fn keep(&mut self, auth: &str, connection: Connection, answer: &Answer) {
        if answer
            .header("connection")
            .is_none_or(|value| !value.eq_ignore_ascii_case("close"))
        {
            self.connections.insert(auth.to_owned(), connection);
        }
    }

    pub(crate) async fn send(&mut self, exchange: &Exchange) -> Answer {
        let auth = exchange.auth.clone().unwrap_or_else(|| "none".to_owned());
        let mut headers = self.identity(&auth).await;
        headers.extend(exchange.request_headers.clone().into_iter().flatten());
        let path = self.known.here(exchange.path());
        let pairs: Vec<(String, String)> = exchange
            .pairs()
            .into_iter()
            .map(|(key, value)| (key, self.known.here(&value)))
            .collect();
        let body = match &exchange.request_body {
            // Bytes were written down as Python shows them.
            Some(body) => Some(
                body.strip_prefix("b'")
                    .and_then(|rest| rest.strip_suffix('\''))
                    .unwrap_or(body)
                    .to_owned(),
            ),
            None if exchange.form.is_some() => {
                headers.push((
                    "Content-Type".to_owned(),
                    "application/x-www-form-urlencoded".to_owned(),
                ));
                Some(wire::encoded(&pairs))
            }
            None => None,
        };
        self.ask(&auth, exchange.method(), &path, &headers, body.as_deref())
            .await
    }
}
