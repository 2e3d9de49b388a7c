//! The rules in the CRDs that relate fields to each other or to what they were, in CEL: no webhook is needed.
//!
//! Decides what the API server refuses, and with which sentence. Leaves out what only Proxmox or another object can tell
//! (a taken VMID, an unknown template): that is said in conditions. Each rule has objects that it accepts and refuses in
//! `tests/rules/<name>/`; one without them fails a test.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, ValidationRule,
};

/// One rule, and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CelRule {
    /// What the rule is called among the tests.
    pub name: &'static str,
    /// The kinds that it stands in.
    pub kinds: &'static [&'static str],
    /// The field that it stands at, such as `spec.network[].address`; empty for the whole object.
    pub at: &'static str,
    /// The expression: true means accepted.
    pub rule: &'static str,
    /// The sentence for whoever is refused: what is the matter and what to do.
    pub message: &'static str,
    /// The field that the refusal names, below `at`, with a leading dot.
    pub field: Option<&'static str>,
    /// Whether it forbids a change, rather than a value.
    pub forbids: bool,
}

const ALL: &[&str] = &["Hypervisor", "LxcTemplate", "LxcContainer"];
const LXC: &[&str] = &["LxcTemplate", "LxcContainer"];
const TEMPLATE: &[&str] = &["LxcTemplate"];
const CONTAINER: &[&str] = &["LxcContainer"];
const HYPERVISOR: &[&str] = &["Hypervisor"];

/// A rule about the whole object: all that the others leave at its default.
const OBJECT: CelRule = CelRule {
    name: "",
    kinds: LXC,
    at: "",
    rule: "",
    message: "",
    field: None,
    forbids: false,
};

