//! The `CustomResourceDefinition`s: made once, here, for the files beside this crate, the chart and `phoenix crds`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::{Hypervisor, LxcContainer, LxcTemplate};

/// The definitions of all kinds.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![Hypervisor::crd(), LxcTemplate::crd(), LxcContainer::crd()]
}

/// A definition as YAML.
pub fn to_yaml(crd: &CustomResourceDefinition) -> Result<String, serde_saphyr::ser::Error> {
    serde_saphyr::to_string(crd)
}
