//! Pure: which Service and EndpointSlice a container shall have, and whether what stands is that.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::{
    api::{
        core::v1::{Service, ServicePort, ServiceSpec},
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{Resource, ResourceExt};
use phoenix_crds::{LxcContainer, LxcStatus, conditions::ConditionType as C, probe::Scheme};
use serde_json::{Value, json};

use crate::{condition::said_true, engine::MANAGER, hash};

/// By this label our Services and slices are watched.
pub(super) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Whoever sees to a slice says so, lest the slices' own controllers take it for theirs.
const SLICE_MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const SLICE_OF: &str = "kubernetes.io/service-name";
/// Hash of what we applied last: what is no longer wanted shows in nothing else, beside what others added.
const APPLIED: &str = "phoenix-hypervisor.io/applied";

/// What shall stand.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wanted {
    pub(super) service: Service,
    /// None while the container has no address.
    pub(super) slice: Option<EndpointSlice>,
    /// Where pods find it, in words.
    pub(super) at: String,
}

/// A port of the container by its name, and how it is addressed.
struct Port {
    name: &'static str,
    number: u16,
    scheme: &'static str,
    path: &'static str,
}

/// What a container shall have; `None`: nothing.
pub(super) fn wanted(object: &LxcContainer, status: &LxcStatus) -> Option<Wanted> {
    let spec = object.spec.service.as_ref()?;
    let ports = ports(object);
    if ports.is_empty() {
        return None;
    }
    let name = spec.name.clone().unwrap_or_else(|| object.name_any());
    let namespace = object.namespace().unwrap_or_default();
    let address: Option<IpAddr> = status.addresses.first().and_then(|a| a.parse().ok());
    let meta = ObjectMeta {
        name: Some(name.clone()),
        namespace: Some(namespace.clone()),
        labels: Some(labels(object)),
        owner_references: object.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    };
    let slice =
        address.map(|address| slice(&name, meta.clone(), address, &ports, ready(object, status)));
    let mut service = Service {
        metadata: ObjectMeta {
            annotations: Some(spec.annotations.clone()),
            ..meta
        },
        spec: Some(ServiceSpec {
            ports: Some(ports.iter().map(Port::of_service).collect()),
            // one of the cluster's first family alone would not lead to it
            ip_family_policy: address
                .filter(IpAddr::is_ipv6)
                .map(|_| "PreferDualStack".to_owned()),
            ..ServiceSpec::default()
        }),
        status: None,
    };
    let applied = hash::short(&[&json!(service).to_string()]);
    service
        .annotations_mut()
        .insert(APPLIED.to_owned(), applied);
    let at: Vec<String> = ports
        .iter()
        .map(|p| {
            format!(
                "{}://{name}.{namespace}.svc:{}{} ({})",
                p.scheme, p.number, p.path, p.name
            )
        })
        .collect();
    Some(Wanted {
        service,
        slice,
        at: at.join(" and "),
    })
}

/// The endpoint's `ready`: what the container is for is done, by the very conditions that say so.
fn ready(object: &LxcContainer, status: &LxcStatus) -> bool {
    let workload: Vec<C> = [C::VllmReady, C::ProbeReady]
        .into_iter()
        .filter(|kind| status.conditions.iter().any(|c| c.type_ == kind.as_str()))
        .collect();
    object.metadata.deletion_timestamp.is_none()
        && !workload.is_empty()
        && workload
            .iter()
            .all(|kind| said_true(&status.conditions, *kind))
}

fn ports(object: &LxcContainer) -> Vec<Port> {
    let number = |port: i64| u16::try_from(port).unwrap_or_default();
    let vllm = object.spec.vllm.as_ref().map(|vllm| Port {
        name: "vllm",
        number: vllm.port(),
        scheme: "http",
        path: "/v1",
    });
    let probe = object.spec.probe.as_ref().map(|probe| Port {
        name: "probe",
        number: number(probe.port),
        scheme: if probe.scheme == Some(Scheme::Https) {
            "https"
        } else {
            "http"
        },
        path: "",
    });
    // a Service has each number once
    let probe = probe.filter(|p| vllm.as_ref().is_none_or(|v| v.number != p.number));
    vllm.into_iter().chain(probe).collect()
}

impl Port {
    fn of_service(&self) -> ServicePort {
        ServicePort {
            name: Some(self.name.to_owned()),
            port: self.number.into(),
            protocol: Some("TCP".to_owned()),
            ..ServicePort::default()
        }
    }

    fn of_slice(&self) -> EndpointPort {
        EndpointPort {
            name: Some(self.name.to_owned()),
            port: Some(self.number.into()),
            protocol: Some("TCP".to_owned()),
            ..EndpointPort::default()
        }
    }
}