/// Every rule.
pub const RULES: &[CelRule] = &[
    CelRule {
        name: "name-is-a-dns-label",
        kinds: ALL,
        rule: "self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')",
        message: "metadata.name must be a DNS label, since it becomes a host name: lower-case letters, digits and '-', at most 63, without '.'",
        ..OBJECT
    },
    // What can't change. A field that may be left out is compared by rules at the object, since a rule at the field
    // isn't asked when the field comes or goes.
    CelRule {
        name: "vmid-is-immutable",
        rule: "has(oldSelf.spec.vmid) ? has(self.spec.vmid) && self.spec.vmid == oldSelf.spec.vmid : !has(self.spec.vmid) || !has(self.status) || !has(self.status.vmid) || self.spec.vmid == self.status.vmid",
        message: "vmid can't be changed: where it was left out it may be set to the one in status.vmid; for another one delete this object and create a new one",
        field: Some(".spec.vmid"),
        forbids: true,
        ..OBJECT
    },
    CelRule {
        name: "node-is-immutable",
        rule: "has(self.spec.node) == has(oldSelf.spec.node) && (!has(self.spec.node) || self.spec.node == oldSelf.spec.node)",
        message: "node can't be changed, set or removed later: migrate the container in Proxmox, which status.node follows, or delete this object and create a new one",
        field: Some(".spec.node"),
        forbids: true,
        ..OBJECT
    },
    CelRule {
        name: "unprivileged-is-immutable",
        rule: "has(self.spec.unprivileged) == has(oldSelf.spec.unprivileged) && (!has(self.spec.unprivileged) || self.spec.unprivileged == oldSelf.spec.unprivileged)",
        message: "unprivileged can't be changed, set or removed later, since all files of the container would have to change their owners: delete this object and create a new one",
        field: Some(".spec.unprivileged"),
        forbids: true,
        ..OBJECT
    },
    CelRule {
        name: "pool-is-immutable",
        rule: "has(self.spec.pool) == has(oldSelf.spec.pool) && (!has(self.spec.pool) || self.spec.pool == oldSelf.spec.pool)",
        message: "pool can't be changed, set or removed later, since a container joins its pool when it is made: delete this object and create a new one",
        field: Some(".spec.pool"),
        forbids: true,
        ..OBJECT
    },
    CelRule {
        name: "hypervisor-ref-is-immutable",
        rule: "!has(oldSelf.spec.hypervisorRef) || (has(self.spec.hypervisorRef) && self.spec.hypervisorRef.name == oldSelf.spec.hypervisorRef.name)",
        message: "hypervisorRef can't be changed once it is set: containers don't move between hypervisors; delete this object and create a new one",
        field: Some(".spec.hypervisorRef"),
        forbids: true,
        ..OBJECT
    },
    CelRule {
        name: "hypervisor-ref-is-the-resolved-one",
        rule: "!has(self.spec.hypervisorRef) || !has(self.status) || !has(self.status.hypervisor) || self.spec.hypervisorRef.name == self.status.hypervisor",
        message: "hypervisorRef.name must be the name in status.hypervisor, where the container is: leave it out, or delete this object and create a new one",
        field: Some(".spec.hypervisorRef"),
        forbids: true,
        ..OBJECT
    },
    CelRule {
        name: "source-is-immutable",
        at: "spec.source",
        rule: "self == oldSelf",
        message: "source can't be changed, since the container was made from it: delete this object and create a new one",
        forbids: true,
        ..OBJECT
    },
    CelRule {
        name: "rootfs-never-shrinks",
        at: "spec.rootfs.size",
        rule: "quantity(string(self)).compareTo(quantity(string(oldSelf))) >= 0",
        message: "rootfs.size can grow but never shrink: ask for at least the size that it has",
        forbids: true,
        ..OBJECT
    },
    CelRule {
        name: "mounts-never-shrink",
        at: "spec.mounts[].size",
        rule: "quantity(string(self)).compareTo(quantity(string(oldSelf))) >= 0",
        message: "mounts.size can grow but never shrink: ask for at least the size that the volume has",
        forbids: true,
        ..OBJECT
    },
    CelRule {
        name: "snapshot-is-immutable-once-sealed",
        kinds: TEMPLATE,
        rule: "!has(oldSelf.status) || !has(oldSelf.status.snapshot) || self.spec.snapshot == oldSelf.spec.snapshot",
        message: "snapshot can't be changed once the template is sealed, since clones refer to it: create another template",
        field: Some(".spec.snapshot"),
        forbids: true,
        ..OBJECT
    },
    // What a field may be.
    CelRule {
        name: "one-source-exactly",
        at: "spec.source",
        rule: "has(self.templateRef) != has(self.osTemplate)",
        message: "source needs exactly one of templateRef (an LxcTemplate to clone) and osTemplate (such as local:vztmpl/ubuntu-24.04-standard_24.04-2_amd64.tar.zst)",
        ..OBJECT
    },
    CelRule {
        name: "source-snapshot-needs-a-template",
        at: "spec.source",
        rule: "!has(self.snapshot) || has(self.templateRef)",
        message: "source.snapshot names a snapshot of a template: it goes with templateRef, not with osTemplate",
        field: Some(".snapshot"),
        ..OBJECT
    },
    CelRule {
        name: "snapshot-name-is-free",
        kinds: TEMPLATE,
        at: "spec.snapshot.name",
        rule: "!(self in ['current', 'vzdump'])",
        message: "snapshot.name can't be current or vzdump, which Proxmox keeps for itself: choose another one, such as base-snapshot",
        ..OBJECT
    },
    CelRule {
        name: "memory-is-whole-mib",
        at: "spec.resources.memory",
        rule: "!string(self).contains('.') && quantity(string(self)).isInteger() && quantity(string(self)).compareTo(quantity('16Mi')) >= 0 && quantity(string(self)).compareTo(quantity('1Pi')) <= 0 && quantity(string(self)).asInteger() % 1048576 == 0",
        message: "memory must be a whole number of MiB, 16Mi to 1Pi, without a fraction: such as 512Mi or 40Gi",
        ..OBJECT
    },
    CelRule {
        name: "swap-is-whole-mib",
        at: "spec.resources.swap",
        rule: "!string(self).contains('.') && quantity(string(self)).isInteger() && quantity(string(self)).compareTo(quantity('0')) >= 0 && quantity(string(self)).compareTo(quantity('1Pi')) <= 0 && quantity(string(self)).asInteger() % 1048576 == 0",
        message: "swap must be a whole number of MiB, without a fraction: such as 512Mi, or 0 for none",
        ..OBJECT
    },
    CelRule {
        name: "rootfs-is-whole-gib",
        at: "spec.rootfs.size",
        rule: "!string(self).contains('.') && quantity(string(self)).isInteger() && quantity(string(self)).compareTo(quantity('1Gi')) >= 0 && quantity(string(self)).compareTo(quantity('1Pi')) <= 0 && quantity(string(self)).asInteger() % 1073741824 == 0",
        message: "rootfs.size must be a whole number of GiB, 1Gi to 1Pi, without a fraction: such as 32Gi",
        ..OBJECT
    },
    CelRule {
        name: "mounts-are-whole-gib",
        at: "spec.mounts[].size",
        rule: "!string(self).contains('.') && quantity(string(self)).isInteger() && quantity(string(self)).compareTo(quantity('1Gi')) >= 0 && quantity(string(self)).compareTo(quantity('1Pi')) <= 0 && quantity(string(self)).asInteger() % 1073741824 == 0",
        message: "mounts.size must be a whole number of GiB, 1Gi to 1Pi, without a fraction: such as 100Gi",
        ..OBJECT
    },
    CelRule {
        name: "mount-is-a-volume-or-a-host-path",
        at: "spec.mounts[]",
        rule: "has(self.size) != has(self.hostPath)",
        message: "a mount needs exactly one of size (a volume) and hostPath (a directory of the node)",
        ..OBJECT
    },
    CelRule {
        name: "host-path-has-no-storage",
        at: "spec.mounts[]",
        rule: "!has(self.hostPath) || (!has(self.storage) && !has(self.backup))",
        message: "storage and backup are for volumes: leave them out with hostPath",
        ..OBJECT
    },
    CelRule {
        name: "mount-paths-are-plain",
        at: "spec.mounts[].path",
        rule: "!self.matches('/[.][.]?(/|$)')",
        message: "mounts.path must name its place without . and .. as in /srv/data",
        ..OBJECT
    },
    CelRule {
        name: "host-paths-are-plain",
        at: "spec.mounts[].hostPath",
        rule: "!self.matches('/[.][.]?(/|$)')",
        message: "hostPath must name the directory without . and .. as in /srv/models",
        ..OBJECT
    },
    CelRule {
        name: "templates-have-no-host-paths",
        kinds: TEMPLATE,
        at: "spec.mounts[]",
        rule: "!has(self.hostPath)",
        message: "a template can't have a hostPath, since Proxmox neither clones nor snapshots directories of the node: give it to the containers",
        field: Some(".hostPath"),
        ..OBJECT
    },
    CelRule {
        name: "device-paths-are-plain",
        at: "spec.devices[].path",
        rule: "!self.matches('/[.][.]?(/|$)')",
        message: "devices.path must name the device node without . and .. as in /dev/net/tun",
        ..OBJECT
    },
    CelRule {
        name: "devices-are-no-gpus",
        at: "spec.devices[].path",
        rule: "!self.startsWith('/dev/nvidia')",
        message: "NVIDIA's device nodes are given by spec.gpus, which also sees to who holds a GPU: name the GPUs there",
        ..OBJECT
    },
    CelRule {
        name: "address-is-a-cidr",
        at: "spec.network[].address",
        rule: "self == 'dhcp' || (isCIDR(self) && cidr(self).ip().family() == 4)",
        message: "address must be an IPv4 address with its prefix length, such as 10.0.0.150/24, or dhcp",
        ..OBJECT
    },
    CelRule {
        name: "address6-is-a-cidr",
        at: "spec.network[].address6",
        rule: "self in ['dhcp', 'auto'] || (isCIDR(self) && cidr(self).ip().family() == 6)",
        message: "address6 must be an IPv6 address with its prefix length, such as fd00::150/64, or dhcp, or auto",
        ..OBJECT
    },
    CelRule {
        name: "gateway-is-an-address",
        at: "spec.network[].gateway",
        rule: "isIP(self) && ip(self).family() == 4",
        message: "gateway must be an IPv4 address without a prefix length, such as 10.0.0.1",
        ..OBJECT
    },
    CelRule {
        name: "gateway6-is-an-address",
        at: "spec.network[].gateway6",
        rule: "isIP(self) && ip(self).family() == 6",
        message: "gateway6 must be an IPv6 address without a prefix length, such as fd00::1",
        ..OBJECT
    },
    CelRule {
        name: "gateway-goes-with-a-static-address",
        at: "spec.network[]",
        rule: "!has(self.gateway) || (has(self.address) && self.address != 'dhcp')",
        message: "gateway goes with a static address: give address as 10.0.0.150/24, or leave gateway out",
        field: Some(".gateway"),
        ..OBJECT
    },
    CelRule {
        name: "gateway6-goes-with-a-static-address",
        at: "spec.network[]",
        rule: "!has(self.gateway6) || (has(self.address6) && !(self.address6 in ['dhcp', 'auto']))",
        message: "gateway6 goes with a static address6: give address6 as fd00::150/64, or leave gateway6 out",
        field: Some(".gateway6"),
        ..OBJECT
    },
    CelRule {
        name: "one-gateway-at-most",
        at: "spec.network",
        rule: "self.filter(n, has(n.gateway)).size() <= 1 && self.filter(n, has(n.gateway6)).size() <= 1",
        message: "only one interface may have a gateway, and one a gateway6: a container has one default route each",
        ..OBJECT
    },
    CelRule {
        name: "nameservers-are-addresses",
        at: "spec.dns.nameservers[]",
        rule: "isIP(self)",
        message: "nameservers must be IP addresses, such as 10.0.0.1",
        ..OBJECT
    },
    CelRule {
        name: "one-script-exactly",
        at: "spec.setup",
        rule: "has(self.script) != has(self.scriptFrom)",
        message: "setup needs exactly one of script (the text itself) and scriptFrom (the key of a ConfigMap)",
        ..OBJECT
    },
    CelRule {
        name: "one-value-exactly",
        at: "spec.setup.env[]",
        rule: "[has(self.value), has(self.configMapKeyRef), has(self.secretKeyRef)].filter(given, given).size() == 1",
        message: "each variable of setup.env needs exactly one of value, configMapKeyRef and secretKeyRef",
        ..OBJECT
    },
    CelRule {
        name: "setup-timeout-is-sensible",
        at: "spec.setup.timeout",
        rule: "duration(self) >= duration('1s') && duration(self) <= duration('168h')",
        message: "setup.timeout must be between 1s and 168h",
        ..OBJECT
    },
    CelRule {
        name: "shutdown-timeout-is-sensible",
        at: "spec.shutdownTimeout",
        rule: "duration(self) >= duration('1s') && duration(self) <= duration('2h')",
        message: "shutdownTimeout must be between 1s and 2h",
        ..OBJECT
    },
    CelRule {
        name: "up-delay-is-sensible",
        at: "spec.boot.upDelay",
        rule: "!self.contains('ms') && duration(self) <= duration('1h')",
        message: "boot.upDelay must be in whole seconds and at most 1h",
        ..OBJECT
    },
    CelRule {
        name: "startup-timeout-is-sensible",
        kinds: CONTAINER,
        at: "spec.vllm.startupTimeout",
        rule: "duration(self) >= duration('1s') && duration(self) <= duration('168h')",
        message: "vllm.startupTimeout must be between 1s and 168h",
        ..OBJECT
    },
    CelRule {
        name: "vllm-arguments-have-fields",
        kinds: CONTAINER,
        at: "spec.vllm.extraArgs[]",
        rule: "!self.matches('^--(host|port|api[-_]key|served[-_]model[-_]name)(=.*)?$')",
        message: "host, port, API key and served name have fields of their own in spec.vllm, by which readiness is judged: use them instead of extraArgs",
        ..OBJECT
    },
    CelRule {
        name: "one-kind-of-gpus",
        at: "spec.gpus",
        rule: "has(self.indices) != has(self.count)",
        message: "gpus needs exactly one of indices (which GPUs of the node) and count (how many, picked by the operator)",
        ..OBJECT
    },
    CelRule {
        name: "vllm-has-its-gpus",
        kinds: CONTAINER,
        at: "spec",
        rule: "!has(self.vllm) || !has(self.vllm.tensorParallelSize) || (has(self.gpus) && self.vllm.tensorParallelSize <= (has(self.gpus.indices) ? self.gpus.indices.size() : has(self.gpus.count) ? self.gpus.count : 64))",
        message: "vllm.tensorParallelSize is more than the GPUs in gpus: ask for as many GPUs, or lower it",
        field: Some(".vllm.tensorParallelSize"),
        ..OBJECT
    },
    CelRule {
        name: "service-has-a-port",
        kinds: CONTAINER,
        at: "spec",
        rule: "!has(self.service) || has(self.vllm) || has(self.probe)",
        message: "service has no port to lead to: it takes those of vllm and probe, so give one of them, or leave service out",
        field: Some(".service"),
        ..OBJECT
    },
    CelRule {
        name: "endpoints-are-https",
        kinds: HYPERVISOR,
        at: "spec.endpoints[]",
        rule: "self.matches('^https://[^ /?#@]+/?$')",
        message: "endpoints must be https addresses without path and user, such as https://pve1.lan:8006",
        ..OBJECT
    },
    CelRule {
        name: "fingerprints-are-sha256",
        kinds: HYPERVISOR,
        at: "spec.tls.fingerprints[]",
        rule: "self.matches('^[0-9a-fA-F]{2}(:?[0-9a-fA-F]{2}){31}$')",
        message: "tls.fingerprints must be SHA-256 fingerprints, 32 bytes in hexadecimal with or without ':': openssl x509 -in /etc/pve/local/pve-ssl.pem -noout -fingerprint -sha256 prints one",
        ..OBJECT
    },
    CelRule {
        name: "proxy-is-an-address",
        kinds: HYPERVISOR,
        at: "spec.guest.proxy",
        rule: "self.matches('^(socks5|socks5h|http|https)://[^ /?#@]+/?$')",
        message: "guest.proxy must be a socks5, socks5h, http or https address without path and user, such as socks5://pve1.lan:1080",
        ..OBJECT
    },
    CelRule {
        name: "ssh-goes-through-the-proxy",
        kinds: HYPERVISOR,
        at: "spec.guest",
        rule: "!has(self.transport) || self.transport != 'Ssh' || !has(self.proxy) || !self.proxy.startsWith('https://')",
        message: "SSH goes through socks5, socks5h and http proxies, not through https: set another guest.proxy, or guest.transport to Auto or Console",
        ..OBJECT
    },
    CelRule {
        name: "vmid-range-is-a-range",
        kinds: HYPERVISOR,
        at: "spec.vmidRange",
        rule: "self.start <= self.end",
        message: "vmidRange.start must not be above vmidRange.end",
        ..OBJECT
    },
    CelRule {
        name: "ca-bundle-is-pem",
        kinds: HYPERVISOR,
        at: "spec.tls.caBundle",
        rule: "self.contains('-----BEGIN CERTIFICATE-----')",
        message: "tls.caBundle must hold certificates as PEM: the text of /etc/pve/pve-root-ca.pem, not base64 of it and not a file name",
        ..OBJECT
    },
    CelRule {
        name: "default-gateway-is-an-address",
        kinds: HYPERVISOR,
        at: "spec.defaults.gateway",
        rule: "isIP(self) && ip(self).family() == 4",
        message: "defaults.gateway must be an IPv4 address without a prefix length, such as 10.0.0.1",
        ..OBJECT
    },
    CelRule {
        name: "default-nameservers-are-addresses",
        kinds: HYPERVISOR,
        at: "spec.defaults.nameservers[]",
        rule: "isIP(self)",
        message: "defaults.nameservers must be IP addresses, such as 10.0.0.1",
        ..OBJECT
    },
    CelRule {
        name: "allowed-addresses-are-networks",
        kinds: HYPERVISOR,
        at: "spec.allowed.addresses[]",
        rule: "isCIDR(self)",
        message: "allowed.addresses must be networks with their prefix length, such as 10.0.0.0/24",
        ..OBJECT
    },
    CelRule {
        name: "allowed-host-paths-are-plain",
        kinds: HYPERVISOR,
        at: "spec.allowed.hostPaths[]",
        rule: "!self.matches('/[.][.]?(/|$)')",
        message: "allowed.hostPaths must name directories without . and .. as in /srv/*",
        ..OBJECT
    },
    CelRule {
        name: "allowed-devices-are-plain",
        kinds: HYPERVISOR,
        at: "spec.allowed.devices[]",
        rule: "!self.matches('/[.][.]?(/|$)')",
        message: "allowed.devices must name device nodes without . and .. as in /dev/dri/renderD*",
        ..OBJECT
    },
    CelRule {
        name: "polling-interval-is-sensible",
        kinds: HYPERVISOR,
        at: "spec.polling.interval",
        rule: "duration(self) >= duration('100ms') && duration(self) <= duration('1h')",
        message: "polling.interval must be between 100ms and 1h",
        ..OBJECT
    },
    CelRule {
        name: "polling-drift-is-sensible",
        kinds: HYPERVISOR,
        at: "spec.polling.drift",
        rule: "duration(self) >= duration('1s') && duration(self) <= duration('168h')",
        message: "polling.drift must be between 1s and 168h",
        ..OBJECT
    },
];

