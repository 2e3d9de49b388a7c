//! The Secrets that objects name for their setup and their model server: a change of one wakes those that name it.
//!
//! They are asked for one by one, by their names, and only for their metadata. A watch would tell sooner, but the right to watch is the
//! right to list: the operator would be given every Secret of every namespace for the few that it needs.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt};
use phoenix_crds::{LxcContainer, LxcSpec};
use tracing::debug;

use crate::{context::Context, engine::key_of, fault::Fault, wake::ObjectKey};

/// How often they are looked at.
const PERIOD: Duration = Duration::from_secs(15);

/// A Secret by namespace and name.
type Place = (String, String);

/// What each was when it was looked at last: its version, or that it wasn't there.
type Versions = HashMap<Place, Option<String>>;

/// Reads one; `None` where there is none of that name.
pub(crate) async fn read(
    kube: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<Secret>, Fault> {
    let api: Api<Secret> = Api::namespaced(kube.clone(), namespace);
    api.get_opt(name)
        .await
        .map_err(|e| Fault::kube(&e, &format!("reading Secret {namespace}/{name}")))
}

/// Looks at them until it is dropped.
pub(crate) async fn follow(cx: Arc<Context>) {
    cx.filled.all().await;
    // those that are there from the beginning are read by the first passes
    let mut versions = look(&named(&cx), &cx).await;
    loop {
        tokio::time::sleep(PERIOD).await;
        let named = named(&cx);
        let now = look(&named, &cx).await;
        for key in changed(&versions, &now, &named) {
            cx.wakes.wake(key);
        }
        // one that could not be looked at is compared with what it was before
        versions.retain(|place, _| named.contains_key(place));
        versions.extend(now);
    }
}

/// Who has to know of what is different, or named for the first time: it may have changed since its first reading.
fn changed<'a>(
    before: &Versions,
    now: &Versions,
    named: &'a BTreeMap<Place, Vec<ObjectKey>>,
) -> BTreeSet<&'a ObjectKey> {
    named
        .iter()
        .filter(|(place, _)| {
            now.get(*place)
                .is_some_and(|version| before.get(*place) != Some(version))
        })
        .flat_map(|(_, users)| users)
        .collect()
}

async fn look(named: &BTreeMap<Place, Vec<ObjectKey>>, cx: &Context) -> Versions {
    let mut versions = Versions::new();
    for place in named.keys() {
        let (namespace, name) = place;
        let api: Api<Secret> = Api::namespaced(cx.kube.clone(), namespace);
        match api.get_metadata_opt(name).await {
            Ok(found) => {
                let version = found.and_then(|secret| secret.resource_version());
                versions.insert(place.clone(), version);
            }
            Err(e) => debug!(namespace, name, error = %e, "a Secret could not be looked at"),
        }
    }
    versions
}

/// The Secrets that objects name, with those objects.
fn named(cx: &Context) -> BTreeMap<Place, Vec<ObjectKey>> {
    let mut named: BTreeMap<Place, Vec<ObjectKey>> = BTreeMap::new();
    let mut note = |key: ObjectKey, names: BTreeSet<String>| {
        for name in names {
            let place = (key.namespace.clone(), name);
            named.entry(place).or_default().push(key.clone());
        }
    };
    for template in cx.stores.all_templates() {
        note(key_of(&template), of_setup(&template.spec.shared));
    }
    for container in cx.stores.all_containers() {
        let mut names = of_setup(&container.spec.shared);
        names.extend(of_vllm(&container));
        note(key_of(&container), names);
    }
    named
}

fn of_setup(spec: &LxcSpec) -> BTreeSet<String> {
    let env = spec.setup.iter().flat_map(|setup| &setup.env);
    env.filter_map(|variable| Some(variable.secret_key_ref.as_ref()?.name.clone()))
        .collect()
}

fn of_vllm(container: &LxcContainer) -> impl Iterator<Item = String> {
    let vllm = container.spec.vllm.iter();
    vllm.flat_map(|vllm| [&vllm.hugging_face_token, &vllm.api_key])
        .flatten()
        .map(|source| source.secret_key_ref.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wake::KindName;

    #[test]
    fn who_names_a_secret_learns_of_its_change() {
        let key = |name: &str| ObjectKey {
            kind: KindName::LxcContainer,
            namespace: "default".into(),
            name: name.into(),
        };
        let place = |name: &str| ("default".to_owned(), name.to_owned());
        let version = |v: &str| Some(v.to_owned());
        let named = BTreeMap::from([
            (place("same"), vec![key("a")]),
            (place("changed"), vec![key("b"), key("c")]),
            (place("made"), vec![key("d")]),
            (place("gone"), vec![key("e")]),
            (place("new"), vec![key("f")]),
            (place("unseen"), vec![key("g")]),
        ]);
        let before = Versions::from([
            (place("same"), version("1")),
            (place("changed"), version("2")),
            (place("made"), None),
            (place("gone"), version("3")),
            (place("unseen"), version("4")),
        ]);
        let now = Versions::from([
            (place("same"), version("1")),
            (place("changed"), version("5")),
            (place("made"), version("6")),
            (place("gone"), None),
            (place("new"), version("7")),
        ]);
        let woken: Vec<&str> = changed(&before, &now, &named)
            .into_iter()
            .map(|key| key.name.as_str())
            .collect();
        assert_eq!(woken, ["b", "c", "d", "e", "f"]);
    }
}
