//! Network interfaces and name resolution of a container.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One network interface of the container.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NetworkInterface {
    /// Name of the interface inside the container, such as `eth0`. Unique in the list.
    #[schemars(
        length(min = 1, max = 15),
        regex(pattern = r"^[a-zA-Z][a-zA-Z0-9_.-]*$")
    )]
    pub name: String,

    /// Bridge on the node that the interface is attached to, such as `vmbr0`. Left out: the hypervisor's `defaults.bridge`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15), regex(pattern = r"^[a-zA-Z0-9_.-]+$"))]
    pub bridge: Option<String>,

    /// IPv4 address with prefix length, such as `10.0.0.150/24`, or `dhcp`. Left out: no IPv4 address is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 4, max = 18),
        regex(pattern = r"^(dhcp|[0-9]{1,3}(\.[0-9]{1,3}){3}/[0-9]{1,2})$")
    )]
    pub address: Option<String>,

    /// IPv4 gateway. Left out with a static address: the hypervisor's `defaults.gateway`, where this is the only interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 7, max = 15),
        regex(pattern = r"^[0-9]{1,3}(\.[0-9]{1,3}){3}$")
    )]
    pub gateway: Option<String>,

    /// IPv6 address with prefix length, or `dhcp`, or `auto` for router advertisements. Left out: no IPv6 address is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 4, max = 49),
        regex(pattern = r"^(dhcp|auto|[0-9a-fA-F:.]+/[0-9]{1,3})$")
    )]
    pub address6: Option<String>,

    /// IPv6 gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 45), regex(pattern = r"^[0-9a-fA-F:.]+$"))]
    pub gateway6: Option<String>,

    /// MAC address, such as `BC:24:11:00:01:50`. Left out: Proxmox chooses one, which is kept from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 17, max = 17),
        regex(pattern = r"^[0-9a-fA-F][02468aceACE](:[0-9a-fA-F]{2}){5}$")
    )]
    pub hwaddr: Option<String>,

    /// VLAN tag, 1 to 4094. Left out: untagged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4094))]
    pub vlan: Option<i64>,

    /// MTU in bytes, 576 to 65535. Left out: the bridge's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 576, max = 65535))]
    pub mtu: Option<i64>,

    /// Rate limit in megabytes per second. Left out: unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.001, max = 100_000.0))]
    pub rate: Option<f64>,

    /// Whether Proxmox's firewall filters this interface. Left out: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firewall: Option<bool>,
}

/// Name resolution inside the container.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Dns {
    /// Addresses of the name servers, at most 3. Left out: inherited from the source, else the hypervisor's
    /// `defaults.nameservers`, else the node's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 3),
        inner(length(min = 2, max = 45), regex(pattern = r"^[0-9a-fA-F:.]+$"))
    )]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub nameservers: Vec<String>,

    /// DNS search domain. Left out: inherited from the source, else the node's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-zA-Z0-9]([-a-zA-Z0-9.]*[a-zA-Z0-9])?$")
    )]
    pub search_domain: Option<String>,
}