/// Puts the rules of a kind into its schema.
#[expect(
    clippy::panic,
    reason = "a rule for a field that isn't there is a mistake in the table above, which every test sees"
)]
pub(crate) fn apply(kind: &str, root: &mut JSONSchemaProps) {
    for rule in RULES.iter().filter(|rule| rule.kinds.contains(&kind)) {
        let Some(schema) = at(root, rule.at) else {
            panic!("rule {}: {kind} has no field {}", rule.name, rule.at)
        };
        schema
            .x_kubernetes_validations
            .get_or_insert_default()
            .push(ValidationRule {
                rule: rule.rule.to_owned(),
                message: Some(rule.message.to_owned()),
                field_path: rule.field.map(str::to_owned),
                reason: Some(
                    if rule.forbids {
                        "FieldValueForbidden"
                    } else {
                        "FieldValueInvalid"
                    }
                    .to_owned(),
                ),
                ..ValidationRule::default()
            });
    }
}

/// The schema of a field.
fn at<'a>(root: &'a mut JSONSchemaProps, path: &str) -> Option<&'a mut JSONSchemaProps> {
    path.split('.')
        .filter(|part| !part.is_empty())
        .try_fold(root, |schema, part| {
            let (name, item) = part
                .strip_suffix("[]")
                .map_or((part, false), |name| (name, true));
            let field = schema.properties.as_mut()?.get_mut(name)?;
            if !item {
                return Some(field);
            }
            match field.items.as_mut()? {
                JSONSchemaPropsOrArray::Schema(items) => Some(&mut **items),
                JSONSchemaPropsOrArray::Schemas(_) => None,
            }
        })
}