fn labels(object: &LxcContainer) -> BTreeMap<String, String> {
    [
        (MANAGED_BY, MANAGER.to_owned()),
        ("app.kubernetes.io/instance", object.name_any()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

fn slice(
    service: &str,
    mut meta: ObjectMeta,
    address: IpAddr,
    ports: &[Port],
    ready: bool,
) -> EndpointSlice {
    // a slice never changes its family: another one is another slice
    let (family, suffix) = if address.is_ipv6() {
        ("IPv6", "ipv6")
    } else {
        ("IPv4", "ipv4")
    };
    meta.name = Some(format!("{service}-phoenix-{suffix}"));
    let labels = meta.labels.get_or_insert_default();
    labels.insert(SLICE_OF.to_owned(), service.to_owned());
    labels.insert(SLICE_MANAGED_BY.to_owned(), phoenix_crds::GROUP.to_owned());
    EndpointSlice {
        metadata: meta,
        address_type: family.to_owned(),
        endpoints: Some(vec![Endpoint {
            addresses: vec![address.to_string()],
            conditions: Some(EndpointConditions {
                ready: Some(ready),
                ..EndpointConditions::default()
            }),
            ..Endpoint::default()
        }]),
        ports: Some(ports.iter().map(Port::of_slice).collect()),
    }
}

/// Whether an object is ours: it names this very owner.
pub(super) fn owned(meta: &ObjectMeta, uid: &str) -> bool {
    owners(meta).iter().any(|owner| owner.uid == uid)
}

pub(super) fn owners(meta: &ObjectMeta) -> &[OwnerReference] {
    meta.owner_references.as_deref().unwrap_or_default()
}

/// What can be wanted, compared with what stands.
pub(super) trait Compare {
    /// What stands is what is wanted, whatever else others put there.
    fn is(&self, wanted: &Self) -> bool;

    /// A merge patch for what an apply can't take away, since another added it and it can't stay.
    fn excess(&self, _wanted: &Self) -> Option<Value> {
        None
    }
}

impl Compare for Service {
    fn is(&self, wanted: &Self) -> bool {
        self.excess(wanted).is_none() && contains(&json!(self), &json!(wanted))
    }

    fn excess(&self, wanted: &Self) -> Option<Value> {
        fn ports(service: &Service) -> &[ServicePort] {
            let spec = service.spec.as_ref();
            spec.and_then(|s| s.ports.as_deref()).unwrap_or_default()
        }
        // an edited port is another one to Kubernetes, beside which ours could not stand under the same name
        let ours = |port: &ServicePort| ports(wanted).iter().any(|p| p.port == port.port);
        let others = ports(self).iter().any(|port| !ours(port));
        others.then(|| json!({"spec": {"ports": ports(wanted)}}))
    }
}

impl Compare for EndpointSlice {
    fn is(&self, wanted: &Self) -> bool {
        // endpoints and ports are whole: nobody adds to them
        (&self.endpoints, &self.ports) == (&wanted.endpoints, &wanted.ports)
            && contains(&json!(self), &json!(wanted))
    }
}

/// Every key, and every item of a list, is somewhere in `is`.
fn contains(is: &Value, wanted: &Value) -> bool {
    match (is, wanted) {
        (Value::Object(is), Value::Object(wanted)) => wanted
            .iter()
            .all(|(key, wanted)| is.get(key).is_some_and(|is| contains(is, wanted))),
        (Value::Array(is), Value::Array(wanted)) => wanted
            .iter()
            .all(|wanted| is.iter().any(|is| contains(is, wanted))),
        (is, wanted) => is == wanted,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;
    use phoenix_crds::conditions::Reason;

    use super::*;
    use crate::condition::{Finding, conditions};

    fn container(spec: &Value) -> LxcContainer {
        let mut all = json!({"source": {"templateRef": {"name": "base"}}, "service": {}});
        all.as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        let mut object = LxcContainer::new("coder", serde_json::from_value(all).unwrap());
        object.metadata.namespace = Some("ai".to_owned());
        object.metadata.uid = Some("u-1".to_owned());
        object
    }

    fn vllm() -> LxcContainer {
        container(&json!({"vllm": {"model": "m"}}))
    }

    fn status(addresses: &[&str], findings: &[Finding]) -> LxcStatus {
        LxcStatus {
            addresses: addresses.iter().map(|a| (*a).to_owned()).collect(),
            conditions: conditions(findings, &[], &[], None, Timestamp::UNIX_EPOCH),
            ..LxcStatus::default()
        }
    }

    fn endpoint(wanted: &Wanted) -> (String, String, Option<bool>) {
        let slice = wanted.slice.clone().unwrap();
        let endpoint = slice.endpoints.unwrap().remove(0);
        (
            slice.metadata.name.unwrap(),
            endpoint.addresses.join(","),
            endpoint.conditions.unwrap().ready,
        )
    }

    #[test]
    fn the_endpoint_is_ready_when_the_container_does_its_job() {
        let met = |kind, reason| Finding::met(kind, reason, "");
        let not = |kind, reason| Finding::working(kind, reason, "");
        let rows: [(&[Finding], bool); 6] = [
            (&[], false),
            (&[met(C::PowerInSync, Reason::Running)], false),
            (&[not(C::VllmReady, Reason::Loading)], false),
            (&[met(C::VllmReady, Reason::Serving)], true),
            (
                &[
                    met(C::VllmReady, Reason::Serving),
                    not(C::ProbeReady, Reason::Unhealthy),
                ],
                false,
            ),
            // what else is not as asked keeps nobody from being served
            (
                &[
                    met(C::VllmReady, Reason::Serving),
                    not(C::ConfigInSync, Reason::Drifted),
                ],
                true,
            ),
        ];
        for (findings, ready) in rows {
            let wanted = wanted(&vllm(), &status(&["10.0.0.150"], findings)).unwrap();
            assert_eq!(
                endpoint(&wanted),
                (
                    "coder-phoenix-ipv4".into(),
                    "10.0.0.150".into(),
                    Some(ready)
                ),
                "{findings:?}"
            );
        }
        let mut leaving = vllm();
        leaving.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        let status = status(&["10.0.0.150"], &[met(C::VllmReady, Reason::Serving)]);
        assert_eq!(endpoint(&wanted(&leaving, &status).unwrap()).2, Some(false));
    }

    #[test]
    fn the_first_address_decides_the_family() {
        let rows = [
            (
                vec!["fd00::150", "10.0.0.150"],
                Some("coder-phoenix-ipv6"),
                Some("PreferDualStack"),
            ),
            (
                vec!["10.0.0.150", "fd00::150"],
                Some("coder-phoenix-ipv4"),
                None,
            ),
            (vec![], None, None),
        ];
        for (addresses, slice, policy) in rows {
            let wanted = wanted(&vllm(), &status(&addresses, &[])).unwrap();
            assert_eq!(wanted.slice.and_then(|s| s.metadata.name).as_deref(), slice);
            assert_eq!(
                wanted.service.spec.unwrap().ip_family_policy.as_deref(),
                policy
            );
        }
    }

    #[test]
    fn the_ports_are_those_of_vllm_and_probe() {
        let rows = [
            (
                json!({"vllm": {"model": "m"}}),
                "http://coder.ai.svc:8000/v1 (vllm)",
            ),
            (
                json!({"probe": {"port": 9443, "scheme": "https"}}),
                "https://coder.ai.svc:9443 (probe)",
            ),
            (
                json!({"vllm": {"model": "m", "port": 80}, "probe": {"port": 8080}, "service": {"name": "qwen"}}),
                "http://qwen.ai.svc:80/v1 (vllm) and http://qwen.ai.svc:8080 (probe)",
            ),
            (
                json!({"vllm": {"model": "m"}, "probe": {"port": 8000}}),
                "http://coder.ai.svc:8000/v1 (vllm)",
            ),
        ];
        for (spec, at) in rows {
            assert_eq!(wanted(&container(&spec), &status(&[], &[])).unwrap().at, at);
        }
        assert_eq!(
            wanted(
                &container(&json!({"service": null, "vllm": {"model": "m"}})),
                &status(&[], &[])
            ),
            None
        );
    }

    #[test]
    fn what_others_added_is_no_difference_and_what_they_changed_is() {
        let wanted = wanted(&vllm(), &status(&["10.0.0.150"], &[])).unwrap();
        let edited = |edit: &dyn Fn(&mut Value)| {
            let mut value = json!(wanted.service);
            value["spec"]["clusterIP"] = json!("10.96.0.7");
            value["spec"]["ports"][0]["targetPort"] = json!(8000);
            edit(&mut value);
            serde_json::from_value::<Service>(value)
                .unwrap()
                .is(&wanted.service)
        };
        assert!(edited(&|_| {}));
        assert!(edited(&|s| s["metadata"]["labels"]["team"] = json!("web")));
        assert!(!edited(&|s| s["spec"]["ports"][0]["port"] = json!(81)));
        assert!(!edited(&|s| {
            let ports = s["spec"]["ports"].as_array_mut().unwrap();
            ports.push(json!({"name": "more", "port": 81}));
        }));
        assert!(!edited(
            &|s| s["metadata"]["annotations"][APPLIED] = json!("0")
        ));
        assert!(!edited(&|s| s["metadata"]["ownerReferences"] = json!([])));
        let slice = wanted.slice.unwrap();
        let mut more = slice.clone();
        more.endpoints.as_mut().unwrap().push(Endpoint::default());
        assert!(slice.is(&slice) && !more.is(&slice));
    }

    #[test]
    fn another_annotation_is_another_service() {
        let applied = |spec: Value| {
            let service = wanted(&container(&spec), &status(&[], &[]))
                .unwrap()
                .service;
            service.annotations()[APPLIED].clone()
        };
        let plain = applied(json!({"vllm": {"model": "m"}}));
        assert_eq!(plain, applied(json!({"vllm": {"model": "other"}})));
        assert_ne!(
            plain,
            applied(json!({"vllm": {"model": "m"}, "service": {"annotations": {"a": "b"}}}))
        );
    }
}
